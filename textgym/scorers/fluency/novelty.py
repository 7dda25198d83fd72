"""Overlap of a text with earlier ones: new n-grams and Self-BLEU."""

import math
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_count
from textgym.scorers.base import FloatArray, Scorer, Scores
from textgym.scorers.text import cleaned, words_and_marks

__all__ = ["Novelty", "SelfBLEU"]

NGram = tuple[str, ...]


class _MemoryScorer(Scorer):
    """Base class of scorers that compare texts with the observed ones."""

    score_range = (0.0, 1.0)

    def __init__(self, past: Iterable[str], n: int, memory_size: int, remembers: bool) -> None:
        if isinstance(past, str):
            raise TypeError(f"past is one string, {past!r:.60}; expected a list of texts")
        self.n = as_count(n, "n")
        self.remembers = remembers
        self._memory = _TextMemory(memory_size)
        for text in past:
            self._remember(_units(text))

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Add finished texts that were scored to the memory, if ``remembers``."""
        if self.remembers:
            texts = batch.derived(_units)
            for i in np.flatnonzero(batch.done & ~np.isnan(scores.total)).tolist():
                self._remember(texts[i])

    @abstractmethod
    def _remember(self, words: list[str]) -> None:
        """Add a text to the memory, unless it is empty."""


class Novelty(_MemoryScorer):
    """Fraction of the completion's n-grams that occur in no remembered text.

    Formula: ``new / total`` over distinct n-grams of words and punctuation marks in lower case; a text of fewer than
    ``n`` words counts as one n-gram. Reads the first 2,000 characters. Range: [0, 1]. An empty completion scores 0, any
    other text 1 while the memory is empty. Not incremental; not deterministic, unless ``remembers`` is false.

    The memory holds the last ``memory_size`` observed episodes. Texts of one call are not compared with each other: 64
    equal texts that end in the same step of 64 environments all score 1; in one environment the second scores 0. Random
    words score 1: combine it with a scorer on which they score low.

    Source: the novelty of Lehman and Stanley, Abandoning Objectives: Evolution through the Search for Novelty Alone,
    Evolutionary Computation 19, 2011, with n-gram overlap as the distance

    Args:
        past: Texts that are in the memory from the start.
        n: Words per n-gram.
        memory_size: Number of latest texts in the memory.
        remembers: Whether observed episodes are added to the memory; otherwise it holds only ``past``.

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

    def __init__(
        self, past: Iterable[str] = (), *, n: int = 3, memory_size: int = 1_000, remembers: bool = True
    ) -> None:
        super().__init__(past, n, as_count(memory_size, "memory_size"), remembers)

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the memory is fixed."""
        return not self.remembers

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        texts = map(self._grams, batch.derived(_units))
        scores = [sum(gram not in self._memory for gram in grams) / max(len(grams), 1) for grams in texts]
        return np.array(scores, dtype=np.float64)

    def get_state(self) -> dict[str, Any]:
        """Return the n-grams of the remembered texts as JSON values."""
        return {"texts": [sorted(map(list, grams)) for grams in self._memory.texts]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace the memory.

        Raises:
            KeyError: If the state lacks ``"texts"``.
        """
        texts = [set(map(tuple, grams)) for grams in state["texts"]]
        self._memory.clear()
        for grams in filter(None, texts):
            self._memory.add(grams)

    def _grams(self, words: list[str]) -> set[NGram]:
        return set(_ngrams(words, min(self.n, len(words)))) if words else set()

    def _remember(self, words: list[str]) -> None:
        if words:
            self._memory.add(self._grams(words))


Item = tuple[NGram, int]
"""An n-gram and the index of its occurrence in the text, from 0."""


class _Text(NamedTuple):
    length: int
    """Words."""
    items: list[Item]


