"""Occurrence of given words and phrases in a text."""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import distinct_phrases, phrases_of_column, whole_phrase

__all__ = ["BannedWords", "Keywords"]

_SPACE = re.compile(r"\s+")


class _PhraseScorer(Scorer):
    """Scorer of given words and phrases, or of those in a metadata column of each sample."""

    score_range = (0.0, 1.0)
    incremental = True
    _kind: ClassVar[str]
    """Name of one of the words in error messages."""

    def __init__(self, words: Iterable[str] | None, column: str) -> None:
        self.column = column
        self.words = _given_phrases(words, self._kind)

    @staticmethod
    @abstractmethod
    def _score(text: str, words: tuple[str, ...]) -> float:
        """Return the score of a whole text."""

    @staticmethod
    @abstractmethod
    def _start(words: tuple[str, ...]) -> Any:
        """Return the state of an empty text, which has ``score`` and ``followed_by``."""

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array(list(map(self._score, batch.completions, self._words_of(batch))), dtype=np.float64)

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B states: the words found so far, and the end of the text, which the next token may extend."""
        texts = zip(batch.completions, self._words_of(batch), strict=True)
        return [self._start(words).followed_by(text) for text, words in texts]

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B states after one more token."""
        pairs = zip(states, batch.last_pieces, strict=True)
        return [state.followed_by(piece) if piece else state for state, piece in pairs]

    def value(self, states: Sequence[Any], batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array([state.score for state in states], dtype=np.float64)

    def _words_of(self, batch: TextBatch) -> list[tuple[str, ...]]:
        if self.words is not None:
            return [self.words] * len(batch)
        return [phrases_of_column(row.get(self.column), self._kind) for row in batch.metadata]


class Keywords(_PhraseScorer):
    """Share of the keywords that occur in the completion as whole words, in any case.

    Formula: ``found / all`` distinct keywords; a keyword may be a phrase, with any white space between its words.
    Range: [0, 1]. Empty completion: 0. Deterministic. Incremental. The bare list of keywords scores 1.

    Args:
        words: The keywords. If None, each sample has its own in the metadata column ``column``: a list, or a string
            with commas between the words. A sample without any scores NaN.
        column: Name of that column.

    Raises:
        TypeError: If ``words`` is a string, or contains something other than strings.
        ValueError: If ``words`` is empty, or one of them is blank.

    >>> Keywords(["cat", "red hat"])(TextBatch.from_texts(["A Red  Hat.", "the cat's red hat", "concat"]))
    array([0.5, 1. , 0. ])
    >>> Keywords()(TextBatch.from_texts(["a cat", "a cat"], metadata=[{"keywords": "cat, dog"}, {}]))
    array([0.5, nan])
    """

    _kind = "keyword"

    def __init__(self, words: Iterable[str] | None = None, column: str = "keywords") -> None:
        super().__init__(words, column)

    @staticmethod
    def _score(text: str, words: tuple[str, ...]) -> float:
        if not words:
            return np.nan
        text = text.casefold()
        near = [word for word in words if word.partition(" ")[0] in text]  # ten times faster than searching for all
        return sum(_word_finder(word)(text) is not None for word in near) / len(words)

    @staticmethod
    def _start(words: tuple[str, ...]) -> "_Search":
        return _Search(words, len(words), max(map(len, words), default=0))


class BannedWords(_PhraseScorer):
    r"""1 where the completion has no banned word, 1/2 with one, 1/3 with two, and so on.

    Formula: ``1 / (1 + hits)``, with hits the number of positions at which a banned word begins, as a whole word in any
    case; a banned word may be a phrase, with any white space between its words. Does not depend on the length of the
    text. Range: (0, 1]. Empty completion: 1. Deterministic. Incremental. Misspelled words are not detected.

    Args:
        words: The banned words. If None, each sample has its own in the metadata column ``column``: a list, or a string
            with commas between the words. A sample without any scores NaN.
        column: Name of that column.

    Raises:
        TypeError: If ``words`` is a string, or contains something other than strings.
        ValueError: If ``words`` is empty, or one of them is blank.

    >>> BannedWords(["cat", "red hat"])(TextBatch.from_texts(["A dog, a concat.", "No cat.", "cat RED\nhat cat", ""]))
    array([1.  , 0.5 , 0.25, 1.  ])
    """

    _kind = "banned word"

    def __init__(self, words: Iterable[str] | None = None, column: str = "banned_words") -> None:
        super().__init__(words, column)

    @staticmethod
    def _score(text: str, words: tuple[str, ...]) -> float:
        return 1 / (1 + sum(1 for _ in _hit_finder(words)(text.casefold()))) if words else np.nan

    @staticmethod
    def _start(words: tuple[str, ...]) -> "_Hits":
        return _Hits(words, max(map(len, words), default=0))


class _Search(NamedTuple):
    """Keywords in a text that is extended token by token."""

    missing: tuple[str, ...]
    """Keywords that are not certain to stay found."""
    num_words: int
    """All keywords."""
    width: int
    """Characters of the longest keyword."""
    num_at_end: int = 0
    """Missing keywords at the end of the text; a following letter would undo them."""
    tail: str = " "
    """Last characters in folded case: the longest possible beginning of a match, and the character before it."""

    @property
    def score(self) -> float:
        num_words = self.num_words
        return (num_words - len(self.missing) + self.num_at_end) / num_words if num_words else np.nan

    def followed_by(self, piece: str) -> "_Search":
        missing, num_words, width, num_at_end, tail = self
        if not missing:
            return self
        text = _folded(tail, piece)
        num_at_end = 0
        for word in missing:
            if word in text:
                match = _word_finder(word)(text, 1)  # the first character only decides whether a word may begin
                if match is None:
                    continue
                if match.end() < len(text):
                    missing = tuple(other for other in missing if other != word)
                else:
                    num_at_end += 1
        return _Search(missing, num_words, width, num_at_end, text[-width - 1 :])


class _Hits(NamedTuple):
    """Banned words in a text that is extended token by token."""

    banned: tuple[str, ...]
    width: int
    """Characters of the longest banned word; 0 if there is none."""
    num_settled: int = 0
    """Hits that begin before the tail."""
    num_in_tail: int = 0
    """Hits that begin in the tail, which the next pieces may change."""
    tail: str = " "
    """Last characters in folded case; the first one only decides whether a word may begin after it."""

    @property
    def score(self) -> float:
        return 1 / (1 + self.num_settled + self.num_in_tail) if self.banned else np.nan

    def followed_by(self, piece: str) -> "_Hits":
        banned, width, num_settled, _, tail = self
        if width == 0:
            return self
        text = _folded(tail, piece)
        cut = max(len(text) - width - 1, 0)
        num_in_tail = 0
        for match in _hit_finder(banned)(text, 1):
            if match.start() <= cut:  # enough text follows: no piece can change this hit
                num_settled += 1
            else:
                num_in_tail += 1
        return _Hits(banned, width, num_settled, num_in_tail, text[cut:])


@lru_cache(maxsize=4096)
def _word_finder(word: str) -> Callable[..., re.Match[str] | None]:
    return re.compile(whole_phrase(word)).search


@lru_cache(maxsize=1024)
def _hit_finder(banned: tuple[str, ...]) -> Callable[..., Iterator[re.Match[str]]]:
    return re.compile(f"(?={whole_phrase(*banned)})").finditer  # a look-ahead, so that hits may overlap


def _given_phrases(words: Iterable[object] | None, kind: str) -> tuple[str, ...] | None:
    """Return the argument ``words`` of a scorer as ``distinct_phrases``, None if the samples provide them."""
    if words is None:
        return None
    if isinstance(words, str):
        raise TypeError(f"words is one string, {words!r}; expected a list of strings")
    phrases = distinct_phrases(words, kind)
    if not phrases:
        raise ValueError("words is empty; leave it out to use those of each sample")
    return phrases


def _folded(tail: str, piece: str) -> str:
    """Return ``tail`` and ``piece`` in folded case, with runs of white space as one space."""
    return _SPACE.sub(" ", tail + piece.casefold())
