"""Surface format of a text: length, characters, brackets, a pattern."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.arguments import as_count
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import words

__all__ = ["BalancedBrackets", "CharacterShare", "LengthBand", "Regex"]


@dataclass(frozen=True)
class LengthBand(Scorer):
    """1 where the completion's length n lies in ``[low, high]``, falling linearly to 0 outside.

    Formula: ``n / low`` below the band, ``max(0, 2 - n / high)`` above it. Range: [0, 1]. Empty completion: 0, or 1 if
    ``low`` is 0. Deterministic. Incremental unless the unit is words.

    Raises:
        ValueError: Unless ``0 <= low <= high`` and ``high >= 1``, or if the unit is unknown.

    >>> LengthBand(4, 8)(TextBatch.from_texts(["a", "abcd", "abcdefghij", ""]))
    array([0.25, 1.  , 0.75, 0.  ])
    """

    low: int = 8
    """Least length that scores 1, in units."""
    high: int = 24
    """Greatest length that scores 1, in units."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """``"tokens"`` counts the completion's ids, including EOS."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.high < 1:
            raise ValueError(f"expected 0 <= low <= high and high >= 1, got low={self.low!r}, high={self.high!r}")
        if self.unit not in ("tokens", "words", "characters"):
            raise unknown_name("unit", self.unit, ["tokens", "words", "characters"])

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        """False for words: a token may continue the last word."""
        return self.unit != "words"

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[int]:
        """Return B lengths, in units."""
        if self.unit == "tokens":
            return batch.num_new_tokens.tolist()
        measure = len if self.unit == "characters" else _num_words
        return [measure(text) for text in batch.completions]

    def advance(self, states: Sequence[int], batch: TextBatch) -> list[int]:
        """Return B lengths, in units, after one more token."""
        if self.unit == "tokens":
            return batch.num_new_tokens.tolist()
        return [count + len(piece) for count, piece in zip(states, batch.last_pieces, strict=True)]

    def value(self, states: Sequence[int], batch: TextBatch) -> FloatArray:
        """Return (B,) float64 scores of the lengths."""
        counts = np.array(states, dtype=np.int64)
        rising = counts / self.low if self.low > 0 else 1.0
        return np.clip(np.minimum(rising, 2 - counts / self.high), 0.0, 1.0)


def _num_words(text: str) -> int:
    return len(words(text))


@dataclass(frozen=True)
class CharacterShare(Scorer):
    """Share of the completion's characters that belong to a set.

    Formula: ``characters in the set / all characters``, including spaces. Range: [0, 1]. Empty completion: 0.
    Deterministic. Incremental. One character repeated scores 1.

    Raises:
        TypeError: If ``characters`` is not a string.
        ValueError: If it is empty.

    >>> CharacterShare("ao")(TextBatch.from_texts(["a cat", "Oo", "", "why"]))
    array([0.4, 1. , 0. , 0. ])
    """

    characters: str = "aeiou"
    """The characters of the set."""
    ignore_case: bool = True
    """Whether the set contains each character in lower and in upper case."""

    score_range = (0.0, 1.0)
    incremental = True

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str):
            raise TypeError(f"characters is {self.characters!r} of type {type(self.characters).__name__}, expected str")
        if not self.characters:
            raise ValueError("characters is empty; expected at least one character")

    @cached_property
    def _set(self) -> frozenset[str]:
        characters = self.characters
        return frozenset(characters + characters.lower() + characters.upper() if self.ignore_case else characters)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[tuple[int, int]]:
        """Return B pairs: number of characters in the set, number of all characters."""
        is_in_set = self._set.__contains__
        return [(sum(map(is_in_set, text)), len(text)) for text in batch.completions]

    def advance(self, states: Sequence[tuple[int, int]], batch: TextBatch) -> list[tuple[int, int]]:
        """Return B pairs after one more token."""
        is_in_set = self._set.__contains__
        return [
            (num_in_set + sum(map(is_in_set, piece)), total + len(piece))
            for (num_in_set, total), piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence[tuple[int, int]], batch: TextBatch) -> FloatArray:
        """Return (B,) float64 shares."""
        return np.array([num_in_set / (total or 1) for num_in_set, total in states], dtype=np.float64)


_State = tuple[int, int, str]


