"""Many states that are prefixes of few texts, so that one forward over the texts evaluates them all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.lm import lm_head_hook
from textgym_agents.backbone import LMBackbone

__all__ = ["TextStates", "hidden_states", "windows_of"]


@dataclass(frozen=True)
class TextStates:
    """M states, text by text: what our buffers give to SB3's ``train`` as observations, which gives it to our policies.

    The numbers stay on the CPU, from where the language model takes them.
    """

    ids: torch.Tensor
    """(B, W) int64, texts from the left; what stands after a text's end is any token."""
    rows: torch.Tensor
    """(M,) int64, the text that each state belongs to, ascending."""
    columns: torch.Tensor
    """(M,) int64, where the last token of each state stands, ascending within a text."""

    @property
    def prompt_lengths(self) -> torch.Tensor:
        """(B,) int64, tokens of each text's first state, which it may share with others."""
        counts = torch.bincount(self.rows, minlength=len(self.ids))
        return self.columns[counts.cumsum(0) - counts] + 1

    @classmethod
    def of(cls, observation: Any, pad_token_id: int) -> "TextStates":
        """Return states as they are, and M observations, which SB3's own buffers give, each as a text of its own.

        Args:
            observation: States, or (M, L) integers, texts right-padded with ``pad_token_id``, or a dict of such.
            pad_token_id: V.
        """
        if isinstance(observation, cls):
            return observation
        windows = observation["ids"] if isinstance(observation, dict) else observation
        ids = windows.long().cpu()
        lengths = (ids != pad_token_id).sum(dim=1)
        ids = ids[:, : int(lengths.max())]
        rows = torch.arange(len(ids))
        return cls(ids.masked_fill(ids == pad_token_id, 0), rows, lengths - 1)


def hidden_states(backbone: LMBackbone, states: TextStates) -> torch.Tensor:
    """Return (M, H) last hidden states from one forward over B texts, without the logits, which cost more than they."""
    rows, columns = states.rows.to(backbone.device), states.columns.to(backbone.device)
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        kept.append(hidden[rows, columns])
        return hidden[:1, :1]

    with backbone._precision(), lm_head_hook(backbone.model, keep):
        backbone.model(input_ids=states.ids.to(backbone.device), use_cache=False)
    return kept[0]


def windows_of(observation: Any, pad_token_id: int) -> npt.NDArray[np.int64]:
    """Return the (N, L) int64 ids of a tensor that SB3 made of an observation, or of a dict of such.

    Raises:
        ValueError: If they are not texts right-padded with ``pad_token_id``, although the space says so: SB3's
            ``VecNormalize`` and ``VecFrameStack`` leave the space as one that fits, and change what is in it.
    """
    ids = observation["ids"] if isinstance(observation, dict) else observation
    windows: npt.NDArray[np.int64] = ids.long().numpy(force=True)
    is_pad = windows == pad_token_id
    is_text = not (is_pad[:, :-1] & ~is_pad[:, 1:]).any() and 0 <= windows.min() <= windows.max() <= pad_token_id
    if not is_text or (ids.is_floating_point() and bool((ids != ids.round()).any())):
        raise ValueError(
            f"the observation is no window of token ids from 0, right-padded with {pad_token_id}: a wrapper changes "
            "it; use VecNormalize(norm_obs=False), and neither VecFrameStack nor any other wrapper of observations"
        )
    return windows
