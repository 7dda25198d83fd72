"""Repetition and diversity of the word n-grams of a text."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_count
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import lower_words_and_marks

__all__ = ["DistinctN", "Repetition"]

NGram = tuple[str, ...]


@dataclass(frozen=True)
class Repetition(Scorer):
    """Share of the completion's word n-grams that are repeats of earlier ones; use a negative weight.

    Formula: ``(total - distinct) / total`` n-grams. Words are compared in lower case; a punctuation mark or emoji is a
    word. Range: [0, 1), or [0, 1] with ``after_prompt``. Completion of fewer than ``n`` words, or empty: 0.
    Deterministic. Not incremental.

    Source: seq-rep-n of Welleck et al., Neural Text Generation with Unlikelihood Training, ICLR 2020,
    https://arxiv.org/abs/1908.04319

    Raises:
        ValueError: If ``n`` is not a positive integer.

    >>> Repetition(n=2)(TextBatch.from_texts(["the cat and the cat", "the cat", ""]))
    array([0.25, 0.  , 0.  ])
    >>> Repetition(n=2, after_prompt=True)(TextBatch.from_texts(["the cat and the cat"], ["I saw the cat."]))
    array([0.5])
    """

    n: int = 3
    """Words per n-gram."""
    after_prompt: bool = False
    """Whether n-grams of the prompt are earlier ones too: a completion that copies it then scores 1."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.n, "n")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        if self.after_prompt:
            earlier = [set(_ngrams(lower_words_and_marks(prompt), self.n)) for prompt in batch.prompts]
        else:
            earlier = [set() for _ in range(len(batch))]
        pairs = zip(batch.derived(lower_words_and_marks), earlier, strict=True)
        return np.array([self._share(list(_ngrams(units, self.n)), seen) for units, seen in pairs], dtype=np.float64)

    def _share(self, found: list[NGram], earlier: set[NGram]) -> float:
        return (len(found) - len(set(found) - earlier)) / len(found) if found else 0.0


def _ngrams(units: list[str], n: int) -> Iterator[NGram]:
    return zip(*(units[i:] for i in range(n)), strict=False)


def _count_ngrams(batch: TextBatch, n: int) -> list[tuple[int, int]]:
    """Return, for each completion, the numbers of distinct and of all n-grams of words and marks in lower case."""
    pairs = []
    for units in batch.derived(lower_words_and_marks):
        total = max(len(units) - n + 1, 0)
        pairs.append((len(set(_ngrams(units, n))), total))
    return pairs


@dataclass(frozen=True)
class DistinctN(Scorer):
    """Share of the completion's word n-grams that are distinct.

    Formula: ``distinct / total`` n-grams, with the words of ``Repetition``. Range: [0, 1]. Completion of fewer
    than ``n`` words, or empty: 0, unlike 1 minus ``Repetition``. Deterministic. Not incremental. ``n`` words score
    1, and longer texts less.

    Source: Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models, NAACL 2016,
    https://arxiv.org/abs/1510.03055, which counts over all answers together.

    Raises:
        ValueError: If ``n`` is not a positive integer.

    >>> DistinctN(n=2)(TextBatch.from_texts(["the cat and the cat", "the cat", "cat", ""]))
    array([0.75, 1.  , 0.  , 0.  ])
    """

    n: int = 2
    """Words per n-gram."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.n, "n")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        counts = _count_ngrams(batch, self.n)
        return np.array([distinct / total if total else 0.0 for distinct, total in counts], dtype=np.float64)
