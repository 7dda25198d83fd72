"""The sum of scores with weights, which is what ``{name: weight}`` means."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range, Scorer, scorer_name
from textgym.scorers.combine.arguments import as_pairs, as_part
from textgym.scorers.combine.composite import Composite
from textgym.scorers.combine.ranges import of_some, ranges_of, scaled, total
from textgym.scorers.registry import as_scorer

__all__ = ["WeightedSum", "weighted_sum"]


class WeightedSum(Composite):
    """The sum of ``weight * score`` over the parts that apply.

    Formula: ``sum(weight[k] * score[k] for each part k whose score is not NaN)``, as TRL sums reward functions; NaN
    where no part applies. Range: that of the sums of some or all parts. Components are the parts' scores before their
    weights. An empty completion scores what the parts give it; deterministic if they are, incremental if they are.

    Args:
        parts: ``{name: (scorer, weight)}``, with whatever :func:`as_scorer` accepts as the scorer.

    Raises:
        ValueError: If there are no parts, a weight is not finite, or a name is empty or has a ``/`` in it.
        TypeError: If ``parts`` is no mapping, a value not a pair, or a weight not a number.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = WeightedSum({"length": (LengthBand(2, 3), 1.0), "cats": (Keywords(["cat"]), 0.5)})
    >>> scorer(TextBatch.from_texts(["cat", "a"]))
    array([1.5, 0.5])
    """

    pointwise = True

    def __init__(self, parts: Mapping[str, tuple[Any, float]]) -> None:
        self.parts = as_pairs(parts, "weight")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the weighted sums of (B,) scores."""
        summed = np.zeros(len(batch))
        applies = np.zeros(len(batch), dtype=np.bool_)
        for (_, weight), scores in zip(self.parts.values(), totals, strict=True):
            present = ~np.isnan(scores)
            summed += np.where(present, weight * scores, 0.0)
            applies |= present
        return summed if applies.all() else np.where(applies, summed, np.nan)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = ranges_of(self.scorers)
        if limits is None:
            return None
        return of_some(
            [scaled(pair, weight) for pair, (_, weight) in zip(limits, self.parts.values(), strict=True)], total
        )


def weighted_sum(spec: Mapping[Any, Any]) -> WeightedSum:
    """Return the scorer that :func:`textgym.scorers.as_scorer` makes of ``{name: weight}``.

    Raises:
        ValueError: If two parts have the same name, and as :class:`WeightedSum` does.
        TypeError: If a weight is a scorer.
    """
    parts: dict[str, tuple[Any, Any]] = {}
    for key, value in spec.items():
        if callable(value):
            raise TypeError(
                f"the weight of {key!r} is {value!r}; to name a scorer, write {{{key!r}: (scorer, weight)}}"
            )
        part, weight = value if isinstance(value, tuple | list) and len(value) == 2 else (key, value)
        scorer: Scorer = as_part(part, key) if isinstance(key, str) else as_scorer(part)
        name = key if isinstance(key, str) else scorer_name(scorer)
        if name in parts:
            raise ValueError(f"two scorers are named {name!r}; name them with {{name: (scorer, weight)}}")
        parts[name] = (scorer, weight)
    return WeightedSum(parts)
