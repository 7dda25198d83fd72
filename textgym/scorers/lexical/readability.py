"""How easy a text is to read."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.lexical.syllables import count_syllables
from textgym.scorers.text import sentences, words

__all__ = ["Readability"]

_has_latin_letter = re.compile("[A-Za-z]").search


@dataclass(frozen=True)
class Readability(Scorer):
    """Flesch's reading ease of the completion, or whether it is written for the wanted school grades.

    Formula: with w words a sentence and s syllables a word, reading ease is ``206.835 - 1.015 * w - 84.6 * s``, clipped
    to [0, 100] and divided by 100. Where ``grades`` is given, Flesch and Kincaid's grade
    ``0.39 * w + 11.8 * s - 15.59`` decides: 1 in the band, falling linearly to 0 ten grades outside. Range: [0, 1].
    An empty completion, or one without a word in Latin letters, scores 0. Deterministic. Not incremental: a word goes
    on with the next token. Easily hacked: ``"I am. I am."`` reads very easily; nothing asks whether it makes sense.

    Reads English. Syllables are counted by spelling, with few mistakes, sentences by their marks.

    Sources: Flesch, A new readability yardstick, Journal of Applied Psychology 32, 1948; Kincaid et al., Derivation of
    new readability formulas, Naval Technical Training Command, 1975.

    Raises:
        ValueError: If ``grades`` is not a pair with ``low <= high``.

    >>> texts = TextBatch.from_texts(["The cat sat on the mat.", "Institutional considerations predominate.", ""])
    >>> Readability()(texts), Readability(grades=(0, 6))(texts).round(2)
    (array([1., 0., 0.]), array([0.86, 0.  , 0.  ]))
    """

    grades: tuple[float, float] | None = None
    """The wanted school grades, from and to; None for reading ease, where easier is always better."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.grades is not None and (len(self.grades) != 2 or not self.grades[0] <= self.grades[1]):
            raise ValueError(f"grades must be a pair (low, high) with low <= high, got {self.grades!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        syllables = [list(map(_syllables_of_latin, found)) for found in batch.derived(words)]
        num_words = np.array([len(counts) - counts.count(0) for counts in syllables], dtype=np.float64)
        num_syllables = np.array(list(map(sum, syllables)), dtype=np.float64)
        num_sentences = np.array(batch.derived(_num_sentences), dtype=np.float64)
        words_each = num_words / np.maximum(num_sentences, 1)
        syllables_each = num_syllables / np.maximum(num_words, 1)
        if self.grades is None:
            score = (206.835 - 1.015 * words_each - 84.6 * syllables_each) / 100
        else:
            low, high = self.grades
            grade = 0.39 * words_each + 11.8 * syllables_each - 15.59
            score = 1 - np.maximum(np.maximum(low - grade, grade - high), 0) / 10
        return np.where(num_words > 0, np.clip(score, 0.0, 1.0), 0.0)


def _num_sentences(text: str) -> int:
    # Marks alone are no sentence: a row of them would make every text easy.
    return sum(_has_latin_letter(sentence) is not None for sentence in sentences(text))


@lru_cache(maxsize=1 << 14)
def _syllables_of_latin(word: str) -> int:
    return count_syllables(word) if _has_latin_letter(word) else 0
