"""Syllables of English words, counted by spelling rules, and the scorers based on them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import lines, sentences, words

__all__ = ["Readability", "Syllables", "count_syllables"]


@dataclass(frozen=True)
class Syllables(Scorer):
    r"""Agreement of the syllables per line with a pattern, a haiku's by default.

    Formula: the mean, over the lines required or written, of ``n / low`` below a line's band, 1 in it and
    ``max(0, 2 - n / high)`` above it, with n the syllables of the line by ``count_syllables``; 0 for a missing or
    surplus line. Blank lines are skipped. Range: [0, 1]. Empty completion: 0. Deterministic. Not incremental. Reads
    English.

    Raises:
        ValueError: If there are no lines, or not ``1 <= low <= high`` for each.

    >>> haiku = "An old silent pond\nA frog jumps into the pond\nSplash! Silence again"
    >>> Syllables()(TextBatch.from_texts([haiku, "An old silent pond", "Splash! Splash!\n" * 3, ""]))
    array([1.        , 0.33333333, 0.36190476, 0.        ])
    >>> Syllables([(8, 10)])(TextBatch.from_texts(["I have eaten the plums that were in the box."]))
    array([0.9])
    """

    lines: Sequence[int | tuple[int, int]] = (5, 7, 5)
    """Syllables of each line: a number, or a pair ``(low, high)``."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        bands = tuple((line, line) if isinstance(line, int) else tuple(line) for line in self.lines)
        if not bands or any(len(band) != 2 or not 1 <= band[0] <= band[1] for band in bands):
            raise ValueError(f"lines is {self.lines!r}; expected numbers or pairs (low, high) with 1 <= low <= high")
        object.__setattr__(self, "lines", bands)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array(list(map(self._score, batch.derived(syllables_of_lines))), dtype=np.float64)

    def _score(self, counts: list[int]) -> float:
        near = 0.0
        for count, (low, high) in zip(counts, self.lines, strict=False):  # type: ignore[misc]  # all pairs by now
            near += min(count / low, 1.0) if count <= high else max(0.0, 2 - count / high)
        return near / max(len(counts), len(self.lines))


def syllables_of_lines(text: str) -> list[int]:
    """Return the number of syllables of each line that is not blank."""
    return [sum(map(count_syllables, words(line))) for line in lines(text)]


def count_syllables(word: str) -> int:
    """Return the number of syllables of an English word, estimated from its spelling.

    Counts runs of vowels, minus silent ones, plus those spoken as two; at least 1. Most frequent words are right; words
    with "ire" count one too many, and foreign words are often wrong. Numbers and words of other scripts count as one.
    Only the first 40 letters are read.

    >>> [count_syllables(word) for word in ("cat", "table", "created", "something", "beautiful", "rhythm")]
    [1, 2, 3, 2, 3, 2]
    """
    return _count(word[:40])


@lru_cache(maxsize=1 << 14)
def _count(word: str) -> int:
    word = word.lower().replace("\u2019", "'")
    parts = word.split("-") if "-" in word else [word]
    return sum(max(1, len(_vowels(part)) - len(_silent(part)) + len(_split(part))) for part in parts)


_vowels = re.compile("[aeiouyàáâäæèéêëìíîïòóôöøœùúûü]+").findall
_silent = re.compile(
    r"""
    (?<=[^aeiouy'])(?:
        e(?=$|'s$)                                                      # make, Kate's
        | e(?=s$)(?<![csxzg]e)(?<![cs]he)                               # makes, not places or wishes
        | e(?=d$)(?<![td]e)(?<![^aeiouyr]re)                            # loved, not wanted or hundred
        | e(?=(?:ly|less|ful|fully|ness|ments?|ty|where|thing|body|time|one|day)$)
    )
    | ^(?:s?om|hom|lif|bas|saf|car|hop|tim|sid|spac|polic)e(?=[^aeiouyr]) # something, homework
    | ^every | eve(?=nings?$) | (?<=ic)ally$ | ^busi(?=n)                # one vowel less than is written
    | (?:q|[nu]g|eag|ag|og|ig)ue(?=s?$)                                   # unique, tongue
    """,
    re.VERBOSE,
).findall
_split = re.compile(
    r"""
    (?<![cstgx])(?<!ll)i(?:a(?!ge)|o(?!u?n)) | (?<=[vr])io(?=u)          # dial, radio, not special or nation
    | (?<![nl])(?<![cstgx])ious | (?<![cstgxnl])(?<!sh)ion | ^lion | iu
    | i(?=et|e[nr]c) | (?<![ctr])i(?=ent) | ^sci(?=e) | cli(?=ent)       # quiet, science, client, not patient
    | [ct]i(?=at(?:e|ed|es|ing)$)                                        # appreciate
    | (?<=[dr])ea(?=s?$) | crea(?=t[eio]) | rea(?=[cl][it]) | thea(?=t)  # idea, create, reality, theater
    | eo(?!u|p) | (?<![gq])u(?:a(?!r[dt]|d)|o) | uing | [rl]ui(?=[nd]) | suic | poe(?=[tm])
    | y(?=ing|one) | [aeo]y(?=[ao]|er|el) | (?<=[^u])(?=[aeio]ing$)      # crying, player, seeing
    | [^aeiouylr]le(?=[sd]?$) | (?<=[sth])m$ | n't$                      # table, rhythm, didn't
    | (?<=[a-z][^aeiou])i(?:er|est)s?$                                   # happier
    """,
    re.VERBOSE,
).findall


_has_latin_letter = re.compile("[A-Za-z]").search


@dataclass(frozen=True)
class Readability(Scorer):
    """Flesch reading ease of the completion, or its agreement with a range of school grades.

    Formula: with w words per sentence and s syllables per word, reading ease is ``206.835 - 1.015 * w - 84.6 * s``,
    clipped to [0, 100] and divided by 100. With ``grades``, the Flesch-Kincaid grade ``0.39 * w + 11.8 * s - 15.59`` is
    used: 1 in the band, falling linearly to 0 ten grades outside. Range: [0, 1]. Empty completion, or one without a
    word in Latin letters: 0. Deterministic. Not incremental. Reads English. ``"I am. I am."`` is very easy to read.

    Sources: Flesch, A new readability yardstick, Journal of Applied Psychology 32, 1948; Kincaid et al., Derivation of
    new readability formulas, Naval Technical Training Command, 1975.

    Raises:
        ValueError: If ``grades`` is not a pair with ``low <= high``.

    >>> texts = TextBatch.from_texts(["The cat sat on the mat.", "Institutional considerations predominate.", ""])
    >>> Readability()(texts), Readability(grades=(0, 6))(texts).round(2)
    (array([1., 0., 0.]), array([0.86, 0.  , 0.  ]))
    """

    grades: tuple[float, float] | None = None
    """Lowest and highest school grade that scores 1; None scores reading ease."""

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
    # Marks alone do not count as a sentence: a row of them would make every text easy to read.
    return sum(_has_latin_letter(sentence) is not None for sentence in sentences(text))


@lru_cache(maxsize=1 << 14)
def _syllables_of_latin(word: str) -> int:
    return count_syllables(word) if _has_latin_letter(word) else 0
