"""Constraints against repetition."""

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch

__all__ = ["NoRepeatNGram"]


class NoRepeatNGram:
    """A token is illegal if it would end an n-gram of tokens that prompt and completion already hold.

    Args:
        n: Tokens of an n-gram, at least 1. With 1 no token comes twice.

    Raises:
        ValueError: If ``n`` is less than 1.

    Same as ``no_repeat_ngram_size`` in Hugging Face's ``generate``, after Paulus et al., "A Deep Reinforced Model for
    Abstractive Summarization", https://arxiv.org/abs/1705.04304.

    >>> legal = NoRepeatNGram(2).mask(TextBatch.from_texts(["the th"]))[0]
    >>> [chr(i) for i in (~legal).nonzero()[0]]
    ['e']
    """

    def __init__(self, n: int = 3) -> None:
        if n < 1:
            raise ValueError(f"an n-gram has at least 1 token, got {n}")
        self.n = n

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, False for the tokens that would repeat an n-gram."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        prefix = self.n - 1
        num_starts = int(batch.lengths.max(initial=0)) - prefix
        if num_starts < 1:
            return mask
        # repeats[b, i]: the n - 1 tokens from i on are the last n - 1 tokens, and another token follows them.
        repeats = np.arange(num_starts) < (batch.lengths - prefix)[:, None]
        rows = np.arange(len(batch))
        for k in range(prefix):
            # In a text shorter than the prefix the position is negative; there no start is valid.
            last = batch.ids[rows, batch.lengths - prefix + k]
            repeats &= batch.ids[:, k : k + num_starts] == last[:, None]
        row, start = repeats.nonzero()
        mask[row, batch.ids[row, start + prefix]] = False
        return mask
