"""What the decoding baselines share: they are policies for ``collect`` and have SB3's ``predict``."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.policy import ActionOutput, LMPolicy
from textgym_agents.rollout import token_window

__all__ = ["Decoder", "as_lm_policy"]


class Decoder(ABC):
    """Chooses tokens by a rule; each rule fills in ``act``, which is that of the protocol ``Policy``.

    Args:
        vocab_size: V.
        seed: Of the generator, which serves wherever ``act`` is given none.
        device: Where logits are drawn from.
    """

    def __init__(self, vocab_size: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        self.vocab_size = vocab_size
        self.device = torch.device(device)
        self.generator = torch.Generator(device).manual_seed(seed)

    @abstractmethod
    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts; see ``Policy.act``."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose actions, with SB3's signature; see ``Agent.predict``."""
        ids = token_window(observation)
        masks = None if action_masks is None else np.atleast_2d(action_masks)
        choice = self.act(np.atleast_2d(ids), masks, deterministic=deterministic)
        return (choice.actions[0] if ids.ndim == 1 else choice.actions), state


def as_lm_policy(policy: Any) -> LMPolicy:
    """Return a policy as it is, and whatever ``LMPolicy`` takes as a policy."""
    return policy if isinstance(policy, LMPolicy) else LMPolicy(policy)