@dataclass(frozen=True)
class BalancedBrackets(Scorer):
    """Share of the completion's brackets and quotes that are matched, as in well-formed code.

    Formula: ``matched / all`` brackets. A closing bracket that fits the innermost open one matches it, and both count;
    any other stays unmatched and closes nothing. A mark that both opens and closes, such as ``"``, closes if the
    innermost open mark is the same, else it opens. Range: [0, 1]. Empty completion, or one without brackets: 1.
    Deterministic. Incremental. Combine it with a scorer that requires brackets.

    Raises:
        ValueError: If ``pairs`` is empty, of odd length, or has a character in two pairs.

    >>> BalancedBrackets()(TextBatch.from_texts(["f(x[0])", "f(x", "(a]", '"(b)" "', ""]))
    array([1. , 0. , 0. , 0.8, 1. ])
    """

    pairs: str = '()[]{}""“”'
    """Opening and closing characters in turn; a mark that does both stands twice. No character is in two pairs."""

    score_range = (0.0, 1.0)
    incremental = True

    def __post_init__(self) -> None:
        kinds = [self.pairs[i : i + 2] for i in range(0, len(self.pairs), 2)]
        if not kinds or len(kinds[-1]) < 2 or sum(len(set(kind)) for kind in kinds) != len(set(self.pairs)):
            raise ValueError(f"pairs is {self.pairs!r}; expected pairs of characters such as '()[]', each used once")

    @cached_property
    def _opener(self) -> dict[str, str]:
        """Map each mark to the one it closes, or to "" if it only opens."""
        openers, closers = self.pairs[::2], self.pairs[1::2]
        return dict.fromkeys(openers, "") | dict(zip(closers, openers, strict=True))

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[_State]:
        """Return B states: number of matched brackets, number of brackets, the open ones (innermost last)."""
        return [self._follow((0, 0, ""), text) for text in batch.completions]

    def advance(self, states: Sequence[_State], batch: TextBatch) -> list[_State]:
        """Return B states after one more token."""
        marks = self._opener.keys()
        return [
            state if marks.isdisjoint(piece) else self._follow(state, piece)
            for state, piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence[_State], batch: TextBatch) -> FloatArray:
        """Return (B,) float64 shares."""
        return np.array([matched / total if total else 1.0 for matched, total, _ in states], dtype=np.float64)

    def _follow(self, state: _State, piece: str) -> _State:
        matched, total, before = state
        opener = self._opener
        opened = list(before)
        for mark in filter(opener.__contains__, piece):
            total += 1
            closed = opener[mark]
            if closed and opened and opened[-1] == closed:
                opened.pop()
                matched += 2
            elif not closed or closed == mark:
                opened.append(mark)
        return matched, total, "".join(opened)


@dataclass(frozen=True)
class Regex(Scorer):
    r"""Whether, or how often, a regular expression matches the completion.

    Formula: ``"search"``, 1 if it matches anywhere; ``"fullmatch"``, 1 if it matches the whole text; ``"count"``,
    ``min(matches, maximum) / maximum`` with non-overlapping matches. Range: [0, 1]. Empty completion: as the pattern
    matches an empty text. Deterministic. Not incremental.

    Only the first ``max_characters`` are read, which bounds patterns of quadratic cost such as ``\s+$``; a longer text
    is never a full match. An exponential pattern such as ``(a+)+$`` takes minutes for 30 characters and cannot be
    interrupted.

    Raises:
        TypeError: If the pattern is not a string.
        ValueError: If it is not a regular expression, the mode is unknown, or a number is not a positive integer.

    >>> texts = TextBatch.from_texts(["call 555-0199", "555-0199", ""])
    >>> Regex(r"\d{3}-\d{4}")(texts), Regex(r"\d{3}-\d{4}", "fullmatch")(texts), Regex(r"\d", "count", 14)(texts)
    (array([1., 1., 0.]), array([0., 1., 0.]), array([0.5, 0.5, 0. ]))
    """

    pattern: str
    """Regular expression in the syntax of ``re``, with inline flags: ``"(?i)yes"``."""
    mode: Literal["search", "fullmatch", "count"] = "search"
    """How it is matched; see the formula."""
    maximum: int = 1
    """Number of matches that scores 1 in mode ``"count"``."""
    max_characters: int = 2_000
    """Number of leading characters that are read."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise TypeError(f"pattern is {self.pattern!r} of type {type(self.pattern).__name__}, expected a string")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
        if self.mode not in ("search", "fullmatch", "count"):
            raise unknown_name("mode", self.mode, ["search", "fullmatch", "count"])
        as_count(self.maximum, "maximum")
        as_count(self.max_characters, "max_characters")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        pattern = re.compile(self.pattern)  # cached by re
        if self.mode == "fullmatch":
            most, texts = self.max_characters, batch.completions
            return np.array([len(text) <= most and bool(pattern.fullmatch(text)) for text in texts], dtype=np.float64)
        texts = [text[: self.max_characters] for text in batch.completions]
        if self.mode == "search":
            return np.array([pattern.search(text) is not None for text in texts], dtype=np.float64)
        counts = [sum(1 for _ in pattern.finditer(text)) for text in texts]
        return np.minimum(np.array(counts, dtype=np.float64), self.maximum) / self.maximum
