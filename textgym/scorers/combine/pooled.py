"""Several scores as one: their product, the least of them, the greatest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range
from textgym.scorers.combine.arguments import as_parts
from textgym.scorers.combine.composite import Composite
from textgym.scorers.combine.ranges import hull, of_some, product, ranges_of

__all__ = ["Maximum", "Minimum", "Product"]


class Product(Composite):
    """The product of the scores that apply: of scores in [0, 1], all have to be good at once.

    Formula: ``prod(score[k] for each part k whose score is not NaN)``; NaN where no part applies. Range: that of the
    products of some or all parts. An empty completion scores what the parts give it; deterministic if they are,
    incremental if they are. Two negative scores have a positive product: shift such parts with
    :class:`textgym.scorers.Affine` first.

    Args:
        parts: ``{name: scorer}``, or a list of scorers under their own names.

    Raises:
        ValueError: If there are no parts, a name is empty or has a ``/`` in it, or two are equal.
        TypeError: If ``parts`` is neither a mapping nor a list, or a part is no scorer.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = Product([LengthBand(2, 3), Keywords(["cat", "dog"])])
    >>> scorer(TextBatch.from_texts(["cat", "ox", "cat cat"]))
    array([0.5, 0. , 0. ])
    """

    pointwise = True

    def __init__(self, parts: Any) -> None:
        self.parts = as_parts(parts, "Product")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the products of (B,) scores."""
        result = np.ones(len(batch))
        applies = np.zeros(len(batch), dtype=np.bool_)
        for scores in totals:
            present = ~np.isnan(scores)
            result *= np.where(present, scores, 1.0)
            applies |= present
        return result if applies.all() else np.where(applies, result, np.nan)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = ranges_of(self.scorers)
        return None if limits is None else of_some(limits, product)


class Minimum(Composite):
    """The least of the scores that apply: a text is worth what its weakest side is worth.

    Formula: ``min(score[k] for each part k whose score is not NaN)``; NaN where no part applies. Range: from the least
    to the greatest score of any part. An empty completion scores what the parts give it; deterministic if they are,
    incremental if they are. Unlike a sum, it does not let one part pay for another, which makes it harder to hack.

    Args:
        parts: ``{name: scorer}``, or a list of scorers under their own names.

    Raises:
        ValueError: If there are no parts, a name is empty or has a ``/`` in it, or two are equal.
        TypeError: If ``parts`` is neither a mapping nor a list, or a part is no scorer.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = Minimum({"length": LengthBand(4, 8), "animals": Keywords(["cat", "dog"])})
    >>> scorer(TextBatch.from_texts(["cat", "cat dog", "a"]))
    array([0.5, 1. , 0. ])
    """

    pointwise = True

    def __init__(self, parts: Any) -> None:
        self.parts = as_parts(parts, "Minimum")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the least of (B,) scores."""
        least: FloatArray = np.fmin.reduce(totals)
        return least

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = ranges_of(self.scorers)
        return None if limits is None else hull(limits)


class Maximum(Composite):
    """The greatest of the scores that apply: one good side is enough.

    Formula: ``max(score[k] for each part k whose score is not NaN)``; NaN where no part applies. Range: from the least
    to the greatest score of any part. An empty completion scores what the parts give it; deterministic if they are,
    incremental if they are. As easy to hack as the easiest of its parts.

    Args:
        parts: ``{name: scorer}``, or a list of scorers under their own names.

    Raises:
        ValueError: If there are no parts, a name is empty or has a ``/`` in it, or two are equal.
        TypeError: If ``parts`` is neither a mapping nor a list, or a part is no scorer.

    >>> from textgym.scorers import Keywords
    >>> scorer = Maximum({"cats": Keywords(["cat", "kitten"]), "dogs": Keywords(["dog", "puppy"])})
    >>> scorer(TextBatch.from_texts(["a cat", "a dog and a puppy", "an ox"]))
    array([0.5, 1. , 0. ])
    """

    pointwise = True

    def __init__(self, parts: Any) -> None:
        self.parts = as_parts(parts, "Maximum")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the greatest of (B,) scores."""
        greatest: FloatArray = np.fmax.reduce(totals)
        return greatest

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = ranges_of(self.scorers)
        return None if limits is None else hull(limits)
