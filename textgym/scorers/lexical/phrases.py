"""Occurrence of given words and phrases in a text."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import fold, given_phrases, phrases_of_column, whole_phrase

__all__ = ["BannedWords", "Keywords"]


class Keywords(Scorer):
    """Share of the wanted words that occur in the completion, as whole words in any case.

    Formula: ``found / wanted``, over distinct words; a word may be a phrase, between whose parts any white space may
    stand. Range: [0, 1]. An empty completion scores 0. Deterministic. Incremental: a word at the end of the text is
    found as long as no letter follows it. Easily hacked: the bare list of the words scores 1.

    Args:
        words: The wanted words. Without them, each sample brings its own in the metadata column ``column``: a list, or
            a string with commas between the words. A sample that has none scores NaN: the scorer does not apply.
        column: Name of that column.

    Raises:
        TypeError: If ``words`` is one string, or holds something else than strings.
        ValueError: If ``words`` is empty, or one of them is blank.

    >>> Keywords(["cat", "red hat"])(TextBatch.from_texts(["A Red  Hat.", "the cat's red hat", "concat"]))
    array([0.5, 1. , 0. ])
    >>> Keywords()(TextBatch.from_texts(["a cat", "a cat"], metadata=[{"keywords": "cat, dog"}, {}]))
    array([0.5, nan])
    """

    score_range = (0.0, 1.0)
    incremental = True

    def __init__(self, words: Iterable[str] | None = None, column: str = "keywords") -> None:
        self.column = column
        self.words = given_phrases(words, "keyword")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array(list(map(_share, batch.completions, self._wanted(batch))), dtype=np.float64)

    def begin(self, batch: TextBatch) -> list["_Search"]:
        """Return B states: the words that are still missing, and the end of the text, where one may be growing."""
        starts = [
            _Search(wanted, len(wanted), 0, " ", max(map(len, wanted), default=0)) for wanted in self._wanted(batch)
        ]
        return list(map(_follow_words, starts, batch.completions))

    def advance(self, states: Sequence["_Search"], batch: TextBatch) -> list["_Search"]:
        """Return B states after one more token."""
        return [
            _follow_words(state, piece) if piece else state
            for state, piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence["_Search"], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts that the states are of."""
        return np.array([(s[1] - len(s[0]) + s[2]) / s[1] if s[1] else np.nan for s in states], dtype=np.float64)

    def _wanted(self, batch: TextBatch) -> list[tuple[str, ...]]:
        if self.words is not None:
            return [self.words] * len(batch)
        return [phrases_of_column(row.get(self.column), "keyword") for row in batch.metadata]


class _Search(NamedTuple):
    missing: tuple[str, ...]
    """Words that have not been found for good."""
    num_wanted: int
    num_at_end: int
    """How many of the missing stand at the end of the text, where a letter may follow and undo them."""
    tail: str
    """The last characters, folded: all that a match to come may begin with, and one before."""
    width: int
    """Characters of the longest wanted word."""


def _follow_words(state: _Search, piece: str) -> _Search:
    missing, num_wanted, num_at_end, tail, width = state
    if not missing:
        return state
    text = fold(tail, piece)
    num_at_end = 0
    for word in missing:
        if word in text:
            match = _word_finder(word)(text, 1)  # the first character only says whether a word may begin behind it
            if match is None:
                continue
            if match.end() < len(text):
                missing = tuple(other for other in missing if other != word)
            else:
                num_at_end += 1
    return _Search(missing, num_wanted, num_at_end, text[-width - 1 :], width)


def _share(text: str, wanted: tuple[str, ...]) -> float:
    if not wanted:
        return np.nan
    text = text.casefold()
    near = [word for word in wanted if word.partition(" ")[0] in text]  # ten times as fast as to search for all
    return sum(_word_finder(word)(text) is not None for word in near) / len(wanted)


@lru_cache(maxsize=4096)
def _word_finder(word: str) -> Callable[..., re.Match[str] | None]:
    return re.compile(whole_phrase(word)).search


class BannedWords(Scorer):
    r"""1 where the completion holds no banned word, 1/2 with one, 1/3 with two, and so on.

    Formula: ``1 / (1 + hits)``, where hits counts the places at which a banned word begins, as a whole word in any
    case; a word may be a phrase, between whose parts any white space may stand. The length of the text plays no part,
    so that no hit can be diluted. Range: (0, 1]. An empty completion scores 1. Deterministic. Incremental: a word at
    the end of the text counts as long as no letter follows it. Easily hacked: any other spelling is clean.

    Args:
        words: The banned words. Without them, each sample brings its own in the metadata column ``column``: a list, or
            a string with commas between the words. A sample that has none scores NaN: the scorer does not apply.
        column: Name of that column.

    Raises:
        TypeError: If ``words`` is one string, or holds something else than strings.
        ValueError: If ``words`` is empty, or one of them is blank.

    >>> BannedWords(["cat", "red hat"])(TextBatch.from_texts(["A dog, a concat.", "No cat.", "cat RED\nhat cat", ""]))
    array([1.  , 0.5 , 0.25, 1.  ])
    """

    score_range = (0.0, 1.0)
    incremental = True

    def __init__(self, words: Iterable[str] | None = None, column: str = "banned_words") -> None:
        self.column = column
        self.words = given_phrases(words, "banned word")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array(list(map(_cleanness, batch.completions, self._banned(batch))), dtype=np.float64)

    def begin(self, batch: TextBatch) -> list["_Count"]:
        """Return B states: the hits so far, and the end of the text, where one may be growing."""
        starts = [_Count(banned, max(map(len, banned), default=0)) for banned in self._banned(batch)]
        return list(map(_follow_hits, starts, batch.completions))

    def advance(self, states: Sequence["_Count"], batch: TextBatch) -> list["_Count"]:
        """Return B states after one more token."""
        return [
            _follow_hits(state, piece) if piece else state
            for state, piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence["_Count"], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts that the states are of."""
        return np.array([1 / (1 + s[2] + s[3]) if s[1] else np.nan for s in states], dtype=np.float64)

    def _banned(self, batch: TextBatch) -> list[tuple[str, ...]]:
        if self.words is not None:
            return [self.words] * len(batch)
        return [phrases_of_column(row.get(self.column), "banned word") for row in batch.metadata]


class _Count(NamedTuple):
    banned: tuple[str, ...]
    width: int
    """Characters of the longest banned word; 0 where there is none."""
    num_settled: int = 0
    """Hits that begin before the tail."""
    num_in_tail: int = 0
    """Hits that begin in the tail, and may change with what follows."""
    tail: str = " "
    """The last characters, folded; the first one only says whether a word may begin behind it."""


def _follow_hits(state: _Count, piece: str) -> _Count:
    banned, width, num_settled, _, tail = state
    if width == 0:
        return state
    text = fold(tail, piece)
    cut = max(len(text) - width - 1, 0)
    num_in_tail = 0
    for match in _hit_finder(banned)(text, 1):
        if match.start() <= cut:  # so much text follows that no more of it matters
            num_settled += 1
        else:
            num_in_tail += 1
    return _Count(banned, width, num_settled, num_in_tail, text[cut:])


def _cleanness(text: str, banned: tuple[str, ...]) -> float:
    if not banned:
        return np.nan
    return 1 / (1 + sum(1 for _ in _hit_finder(banned)(text.casefold())))


@lru_cache(maxsize=1024)
def _hit_finder(banned: tuple[str, ...]) -> Callable[..., Iterator[re.Match[str]]]:
    # A look-ahead takes no characters, so that a hit may begin within another one.
    return re.compile(f"(?={whole_phrase(*banned)})").finditer
