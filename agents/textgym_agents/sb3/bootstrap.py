"""Batched bootstrap values for truncated episodes, which SB3 queries one at a time."""

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.policy import LMPolicy

__all__ = ["LastAction"]


class LastAction:
    """Values of the N texts as the last action left them, from one further step of the stream.

    Needed with ``time_limit="truncated"`` alone, since SB3 bootstraps truncated episodes only: of 64 that end in the
    same step it would have each whole text fed alone.

    Args:
        lm: The policy that acted.
        windows: (N, L) int64, the observations.
        actions: (N,) int64, the actions.
    """

    def __init__(self, lm: LMPolicy, windows: npt.NDArray[np.int64], actions: npt.NDArray[np.int64]) -> None:
        self._lm, self._windows, self._actions = lm, windows, actions
        self._texts: npt.NDArray[np.int64] | None = None
        self._values = torch.empty(0)
        self._weights = -1

    def value_of(self, window: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """Return (1,) float32 V of an (L,) text, or None if no slot has it."""
        if self._texts is None:
            lengths = (self._windows != self._lm.vocab_size).sum(axis=1)
            rows = np.flatnonzero(lengths < self._windows.shape[1])
            self._texts = self._windows.copy()
            self._texts[rows, lengths[rows]] = self._actions[rows]
        found = np.flatnonzero((self._texts == window).all(axis=1))
        if not found.size:
            return None
        weights = sum(parameter._version for parameter in self._lm.parameters())
        if weights != self._weights:
            self._values, self._weights = self._lm.step(self._texts)[1], weights
        return self._values[found[:1]]