class SelfBLEU(_MemoryScorer):
    """BLEU of the completion with other texts as references: a measure of repetition, for a negative weight.

    References are the other texts of the batch (``with_batch``) and the last ``memory_size`` observed ones. Formula:
    BLEU of words and punctuation marks in lower case, ``exp(min(0, 1 - r/c)) * (p_1 * ... * p_k) ** (1/k)``, with
    ``p_i`` the clipped precision of i-grams up to ``k = min(n, c)``, ``c`` the length of the text and ``r`` the nearest
    length of a reference; the j-th precision without a match counts as ``1 / (2**j * total)``, as sacrebleu smooths
    sentences. Range: [0, 1], 1 for a text that is a reference itself. Reads the first 2,000 characters. An empty
    completion, and any text without references, scores 0.

    In an environment the batch holds the texts that end in the same step; with one environment only the memory counts.
    Not incremental; not deterministic, unless ``with_batch=False, remembers=False``: that compares with ``past`` alone.

    Source: Zhu et al., Texygen: A Benchmarking Platform for Text Generation Models, SIGIR 2018,
    https://arxiv.org/abs/1802.01886; Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018 (the smoothing)

    Args:
        past: Texts that are in the memory from the start.
        n: Words of the longest n-gram.
        memory_size: Number of latest texts in the memory; 0 for none.
        with_batch: Whether the other texts of the batch are references too.
        remembers: Whether observed episodes are added to the memory; otherwise it holds only ``past``.

    Raises:
        ValueError: If ``n`` is not a positive integer, or ``memory_size`` is negative.
        TypeError: If ``past`` is one string.

    >>> scorer = SelfBLEU(n=2, memory_size=0)
    >>> scorer(TextBatch.from_texts(["the cat sat", "The cat sat", "the cat ran", "snow"])).round(2)
    array([1.  , 1.  , 0.58, 0.  ])
    """

    def __init__(
        self,
        past: Iterable[str] = (),
        *,
        n: int = 4,
        memory_size: int = 1_000,
        with_batch: bool = True,
        remembers: bool = True,
    ) -> None:
        self.with_batch = with_batch
        self._lengths = _TextMemory(as_count(memory_size, "memory_size", 0))
        super().__init__(past, n, memory_size, remembers)

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the references are fixed."""
        return not (self.with_batch or self.remembers)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        texts = [self._text(words) for words in batch.derived(_units)]
        others: Counter[Item] = Counter()
        lengths: Counter[int] = Counter()
        if self.with_batch:
            for text in texts:
                others.update(text.items)
            lengths.update(text.length for text in texts if text.length)
        return np.array([self._bleu(text, others, lengths) for text in texts], dtype=np.float64)

    def get_state(self) -> dict[str, Any]:
        """Return the words of the remembered texts as JSON values."""
        return {"texts": [[gram[0] for gram, _ in items if len(gram) == 1] for items in self._memory.texts]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace the memory.

        Raises:
            KeyError: If the state lacks ``"texts"``.
        """
        texts = [list(words) for words in state["texts"]]
        self._memory.clear()
        self._lengths.clear()
        for words in texts:
            self._remember(words)

    def _text(self, words: list[str]) -> _Text:
        items: list[Item] = []
        for n in range(1, min(self.n, len(words)) + 1):
            seen: Counter[NGram] = Counter()
            for gram in _ngrams(words, n):
                items.append((gram, seen[gram]))
                seen[gram] += 1
        return _Text(len(words), items)

    def _remember(self, words: list[str]) -> None:
        if words:
            self._memory.add(self._text(words).items)
            self._lengths.add((len(words),))

    def _bleu(self, text: _Text, batch_items: Counter[Item], batch_lengths: Counter[int]) -> float:
        """Return BLEU; an item matches, clipped, if another text contains its n-gram as many times."""
        if not text.length:
            return 0.0
        own = 1 if self.with_batch else 0  # the text itself is in the batch
        matches = [0] * min(self.n, text.length)
        for item in text.items:
            if batch_items[item] > own or item in self._memory:
                matches[len(item[0]) - 1] += 1
        if not any(matches):
            return 0.0
        known = [length for length, count in batch_lengths.items() if count > (length == text.length)]
        nearest = min((*known, *self._lengths.items), key=lambda length: (abs(length - text.length), length))
        logs, halvings = 0.0, 0
        for n, matched in enumerate(matches, start=1):
            total = text.length - n + 1
            halvings += matched == 0
            logs += math.log(matched / total if matched else 0.5**halvings / total)
        return math.exp(min(0.0, 1 - nearest / text.length) + logs / len(matches))


class _TextMemory:
    """The items of the last ``size`` texts, and how many of these texts contain each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.texts: deque[Collection[Any]] = deque()
        """Items of each text, the oldest first."""
        self.items: Counter[Any] = Counter()

    def __contains__(self, item: Hashable) -> bool:
        return item in self.items

    def clear(self) -> None:
        self.texts.clear()
        self.items.clear()

    def add(self, items: Collection[Hashable]) -> None:
        """Add a text with distinct items, and drop the oldest beyond ``size``."""
        self.texts.append(items)
        self.items.update(items)
        while len(self.texts) > self.size:
            for item in self.texts.popleft():
                if self.items[item] == 1:
                    del self.items[item]
                else:
                    self.items[item] -= 1


def _units(text: str) -> list[str]:
    """Return the words and punctuation marks of the first 2,000 characters, in lower case."""
    return words_and_marks(cleaned(text).lower())


def _ngrams(words: Sequence[str], n: int) -> list[NGram]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))
