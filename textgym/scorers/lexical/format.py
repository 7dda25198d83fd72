"""Surface form of a text: length, characters, brackets, a pattern."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import words

__all__ = ["BalancedBrackets", "CharacterShare", "LengthBand", "Regex"]


@dataclass(frozen=True)
class LengthBand(Scorer):
    """1 where the completion's length n lies in ``[low, high]``, falling linearly to 0 outside.

    Formula: ``n / low`` below the band, ``max(0, 2 - n / high)`` above it, so 0 at length 0 and from ``2 * high`` on.
    Range: [0, 1]. An empty completion scores 0, or 1 where ``low`` is 0. Deterministic. Incremental, except where the
    unit is words.

    Raises:
        ValueError: If not ``0 <= low <= high`` and ``high >= 1``, or the unit is unknown.

    >>> LengthBand(4, 8)(TextBatch.from_texts(["a", "abcd", "abcdefghij", ""]))
    array([0.25, 1.  , 0.75, 0.  ])
    """

    low: int = 8
    """Shortest wanted length, in units."""
    high: int = 24
    """Longest wanted length, in units."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """What is counted. ``"tokens"`` are the completion's ids, an EOS among them."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.high < 1:
            raise ValueError(f"expected 0 <= low <= high and high >= 1, got low={self.low!r}, high={self.high!r}")
        if self.unit not in ("tokens", "words", "characters"):
            raise unknown_name("unit", self.unit, ["tokens", "words", "characters"])

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        """Whether a token's share in the count does not depend on its neighbours."""
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
        """Return (B,) float64, the scores of the lengths."""
        counts = np.array(states, dtype=np.int64)
        rising = counts / self.low if self.low > 0 else 1.0
        return np.clip(np.minimum(rising, 2 - counts / self.high), 0.0, 1.0)


def _num_words(text: str) -> int:
    return len(words(text))


