"""Whether a text is unlike what was written before."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer, Scores
from textgym.scorers.combine.arguments import as_count
from textgym.scorers.fluency.memory import TextMemory, ngrams, units

__all__ = ["Novelty"]


class Novelty(Scorer):
    """Share of the completion's n-grams that no remembered text has: the distance from what was written before.

    Formula: ``new / total`` over distinct n-grams of words and marks, in lower case; a text of fewer than ``n`` words
    counts as one n-gram. Reads the first 2,000 characters. Range: [0, 1]. An empty completion scores 0, any other text
    1 before anything is remembered.

    Episodes are remembered by :meth:`observe`, the last ``memory_size`` of them, so the score of a text falls as it is
    written again: not deterministic, unless ``remembers`` is false. The texts of one call are all compared with what
    was remembered before it and do not see each other: 64 equal texts that end in the same step of 64 environments all
    score 1, one after the other in one environment the second scores 0. Scoring remembers nothing. Copies and pickles
    take the memory with them. Not incremental. Random words score 1: join it with a scorer that they fail.

    Source: the novelty of Lehman and Stanley, Abandoning Objectives: Evolution through the Search for Novelty Alone,
    Evolutionary Computation 19, 2011, with n-gram overlap as the distance

    Args:
        past: Texts that are remembered from the beginning.
        n: Words of an n-gram.
        memory_size: Texts that are remembered, the latest ones.
        remembers: Whether observed episodes are added to the memory; else it stays what ``past`` made it.

    Raises:
        ValueError: If ``n`` or ``memory_size`` is not a positive integer.
        TypeError: If ``past`` is one string.

    >>> scorer = Novelty(["The cat sat down."], n=2)
    >>> batch = TextBatch.from_texts(["the cat ran", "Snow fell.", "Snow fell.", ""])
    >>> scorer(batch)
    array([0.5, 1. , 1. , 0. ])
    >>> scorer.observe(batch, scorer.score_components(batch))
    >>> scorer(batch)
    array([0., 0., 0., 0.])
    """

    score_range = (0.0, 1.0)

    def __init__(
        self, past: Iterable[str] = (), *, n: int = 3, memory_size: int = 1_000, remembers: bool = True
    ) -> None:
        as_count(n, "n", 1)
        as_count(memory_size, "memory_size", 1)
        if isinstance(past, str):
            raise TypeError(f"past is one string, {past!r:.60}; expected texts")
        self.n = n
        self.remembers = remembers
        self._memory = TextMemory(memory_size)
        for text in past:
            self._remember(self._grams(units(text)))

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the memory stays as it is."""
        return not self.remembers

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        texts = (self._grams(words) for words in batch.derived(units))
        scores = [sum(gram not in self._memory for gram in grams) / max(len(grams), 1) for grams in texts]
        return np.array(scores, dtype=np.float64)

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Remember the finished texts that were scored, if ``remembers``."""
        if self.remembers:
            texts = batch.derived(units)
            for i in np.flatnonzero(batch.done & ~np.isnan(scores.total)).tolist():
                self._remember(self._grams(texts[i]))

    def get_state(self) -> dict[str, Any]:
        """Return the n-grams of the remembered texts, as JSON can hold them."""
        return {"texts": [sorted(map(list, grams)) for grams in self._memory.texts]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Remember, instead of all else, what :meth:`get_state` returned.

        Raises:
            KeyError: If it is missing.
        """
        texts = [set(map(tuple, grams)) for grams in state["texts"]]
        self._memory.clear()
        for grams in texts:
            self._remember(grams)

    def _grams(self, words: list[str]) -> set[tuple[str, ...]]:
        return set(ngrams(words, min(self.n, len(words)))) if words else set()

    def _remember(self, grams: set[tuple[str, ...]]) -> None:
        if grams:
            self._memory.add(grams)
