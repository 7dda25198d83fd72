"""How much a text repeats the others that are written."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer, Scores
from textgym.scorers.combine.arguments import as_count
from textgym.scorers.fluency.memory import TextMemory, ngrams, units

__all__ = ["SelfBLEU"]

Item = tuple[tuple[str, ...], int]
"""An n-gram, and which of its occurrences in the text it is, from 0."""


class _Text(NamedTuple):
    length: int
    """Words."""
    items: list[Item]


class SelfBLEU(Scorer):
    """BLEU of the completion with the other texts as references: a flaw, to be used with a negative weight.

    References are the other texts of the batch (``with_batch``) and the last ``memory_size`` observed ones. Formula:
    BLEU of words and marks in lower case, ``exp(min(0, 1 - r/c)) * (p_1 * ... * p_k) ** (1/k)``, with ``p_i`` the
    clipped precision of i-grams up to ``k = min(n, c)``, ``c`` the length of the text and ``r`` the nearest length of a
    reference; the j-th precision without a match counts as ``1 / (2**j * total)``, as sacrebleu smooths sentences.
    Range: [0, 1], 1 for a text that was written before. Reads the first 2,000 characters. An empty completion, and any
    text while there is no other, scores 0.

    By its definition the score depends on the other texts: on those of the batch, and on the memory, which episodes
    enter by :meth:`observe`; scoring remembers nothing. In an environment the batch holds the texts that end in the
    same step: with one environment there is never another, so only the memory counts; with 64 of them, equal texts
    that end together score 1 each. So it is not deterministic, unless both are off: ``with_batch=False,
    remembers=False`` compares with ``past`` alone. Copies and pickles take the memory with them. Not incremental.

    Source: Zhu et al., Texygen: A Benchmarking Platform for Text Generation Models, SIGIR 2018,
    https://arxiv.org/abs/1802.01886; Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018 (the smoothing)

    Args:
        past: Texts that are remembered from the beginning.
        n: Words of the longest n-gram.
        memory_size: Texts that are remembered, the latest ones; 0 for none.
        with_batch: Whether the other texts of the batch are references too.
        remembers: Whether observed episodes are added to the memory; else it stays what ``past`` made it.

    Raises:
        ValueError: If ``n`` is not a positive integer, or ``memory_size`` a negative one.
        TypeError: If ``past`` is one string.

    >>> scorer = SelfBLEU(n=2, memory_size=0)
    >>> scorer(TextBatch.from_texts(["the cat sat", "The cat sat", "the cat ran", "snow"])).round(2)
    array([1.  , 1.  , 0.58, 0.  ])
    """

    score_range = (0.0, 1.0)

    def __init__(
        self,
        past: Iterable[str] = (),
        *,
        n: int = 4,
        memory_size: int = 1_000,
        with_batch: bool = True,
        remembers: bool = True,
    ) -> None:
        as_count(n, "n", 1)
        as_count(memory_size, "memory_size", 0)
        if isinstance(past, str):
            raise TypeError(f"past is one string, {past!r:.60}; expected texts")
        self.n = n
        self.with_batch = with_batch
        self.remembers = remembers
        self._memory = TextMemory(memory_size)
        self._lengths = TextMemory(memory_size)
        for text in past:
            self._remember(self._text(units(text)))

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the references stay as they are."""
        return not (self.with_batch or self.remembers)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        texts = [self._text(words) for words in batch.derived(units)]
        others: Counter[Item] = Counter()
        lengths: Counter[int] = Counter()
        if self.with_batch:
            for text in texts:
                others.update(text.items)
            lengths.update(text.length for text in texts if text.length)
        return np.array([self._bleu(text, others, lengths) for text in texts], dtype=np.float64)

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Remember the finished texts that were scored, if ``remembers``."""
        if self.remembers:
            texts = batch.derived(units)
            for i in np.flatnonzero(batch.done & ~np.isnan(scores.total)).tolist():
                self._remember(self._text(texts[i]))

    def get_state(self) -> dict[str, Any]:
        """Return the words of the remembered texts, as JSON can hold them."""
        return {"texts": [[gram[0] for gram, _ in items if len(gram) == 1] for items in self._memory.texts]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Remember, instead of all else, what :meth:`get_state` returned.

        Raises:
            KeyError: If it is missing.
        """
        texts = [self._text(words) for words in state["texts"]]
        self._memory.clear()
        self._lengths.clear()
        for text in texts:
            self._remember(text)

    def _text(self, words: list[str]) -> _Text:
        items: list[Item] = []
        for n in range(1, min(self.n, len(words)) + 1):
            seen: Counter[tuple[str, ...]] = Counter()
            for gram in ngrams(words, n):
                items.append((gram, seen[gram]))
                seen[gram] += 1
        return _Text(len(words), items)

    def _remember(self, text: _Text) -> None:
        if text.length:
            self._memory.add(text.items)
            self._lengths.add((text.length,))

    def _bleu(self, text: _Text, batch_items: Counter[Item], batch_lengths: Counter[int]) -> float:
        """Return BLEU; an item matches, clipped, where another text has as many of its n-gram."""
        if not text.length:
            return 0.0
        least = 1 if self.with_batch else 0  # the text itself is in the batch
        matches = [0] * min(self.n, text.length)
        for item in text.items:
            if batch_items[item] > least or item in self._memory:
                matches[len(item[0]) - 1] += 1
        if not any(matches):
            return 0.0
        known = [length for length, count in batch_lengths.items() if count > (length == text.length)]
        nearest = min((*known, *self._lengths), key=lambda length: (abs(length - text.length), length))
        logs, halvings = 0.0, 0
        for n, matched in enumerate(matches, start=1):
            total = text.length - n + 1
            halvings += matched == 0
            logs += math.log(matched / total if matched else 0.5**halvings / total)
        return math.exp(min(0.0, 1 - nearest / text.length) + logs / len(matches))