@dataclass(frozen=True)
class CharacterShare(Scorer):
    """Share of the completion's characters that are in a set: the letter density of many a first experiment.

    Formula: ``in the set / all characters``, spaces among them. Range: [0, 1]. An empty completion scores 0.
    Deterministic. Incremental. Easily hacked, which is its use: one wanted character over and over scores 1.

    Raises:
        TypeError: If ``characters`` is no string.
        ValueError: If it is empty.

    >>> CharacterShare("ao")(TextBatch.from_texts(["a cat", "Oo", "", "why"]))
    array([0.4, 1. , 0. , 0. ])
    """

    characters: str = "aeiou"
    """The set, as a string."""
    ignore_case: bool = True
    """Whether the lower and upper case of a character in the set belong to it too."""

    score_range = (0.0, 1.0)
    incremental = True

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str):
            raise TypeError(f"characters is {self.characters!r} of type {type(self.characters).__name__}, expected str")
        if not self.characters:
            raise ValueError("characters is empty; expected at least one character")

    @cached_property
    def _wanted(self) -> frozenset[str]:
        characters = self.characters
        return frozenset(characters + characters.lower() + characters.upper() if self.ignore_case else characters)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[tuple[int, int]]:
        """Return B pairs: characters in the set, all characters."""
        is_wanted = self._wanted.__contains__
        return [(sum(map(is_wanted, text)), len(text)) for text in batch.completions]

    def advance(self, states: Sequence[tuple[int, int]], batch: TextBatch) -> list[tuple[int, int]]:
        """Return B pairs after one more token."""
        is_wanted = self._wanted.__contains__
        return [
            (num_wanted + sum(map(is_wanted, piece)), total + len(piece))
            for (num_wanted, total), piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence[tuple[int, int]], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the shares."""
        return np.array([num_wanted / (total or 1) for num_wanted, total in states], dtype=np.float64)


_State = tuple[int, int, str]


@dataclass(frozen=True)
class BalancedBrackets(Scorer):
    """Share of the completion's brackets and quotes that are matched, as in well-formed code.

    Formula: ``matched / all`` brackets. A closing bracket matches the innermost open one if that is of its kind, and
    both count; otherwise it stays unmatched and closes nothing. A mark that opens and closes, such as ``"``, closes
    where the innermost open mark is another of it and opens elsewhere. Range: [0, 1]. An empty completion, or one
    without brackets, scores 1: nothing is wrong with it. Deterministic. Incremental. Easily hacked: no brackets at all
    score 1, so join it with a scorer that asks for some.

    Raises:
        ValueError: If ``pairs`` is empty, of odd length, or a character is in more than one pair.

    >>> BalancedBrackets()(TextBatch.from_texts(["f(x[0])", "f(x", "(a]", '"(b)" "', ""]))
    array([1. , 0. , 0. , 0.8, 1. ])
    """

    pairs: str = '()[]{}""“”'
    """What opens and what closes, in turn; the same character twice where one mark does both."""

    score_range = (0.0, 1.0)
    incremental = True

    def __post_init__(self) -> None:
        kinds = [self.pairs[i : i + 2] for i in range(0, len(self.pairs), 2)]
        if not kinds or len(kinds[-1]) < 2 or sum(len(set(kind)) for kind in kinds) != len(set(self.pairs)):
            raise ValueError(f"pairs is {self.pairs!r}; expected pairs of characters, such as '()[]', no one in two")

    @cached_property
    def _opener(self) -> dict[str, str]:
        """What each mark closes; an empty string for one that only opens."""
        openers, closers = self.pairs[::2], self.pairs[1::2]
        return dict.fromkeys(openers, "") | dict(zip(closers, openers, strict=True))

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[_State]:
        """Return B states: matched brackets, all brackets, those that are open now, the innermost last."""
        return [self._follow((0, 0, ""), text) for text in batch.completions]

    def advance(self, states: Sequence[_State], batch: TextBatch) -> list[_State]:
        """Return B states after one more token."""
        marks = self._opener.keys()
        return [
            state if marks.isdisjoint(piece) else self._follow(state, piece)
            for state, piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence[_State], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the shares."""
        return np.array([matched / total if total else 1.0 for matched, total, _ in states], dtype=np.float64)

    def _follow(self, state: _State, piece: str) -> _State:
        matched, total, before = state
        opener = self._opener
        opened = list(before)
        for mark in filter(opener.__contains__, piece):
            total += 1
            wanted = opener[mark]
            if wanted and opened and opened[-1] == wanted:
                opened.pop()
                matched += 2
            elif not wanted or wanted == mark:
                opened.append(mark)
        return matched, total, "".join(opened)


@dataclass(frozen=True)
class Regex(Scorer):
    r"""Whether, or how often, a regular expression matches the completion.

    Formula: ``"search"``, 1 where it matches somewhere; ``"fullmatch"``, 1 where it matches the whole text;
    ``"count"``, ``min(matches, maximum) / maximum``, matches that do not overlap. Range: [0, 1]. An empty completion
    scores what the pattern says of an empty text, mostly 0. Deterministic. Not incremental.

    Only the first ``max_characters`` are read; a longer text is no full match. That keeps a pattern of quadratic cost,
    such as ``\s+$``, cheap. It does not help against an exponential one, such as ``(a+)+$``, which takes minutes for 30
    characters and cannot be interrupted: no repetition inside a repetition, where both can match the same.

    Raises:
        ValueError: If the pattern is not valid, the mode is unknown, or a number is not positive.
        TypeError: If the pattern is no string.

    >>> texts = TextBatch.from_texts(["call 555-0199", "555-0199", ""])
    >>> Regex(r"\d{3}-\d{4}")(texts), Regex(r"\d{3}-\d{4}", "fullmatch")(texts), Regex(r"\d", "count", 14)(texts)
    (array([1., 1., 0.]), array([0., 1., 0.]), array([0.5, 0.5, 0. ]))
    """

    pattern: str
    """The expression, in the syntax of :mod:`re`; flags are written in it: ``"(?i)yes"``."""
    mode: Literal["search", "fullmatch", "count"] = "search"
    """What is asked of the text."""
    maximum: int = 1
    """Matches that are enough for a score of 1 in the mode ``"count"``."""
    max_characters: int = 2_000
    """How much of a text is read."""

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
        if self.maximum < 1 or self.max_characters < 1:
            raise ValueError(
                f"maximum and max_characters must be positive, got {self.maximum!r} and {self.max_characters!r}"
            )

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        pattern = re.compile(self.pattern)  # which re keeps
        if self.mode == "fullmatch":
            whole = [len(text) <= self.max_characters and pattern.fullmatch(text) for text in batch.completions]
            return np.array([match is not None and match is not False for match in whole], dtype=np.float64)
        texts = [text[: self.max_characters] for text in batch.completions]
        if self.mode == "search":
            return np.array([pattern.search(text) is not None for text in texts], dtype=np.float64)
        counts = [sum(1 for _ in pattern.finditer(text)) for text in texts]
        return np.minimum(np.array(counts, dtype=np.float64), self.maximum) / self.maximum
