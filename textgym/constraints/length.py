"""Constraints on how long a completion is."""

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch

__all__ = ["MinNewTokens"]


class MinNewTokens:
    """EOS is illegal until the completion has ``n`` tokens.

    Args:
        n: Tokens without EOS, at least 1.

    Raises:
        ValueError: If ``n`` is less than 1.

    >>> MinNewTokens(2).mask(TextBatch.from_texts(["a", "ab"]))[:, 256]
    array([False,  True])
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"the least number of new tokens must be at least 1, got {n}")
        self.n = n

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, False at most for EOS."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        if batch.tokenizer.eos_token_id is not None:
            mask[:, batch.tokenizer.eos_token_id] = batch.num_new_tokens >= self.n
        return mask
