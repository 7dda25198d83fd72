"""A score in units of its own spread so far."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray
from textgym.scorers.combine.arguments import as_count, as_finite
from textgym.scorers.combine.composite import Wrapper
from textgym.scorers.combine.ranges import Range

__all__ = ["RunningNormalization"]


class RunningNormalization(Wrapper):
    """A score minus the mean of all finished texts so far, divided by their standard deviation.

    Formula: ``clip((score - mean) / std, -c, c)``, NaN where the scorer does not apply. Statistics include the batch
    that is scored, and only its finished texts: unfinished ones (``~batch.done``), which potential-based shaping asks
    for, are normalised but not counted, nor are texts that failed. How texts are divided into batches does not matter
    for the statistics. The divisor is 1 while there is no spread: before the second text, or if all scores are equal.

    Range: [-c, c]. An empty completion scores what the scorer gives it, normalised. Not deterministic: the same text
    scores differently as others come, unless ``frozen``, which is an attribute: set it for evaluation. Not incremental.
    Scoring a text twice counts it twice. The mean moves with the policy, so the score says how good a text is
    beside recent ones and not whether the policy improves: watch the component for that.

    Source: Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, The American Statistician 1983
    (merging batches); the use on rewards as in Engstrom et al., Implementation Matters in Deep RL, ICLR 2020,
    https://arxiv.org/abs/2005.12729

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        center: Whether the mean is subtracted.
        scale: Whether the standard deviation divides.
        clip: c, the greatest absolute value; None for no limit.

    Raises:
        ValueError: If clip is not a positive finite number.

    >>> scorer = RunningNormalization(len)
    >>> scorer(TextBatch.from_texts(["a", "abc"])), scorer.mean, scorer.std
    (array([-1.,  1.]), 2.0, 1.0)
    >>> scorer.frozen = True
    >>> scorer(TextBatch.from_texts(["abcd"])), scorer.get_state()
    (array([2.]), {'count': 2, 'mean': 2.0, 'sum_of_squares': 2.0})
    """

    def __init__(self, scorer: Any, center: bool = True, scale: bool = True, clip: float | None = 10.0) -> None:
        super().__init__(scorer)
        self.center = center
        self.scale = scale
        self.clip = None if clip is None else as_finite(clip, "clip")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is {clip!r}, expected a positive number or None")
        self.frozen = False
        self.count = 0
        self.mean = 0.0
        self._sum_of_squares = 0.0

    @property
    def std(self) -> float:
        """What divides: the standard deviation of the finished texts so far, 1 while they do not differ."""
        std = sqrt(self._sum_of_squares / self.count) if self.count > 0 else 0.0
        return std if std > 1e-8 * max(1.0, abs(self.mean)) else 1.0  # equal scores differ by rounding in the mean

    @property
    def deterministic(self) -> bool:
        """Whether the statistics are frozen, and the scorer is deterministic."""
        return self.frozen and super().deterministic

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the normalised scores, and count those of finished texts."""
        scores = totals[0]
        if not self.frozen:
            self._count(scores[batch.done & ~np.isnan(scores)])
        result = scores - self.mean if self.center else scores
        result = result / self.std if self.scale else result
        return result if self.clip is None else np.clip(result, -self.clip, self.clip)

    def get_state(self) -> dict[str, Any]:
        """Return the statistics, as JSON can hold them."""
        return {"count": self.count, "mean": self.mean, "sum_of_squares": self._sum_of_squares}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over the statistics that :meth:`get_state` returned.

        Raises:
            KeyError: If one is missing.
            ValueError: If one is not what it may be.
        """
        count, mean = as_count(state["count"], "count", 0), as_finite(state["mean"], "mean")
        sum_of_squares = as_finite(state["sum_of_squares"], "sum_of_squares")
        if sum_of_squares < 0:
            raise ValueError(f"sum_of_squares is {sum_of_squares!r}, expected a number from 0 on")
        self.count, self.mean, self._sum_of_squares = count, mean, sum_of_squares

    def _count(self, scores: FloatArray) -> None:
        added = len(scores)
        if added == 0:
            return
        mean = float(scores.mean())
        difference = mean - self.mean
        total = self.count + added
        self._sum_of_squares += float(((scores - mean) ** 2).sum()) + difference**2 * self.count * added / total
        self.mean += difference * added / total
        self.count = total

    def _range(self) -> Range | None:
        return None if self.clip is None else (-self.clip, self.clip)
