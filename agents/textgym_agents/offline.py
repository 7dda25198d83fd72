"""Base class of agents that learn from recorded episodes."""

import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import Self

from textgym.tokenizers import as_tokenizer
from textgym_agents.agent import Agent
from textgym_agents.config import AgentConfig
from textgym_agents.episodes import Episodes
from textgym_agents.reading import read_episodes

__all__ = ["OfflineAgent"]


class OfflineAgent(Agent):
    """An agent that learns from recorded episodes; subclasses set ``config_class`` and implement ``update``.

    Args:
        policy: A policy of the algorithm's class, or its constructor's first argument, such as ``"tiny"``.
        data: Episodes, or the path of a file written by ``EpisodeRecorder``.
        config: The hyper-parameters, if not given as keywords.
        **settings: Fields of ``config_class``.

    Attributes:
        data: The episodes to learn from: those given, without the ones whose scorer failed.

    Raises:
        TypeError: If ``data`` is neither, ``policy`` or ``config`` is another agent's, or a setting is unknown or given
            twice.
        ValueError: If there are no episodes, they were written with another vocabulary, or the scorer failed for all.
    """

    def __init__(
        self,
        policy: Any,
        data: Episodes | str | PathLike[str],
        config: AgentConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(policy, config, **settings)
        if isinstance(data, (str, PathLike)):
            data = read_episodes(data)
        _check_data(data, self.policy.vocab_size)
        if data.vocabulary is not None and (tokenizer := self.policy.backbone.tokenizer) is not None:
            data.check_vocabulary(as_tokenizer(tokenizer))
        self.data = _without_failures(data)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        data: Episodes | str | PathLike[str] | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Resume from a folder that ``save`` wrote, with the same data; see ``OnlineAgent.load``."""
        if data is None:
            raise TypeError(f"{cls.__name__}.load(path, data) needs the data too, which no checkpoint holds")
        return cls._load(Path(path), data, device)

    def collect(self) -> Episodes:
        """Draw ``config.batch_size`` episodes with replacement, and count their tokens."""
        device = self.generator.device
        size = (self.config.batch_size,)
        chosen = torch.randint(len(self.data), size, generator=self.generator, device=device)
        self.episodes = self.data[chosen.cpu().numpy()]
        self.num_timesteps += int(self.episodes.num_steps.sum())
        return self.episodes


def _without_failures(data: Episodes) -> Episodes:
    """Return the episodes without those whose scorer failed; raise a ValueError if none is left."""
    # Not Episodes.scored: files without a column for scores are valid data.
    kept = [not (info.get("scorer_error") and math.isnan(info.get("score", 0.0))) for info in data.infos]
    if not any(kept):
        raise ValueError(f"the scorer failed for every one of the {len(data)} episodes: there is nothing to learn from")
    return data if all(kept) else data[np.flatnonzero(kept)]


def _check_data(data: Any, vocab_size: int) -> None:
    """Raise an error unless ``data`` are episodes with the policy's vocabulary."""
    if not isinstance(data, Episodes):
        raise TypeError(f"data must be Episodes or the path of recorded ones, got {type(data).__name__}")
    if len(data) == 0:
        raise ValueError("data must hold at least 1 episode, got none")
    least, most = int(data.ids.min()), int(data.ids.max())
    if least < 0 or most >= vocab_size:
        raise ValueError(
            f"the data hold ids from {least} to {most}, the policy has ids from 0 to {vocab_size - 1}: they were "
            "written with another tokenizer"
        )
    if data.action_masks is not None and data.action_masks.shape[2] != -(-vocab_size // 8):
        raise ValueError(
            f"the data's action masks have {data.action_masks.shape[2]} bytes a step, a vocabulary of {vocab_size} "
            f"needs {-(-vocab_size // 8)}"
        )
