"""A frozen language model on texts that grow: one token of work for each new token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from textgym.lm import LMStream
from textgym.scorers.fluency.language_model import LanguageModel, Read, padded, token_log_probs

__all__ = ["TokenStream"]


class TokenStream:
    """Log-probabilities of newest tokens, from a forward of what is new in each text.

    Args:
        lm: The model; several streams may share it.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._stream: LMStream | None = None

    def log_probs(self, texts: Sequence[Read], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (B,) float64, log p(last token | all before it) in nats.

        Args:
            texts: B texts with a completion each.
            slots: (B,) where the texts were in the call before; a text that was elsewhere is fed anew, and right.
        """
        fed = padded([[*text.context, *text.completion[:-1]] for text in texts])
        stream = self._stream_for(int(slots.max()) + 1, fed.shape[1])
        ids = np.zeros((stream.num_slots, fed.shape[1]), dtype=np.int64)
        lengths = np.ones(stream.num_slots, dtype=np.int64)
        active = np.zeros(stream.num_slots, dtype=np.bool_)
        ids[slots], active[slots] = fed, True
        lengths[slots] = [len(text.context) + len(text.completion) - 1 for text in texts]
        logits = stream(ids, lengths, active=active).logits
        return token_log_probs(logits[torch.from_numpy(slots)], torch.tensor([text.completion[-1] for text in texts]))

    def _stream_for(self, num_slots: int, width: int) -> LMStream:
        """Return a stream that is large enough; where it has to grow, it doubles, and texts are fed anew once."""
        old = self._stream
        if old is not None and num_slots <= old.num_slots and width <= old.window:
            return old
        if old is not None:
            num_slots = old.num_slots if num_slots <= old.num_slots else max(num_slots, 2 * old.num_slots)
            width = max(width, old.window)
        window = max(64, 1 << (width - 1).bit_length())
        window = window if self.lm.window is None else min(window, self.lm.window)
        self._stream = LMStream(self.lm.model, num_slots, window)
        return self._stream
