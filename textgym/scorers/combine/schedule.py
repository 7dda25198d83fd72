"""A score whose weight changes over training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range
from textgym.scorers.combine.arguments import as_finite
from textgym.scorers.combine.composite import Wrapper
from textgym.scorers.combine.ranges import hull, scaled

__all__ = ["Schedule"]


class Schedule(Wrapper):
    """A score times a weight that depends on how much of training is done.

    Formula: ``weight(progress) * score``; the weight is linear between the given points, and constant before the first
    and after the last; NaN where the scorer does not apply. Range: that of the scorer times the least and the greatest
    weight. An empty completion scores what the scorer gives it, weighted; at one progress deterministic if the scorer
    is, incremental if it is. The scorer is called whatever the weight is, so that its component is always there to be
    watched.

    Progress is 0 until somebody calls ``set_progress`` of the scorer, or of the environment, which passes it on. The
    agents of ``textgym_agents`` do; for Stable-Baselines3, give ``learn`` the callback
    ``textgym_agents.sb3.ReportProgress``; a training loop of your own has to call it itself.

    To blend from one scorer to another, sum two that mirror each other::

        WeightedSum({"first": (Schedule("length_band", {0: 1, 1: 0}), 1), "then": (Schedule(judge, {0: 0, 1: 1}), 1)})

    Values that were learned under one weight are wrong under the next: change weights slowly.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        weights: ``{progress: weight}``, progress in [0, 1]. A jump is two points close together.

    Raises:
        ValueError: If there are no points, one lies outside [0, 1], or a number is not finite.
        TypeError: If a number is not one.

    >>> scorer = Schedule("length_band", {0.2: 1.0, 0.6: 0.0})
    >>> for progress in (0.0, 0.5, 0.9):
    ...     scorer.set_progress(progress)
    ...     print(scorer(TextBatch.from_texts(["just right"])).round(2))
    [1.]
    [0.25]
    [0.]
    """

    pointwise = True

    def __init__(self, scorer: Any, weights: Mapping[float, float]) -> None:
        super().__init__(scorer)
        if not isinstance(weights, Mapping) or not weights:
            raise ValueError(f"weights is {weights!r}, expected {{progress: weight}} with at least one point")
        points = [(as_finite(at, "a progress"), as_finite(w, f"the weight at {at!r}")) for at, w in weights.items()]
        outside = [at for at, _ in points if not 0 <= at <= 1]
        if outside:
            raise ValueError(f"a progress is {outside[0]!r}, expected 0 to 1")
        self.weights = dict(sorted(points))
        self.progress = 0.0

    @property
    def weight(self) -> float:
        """The weight at the present progress."""
        return float(np.interp(self.progress, list(self.weights), list(self.weights.values())))

    def set_progress(self, progress: float) -> None:
        """Say which share of training is done, here and to the scorer inside; beyond 0 and 1 the weight is constant.

        Raises:
            ValueError: If it is not finite.
            TypeError: If it is not a number.
        """
        self.progress = as_finite(progress, "progress")
        super().set_progress(progress)

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the (B,) scores times the weight."""
        return self.weight * totals[0]

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = self.scorer.score_range
        return None if limits is None else hull(scaled(limits, weight) for weight in self.weights.values())
