"""Measures of machine translation, computed by sacrebleu."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.arguments import as_count
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["BLEU", "TER", "ChrF"]

# sacrebleu's other tokenizers download a model or need another package.
_TOKENIZERS = ("13a", "char", "intl", "none", "zh")


@cache
def _metric(kind: str, **options: Any) -> Any:
    return getattr(import_extra("sacrebleu.metrics", kind.lower(), "sacrebleu"), kind)(**options)


@dataclass(frozen=True)
class BLEU(Scorer):
    """Sentence BLEU: n-gram precision against the references, with a brevity penalty.

    Formula: ``min(1, exp(1 - r / c)) * exp(mean over n of log precision(n))``, with c words in the completion and r in
    the reference nearest in length, n up to ``max_order`` or the length of a shorter text (sacrebleu's
    ``effective_order``); precisions of 0 are smoothed (``exp``). Range: [0, 1], a hundredth of sacrebleu's. Reads the
    first 2,000 characters of each text. Empty completion: 0; NaN without references. Deterministic. Not incremental. A
    corpus measure: for a single short sentence prefer ``ChrF``.

    Source: Papineni et al., ACL 2002, https://aclanthology.org/P02-1040; Post, A Call for Clarity in Reporting BLEU
    Scores, WMT 2018, https://github.com/mjpost/sacrebleu

    Raises:
        ImportError: If the package sacrebleu is missing.
        ValueError: If ``max_order`` is not a positive integer, or the tokenizer is unknown.

    >>> batch = TextBatch.from_texts(["the cat sat down", "the cat", ""], references=[["the cat sat down"]] * 3)
    >>> BLEU()(batch).round(2)
    array([1.  , 0.37, 0.  ])
    """

    max_order: int = 4
    """Words of the longest n-gram."""
    tokenizer: Literal["13a", "char", "intl", "none", "zh"] = "13a"
    """sacrebleu's tokenizer: ``"13a"`` splits off punctuation, ``"zh"`` is for Chinese, ``"char"`` for unspaced
    scripts."""
    ignore_case: bool = False
    """Whether texts are compared in lower case."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.max_order, "max_order")
        if self.tokenizer not in _TOKENIZERS:
            raise unknown_name("tokenizer", self.tokenizer, _TOKENIZERS)
        self._metric()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        score = self._metric().sentence_score
        return np.clip(_over_references(batch, lambda text, references: score(text, references).score / 100), 0.0, 1.0)

    def _metric(self) -> Any:
        return _metric(
            "BLEU",
            effective_order=True,
            max_ngram_order=self.max_order,
            tokenize=self.tokenizer,
            lowercase=self.ignore_case,
        )


@dataclass(frozen=True)
class ChrF(Scorer):
    """chrF: F-score of the character n-grams, and optionally word n-grams, shared with the best reference.

    Formula: ``(1 + beta**2) * P * R / (beta**2 * P + R)``, with P and R the n-gram precision and recall averaged over n
    up to ``char_order`` (and ``word_order``; 2 gives chrF++), ignoring white space. Range: [0, 1], a hundredth of
    sacrebleu's. Reads the first 2,000 characters of each text. Empty completion: 0; NaN without references.
    Deterministic. Not incremental. Works for all scripts; nearly ignores word order.

    Source: Popovic, chrF, WMT 2015, https://aclanthology.org/W15-3049; https://github.com/mjpost/sacrebleu

    Raises:
        ImportError: If the package sacrebleu is missing.
        ValueError: If ``char_order`` or ``beta`` is not positive, or ``word_order`` is negative.

    >>> batch = TextBatch.from_texts(["cats sat", "a cat sat", "dogs", ""], references=[["cats sat"]] * 4)
    >>> ChrF()(batch).round(2)
    array([1.  , 0.42, 0.04, 0.  ])
    """

    char_order: int = 6
    """Characters of the longest n-gram."""
    word_order: int = 0
    """Words of the longest n-gram."""
    beta: int = 2
    """Weight of recall relative to precision."""
    ignore_case: bool = False
    """Whether texts are compared in lower case."""

    name = "chrf"
    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.char_order < 1 or self.word_order < 0 or self.beta <= 0:
            raise ValueError(
                "expected char_order >= 1, word_order >= 0 and beta > 0, "
                f"got {self.char_order!r}, {self.word_order!r} and {self.beta!r}"
            )
        self._metric()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        score = self._metric().sentence_score
        return np.clip(_over_references(batch, lambda text, references: score(text, references).score / 100), 0.0, 1.0)

    def _metric(self) -> Any:
        return _metric(
            "CHRF",
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.ignore_case,
        )


@dataclass(frozen=True)
class TER(Scorer):
    """1 minus the translation edit rate to the nearest reference.

    Formula: ``max(0, 1 - edits / mean words of the references)``, with the edits to the reference that needs the
    fewest; an edit inserts, deletes or replaces a word, or moves a block of words. Range: [0, 1]. Reads the first 2,000
    characters and ``max_words`` words of each text. Empty completion: 0, or 1 if a reference is empty; 0 from twice the
    words of the longest reference on; NaN without references. Deterministic. Not incremental. The slowest measure of
    this module, especially for the right words in disorder: see ``max_words``.

    Source: Snover et al., AMTA 2006, https://aclanthology.org/2006.amta-papers.25; https://github.com/mjpost/sacrebleu

    Raises:
        ImportError: If the package sacrebleu is missing.
        ValueError: If ``max_words`` is not a positive integer.

    >>> references = [["The cat sat down"]] * 4
    >>> batch = TextBatch.from_texts(["the cat sat down", "down the cat sat", "a dog", ""], references=references)
    >>> TER()(batch)
    array([1.  , 0.75, 0.  , 0.  ])
    """

    ignore_case: bool = True
    """Whether texts are compared in lower case."""
    ignore_punctuation: bool = False
    """Whether punctuation is removed."""
    max_words: int = 64
    """Number of leading words that are read of each text."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.max_words, "max_words")
        self._metric()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return _over_references(batch, self._score)

    def _metric(self) -> Any:
        return _metric("TER", case_sensitive=not self.ignore_case, no_punct=self.ignore_punctuation)

    def _score(self, text: str, references: list[str]) -> float:
        words = text.split()
        reference_words = [reference.split() for reference in references]
        longest = max(map(len, reference_words))
        if longest > 0 and len(words) >= 2 * longest:  # the surplus alone is as long as a reference
            return 0.0
        cut = [" ".join(part[: self.max_words]) for part in (words, *reference_words)]
        return max(0.0, 1 - self._metric().sentence_score(cut[0], cut[1:]).score / 100)


def _over_references(batch: TextBatch, score: Callable[[str, list[str]], float]) -> FloatArray:
    """Return (B,) ``score(completion, references)`` of the cleaned texts, NaN for samples without references."""
    pairs = zip(batch.derived(cleaned), batch.references, strict=True)
    return np.array([score(text, [cleaned(r) for r in refs]) if refs else np.nan for text, refs in pairs], np.float64)
