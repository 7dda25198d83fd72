"""How many n-grams a text shares with references, or how few edits are between them: the measures of translation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["BLEU", "TER", "ChrF"]

# The others of sacrebleu download a model or need a further package.
_TOKENIZERS = ("13a", "char", "intl", "none", "zh")


@cache
def _metric(kind: str, **options: Any) -> Any:
    return getattr(import_extra("sacrebleu.metrics", kind.lower(), "sacrebleu"), kind)(**options)


@dataclass(frozen=True)
class BLEU(Scorer):
    """Sentence BLEU: the n-grams of the completion that a reference has too, with a penalty for being short.

    Formula: ``min(1, exp(1 - r / c)) * exp(mean over n of log precision(n))``, c words in the completion and r in the
    reference nearest in length; n up to ``max_order`` or, of a shorter text, its length (sacrebleu's
    ``effective_order``); where no n-gram matches, the precision is smoothed (``exp``). Range: [0, 1]: a hundredth of
    what sacrebleu prints. Reads the first 2,000 characters of each text. An empty completion scores 0; a sample without
    references NaN. Deterministic. Not incremental.

    Made for a corpus: of a single short sentence :class:`ChrF` tells more. Hacked by common pieces of references.

    Source: Papineni et al., ACL 2002, https://aclanthology.org/P02-1040; Post, A Call for Clarity in Reporting BLEU
    Scores, WMT 2018, https://github.com/mjpost/sacrebleu

    Raises:
        ImportError: At construction, if the package sacrebleu is missing.
        ValueError: If ``max_order`` is not positive, or the tokenizer is unknown.

    >>> batch = TextBatch.from_texts(["the cat sat down", "the cat", ""], references=[["the cat sat down"]] * 3)
    >>> BLEU()(batch).round(2)
    array([1.  , 0.37, 0.  ])
    """

    max_order: int = 4
    """Words of the longest n-gram."""
    tokenizer: Literal["13a", "char", "intl", "none", "zh"] = "13a"
    """sacrebleu's: ``"13a"`` splits off punctuation, ``"zh"`` is for Chinese, ``"char"`` for all unspaced scripts."""
    ignore_case: bool = False
    """Whether texts are compared in lower case."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.max_order, int) or self.max_order < 1:
            raise ValueError(f"max_order must be a positive integer, got {self.max_order!r}")
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
    """chrF: the n-grams of characters, and of words where asked, that the completion shares with its best reference.

    Formula: ``(1 + beta**2) * P * R / (beta**2 * P + R)``, P and R the precision and recall of n-grams, averaged over n
    up to ``char_order`` (and ``word_order``, 2 of which make chrF++); white space does not count. Range: [0, 1]: a
    hundredth of what sacrebleu prints. Reads the first 2,000 characters of each text. An empty completion scores 0; a
    sample without references NaN. Deterministic. Not incremental.

    Needs no words, so it works for all scripts and gives credit for a right stem. The order of words matters little.

    Source: Popovic, chrF, WMT 2015, https://aclanthology.org/W15-3049; https://github.com/mjpost/sacrebleu

    Raises:
        ImportError: At construction, if the package sacrebleu is missing.
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
    """How many times recall counts as much as precision."""
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
    """1 less the translation edit rate: how little of the completion has to be changed to get a reference.

    Formula: ``max(0, 1 - edits / words of the reference)``; an edit inserts, deletes or replaces a word, or moves some
    at once; the reference with the fewest edits counts, by the mean length of all. Range: [0, 1]. Reads the first
    2,000 characters and ``max_words`` words of each text. An empty completion scores 0 (1 where a reference is empty
    too); so does one of at least twice the words of all references; a sample without references NaN. Deterministic. Not
    incremental.

    The slowest of the measures, and slower still where the words of the reference stand in disorder: see ``max_words``.

    Source: Snover et al., AMTA 2006, https://aclanthology.org/2006.amta-papers.25; https://github.com/mjpost/sacrebleu

    Raises:
        ImportError: At construction, if the package sacrebleu is missing.
        ValueError: If ``max_words`` is not a positive integer.

    >>> references = [["The cat sat down"]] * 4
    >>> batch = TextBatch.from_texts(["the cat sat down", "down the cat sat", "a dog", ""], references=references)
    >>> TER()(batch)
    array([1.  , 0.75, 0.  , 0.  ])
    """

    ignore_case: bool = True
    """Whether texts are compared in lower case."""
    ignore_punctuation: bool = False
    """Whether punctuation is left out."""
    max_words: int = 64
    """Words that are read of each text."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.max_words, int) or self.max_words < 1:
            raise ValueError(f"max_words must be a positive integer, got {self.max_words!r}")
        self._metric()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return _over_references(batch, self._score)

    def _metric(self) -> Any:
        return _metric("TER", case_sensitive=not self.ignore_case, no_punct=self.ignore_punctuation)

    def _score(self, text: str, references: list[str]) -> float:
        words = text.split()
        wanted = [reference.split() for reference in references]
        longest = max(map(len, wanted))
        if longest > 0 and len(words) >= 2 * longest:  # what is too much is at least as long as a reference
            return 0.0
        cut = [" ".join(part[: self.max_words]) for part in (words, *wanted)]
        return max(0.0, 1 - self._metric().sentence_score(cut[0], cut[1:]).score / 100)


def _over_references(batch: TextBatch, score: Callable[[str, list[str]], float]) -> FloatArray:
    """Return (B,) ``score(completion, references)`` of cleaned texts, NaN where a sample has no references."""
    pairs = zip(batch.derived(cleaned), batch.references, strict=True)
    return np.array([score(text, [cleaned(r) for r in refs]) if refs else np.nan for text, refs in pairs], np.float64)
