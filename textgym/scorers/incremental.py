"""The contract of scorers that follow a text as it grows, which is what a reward per token needs."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer

__all__ = ["IncrementalScorer", "is_incremental"]


class IncrementalScorer(Scorer, Protocol):
    """A scorer whose cost per token does not depend on how long the text is.

    What it has to remember of a text is a state, any picklable value that is never changed in place, because snapshots
    of an environment share it. The three methods say the same as the scorer itself: for whatever tokens a text is
    made of, ``value`` of the states that ``begin`` and ``advance`` give equals ``scorer(batch)``, within rounding.
    """

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B states, one for each text as it is now, of whatever length."""
        ...

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B states of texts that have grown by one token since ``states``.

        ``batch.last_pieces`` is what that token added to each text, ``batch.last_ids`` its id.
        """
        ...

    def value(self, states: Sequence[Any], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts that the states are of; NaN where the scorer does not apply."""
        ...


def is_incremental(scorer: object) -> TypeGuard[IncrementalScorer]:
    """Return whether a scorer fits :class:`IncrementalScorer`.

    One that is made of others has the methods in any case; its attribute ``incremental`` says whether all parts do.

    >>> from textgym.scorers import LengthBand, Sentiment
    >>> is_incremental(LengthBand()), is_incremental(Sentiment())
    (True, False)
    """
    methods = all(callable(getattr(scorer, name, None)) for name in ("begin", "advance", "value"))
    return methods and bool(getattr(scorer, "incremental", True))
