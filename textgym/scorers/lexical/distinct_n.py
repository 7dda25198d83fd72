"""How varied the words of a text are."""

from dataclasses import dataclass

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.lexical.repetition import count_ngrams

__all__ = ["DistinctN"]


@dataclass(frozen=True)
class DistinctN(Scorer):
    """Share of the completion's word n-grams that are distinct.

    Formula: ``distinct / total`` n-grams. Words are compared in lower case; a punctuation mark or an emoji counts as a
    word. Range: [0, 1]. A completion of fewer than ``n`` words, an empty one among them, scores 0, which is what sets
    this apart from 1 minus :class:`Repetition`. Deterministic. Not incremental: it has to remember all n-grams. Easily
    hacked: ``n`` words score 1, and so does a list of words; longer texts score lower.

    Source: Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models, NAACL 2016,
    https://arxiv.org/abs/1510.03055. There the n-grams of all answers are counted together.

    Raises:
        ValueError: If ``n`` is not a positive integer.

    >>> DistinctN(n=2)(TextBatch.from_texts(["the cat and the cat", "the cat", "cat", ""]))
    array([0.75, 1.  , 0.  , 0.  ])
    """

    n: int = 2
    """Words of an n-gram."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"n must be a positive integer, got {self.n!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        counts = count_ngrams(batch, self.n)
        return np.array([distinct / total if total else 0.0 for distinct, total in counts], dtype=np.float64)
