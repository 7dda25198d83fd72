"""Whether the brackets and quotes of a text are matched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer

__all__ = ["BalancedBrackets"]

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
