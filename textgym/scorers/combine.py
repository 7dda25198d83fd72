"""Scorers that are made of other scorers."""

from collections.abc import Mapping
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.base import FloatArray, Scorer, Scores, score_part
from textgym.scorers.registry import as_scorer

__all__ = ["WeightedSum"]


class WeightedSum:
    """The sum of ``weight * score`` over the parts that apply.

    Formula: ``sum(weight[k] * score[k] for each part k whose score is not NaN)``, as TRL sums reward functions; NaN
    where no part applies. Range: the weighted sum of the parts' ranges. Components are the parts' scores before their
    weights. An empty completion scores what the parts give it; deterministic if they are; not incremental.

    Args:
        parts: ``{name: (scorer, weight)}``, with whatever :func:`as_scorer` accepts as the scorer.

    Raises:
        ValueError: If there are no parts, a weight is not finite, or a name is empty or has a ``/`` in it.
        TypeError: If a weight is not a number.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = WeightedSum({"length": (LengthBand(2, 3), 1.0), "cats": (Keywords(["cat"]), 0.5)})
    >>> scorer(TextBatch.from_texts(["cat", "a"]))
    array([1.5, 0.5])
    """

    def __init__(self, parts: Mapping[str, tuple[Any, float]]) -> None:
        if not parts:
            raise ValueError("a weighted sum needs at least one part, got none")
        self.parts: dict[str, tuple[Scorer, float]] = {}
        for name, (scorer, weight) in parts.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise ValueError(f"{name!r} cannot name a part: a non-empty string without '/' is expected")
            if not isinstance(weight, Real) or isinstance(weight, bool):
                raise TypeError(f"the weight of {name!r} is {weight!r}, expected a number")
            if not isfinite(weight):
                raise ValueError(f"the weight of {name!r} is {weight!r}, expected a finite number")
            self.parts[name] = (as_scorer(scorer), float(weight))

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        scores = self.score_components(batch)
        if scores.error is not None:
            raise ScorerError(scores.error) from scores.cause
        return scores.total

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the sum and the parts; an episode for which any part failed has no total."""
        total = np.zeros(len(batch))
        applies = np.zeros(len(batch), dtype=np.bool_)
        failed = np.zeros(len(batch), dtype=np.bool_)
        components: dict[str, FloatArray] = {}
        error, cause = None, None
        for name, (scorer, weight) in self.parts.items():
            part = score_part(scorer, batch)
            present = ~np.isnan(part.total)
            total += np.where(present, weight * part.total, 0.0)
            applies |= present
            components[name] = part.total
            components |= {f"{name}/{inner}": values for inner, values in part.components.items()}
            if part.failed is not None:
                failed |= part.failed
                if error is None:
                    error, cause = f"part {name!r}: {part.error}", part.cause
        total[~applies | failed] = np.nan
        return Scores(total, components, error, None if error is None else failed, cause)
