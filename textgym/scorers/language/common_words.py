"""Whether a text uses common words."""

from dataclasses import dataclass

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.language.dictionary import common_words, plain
from textgym.scorers.text import words

__all__ = ["CommonWords"]


@dataclass(frozen=True)
class CommonWords(Scorer):
    """Share of the completion's words that are among the most common ones of the language: plain vocabulary.

    Formula: ``common / all`` words, in lower case, by their frequency in film subtitles. Numbers and most names are not
    common. Range: [0, 1]. A completion without words, an empty one among them, scores 0. Deterministic. Not
    incremental: the next token can go on with the last word. Easily hacked: "the the the" scores 1.

    Source: https://github.com/barrust/pyspellchecker, from OpenSubtitles, Lison and Tiedemann, LREC 2016,
    https://aclanthology.org/L16-1147

    Raises:
        ImportError: At construction, if the package pyspellchecker is missing.
        ValueError: If it has no dictionary of the language, or ``count`` is not a positive integer.

    >>> CommonWords()(TextBatch.from_texts(["The dog was happy.", "The canine was jubilant.", ""]))
    array([1. , 0.5, 0. ])
    """

    count: int = 3_000
    """How many words are common."""
    language: str = "en"
    """ar, de, en, es, eu, fa, fr, it, lv, nl, pt or ru."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"count must be a positive integer, got {self.count!r}")
        common_words(self.language, self.count, "common_words")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        common = common_words(self.language, self.count, "common_words")
        shares = [sum(plain(word) in common for word in text) / max(1, len(text)) for text in batch.derived(words)]
        return np.array(shares, dtype=np.float64)
