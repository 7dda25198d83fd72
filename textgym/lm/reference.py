"""A frozen reference language model, as in KL penalties."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from textgym.lm.sampling import log_prob
from textgym.lm.stream import LMStream


class ReferenceLM:
    """Log-probabilities of actions under a frozen language model.

    Args:
        model: The language model.
        window: Longest sequence in tokens.

    >>> from textgym.lm import load_lm
    >>> reference = ReferenceLM(load_lm("tiny"), window=4)
    >>> ids, lengths, actions = np.array([[5, 6, 0, 0]]), np.array([2]), np.array([7])
    >>> bool(reference.log_probs(ids, lengths, actions)[0] < 0)
    True
    """

    def __init__(self, model: PreTrainedModel, window: int) -> None:
        self.model, self.window = model, window
        self._stream: LMStream | None = None

    def log_probs(
        self,
        ids: NDArray[np.integer],
        lengths: NDArray[np.integer],
        actions: NDArray[np.integer],
        *,
        token_masks: NDArray[np.bool_] | None = None,
        active: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float64]:
        """Return log p(action | sequence) in nats for N sequences; see ``textgym.rewards.Reference``.

        Args:
            ids: (N, L) integers, left-aligned sequences, L at most `window`.
            lengths: (N,) tokens of each sequence, at least 1.
            actions: (N,) next tokens.
            token_masks: (N, V) bool, the tokens over which probabilities are normalised; None for all.
            active: (N,) bool, sequences to feed; None for all. Results of the others are meaningless.

        Returns:
            (N,) float64, at most 0.

        Raises:
            TypeError, ValueError: As raised by ``LMStream``.
        """
        if self._stream is None or self._stream.num_slots != len(ids):
            self._stream = LMStream(self.model, len(ids), self.window)
        logits = self._stream(ids, lengths, active=active).logits
        if token_masks is not None:
            logits = logits.masked_fill(~torch.tensor(token_masks, device=logits.device), -torch.inf)
        return log_prob(logits, torch.as_tensor(actions, device=logits.device)).double().numpy(force=True)

    def clear(self) -> None:
        """Clear the cache, so that rounding does not depend on earlier sequences; see ``Reference``."""
        if self._stream is not None:
            self._stream.clear()
