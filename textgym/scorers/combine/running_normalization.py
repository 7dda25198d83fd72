"""A score in units of its own spread so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range, Scores
from textgym.scorers.combine.arguments import as_count, as_finite
from textgym.scorers.combine.composite import Wrapper

__all__ = ["RunningNormalization"]


@dataclass(frozen=True)
class _Statistics:
    """Count, mean and sum of squared differences from the mean, of some scores."""

    count: int
    mean: float
    sum_of_squares: float

    @property
    def std(self) -> float:
        """The standard deviation, 1 where the scores do not differ."""
        std = sqrt(self.sum_of_squares / self.count) if self.count > 0 else 0.0
        return std if std > 1e-8 * max(1.0, abs(self.mean)) else 1.0  # equal scores differ by rounding in the mean

    def with_scores(self, scores: FloatArray) -> "_Statistics":
        """Return the statistics of some more scores too; NaN is not counted."""
        scores = scores[~np.isnan(scores)]
        added = len(scores)
        if added == 0:
            return self
        mean = float(scores.mean())
        difference = mean - self.mean
        total = self.count + added
        squares = float(((scores - mean) ** 2).sum()) + difference**2 * self.count * added / total
        return _Statistics(total, self.mean + difference * added / total, self.sum_of_squares + squares)


class RunningNormalization(Wrapper):
    """A score minus the mean of all finished texts so far, divided by their standard deviation.

    Formula: ``clip((score - mean) / std, -c, c)``, NaN where the scorer does not apply. The statistics are those of the
    episodes that were observed and of the finished texts of the batch that is scored: unfinished ones
    (``~batch.done``), which potential-based shaping asks for, are normalised but not counted, nor are texts that
    failed. How texts are divided into batches does not matter for the statistics. The divisor is 1 while there is no
    spread: before the second text, or if all scores are equal.

    Range: [-c, c]. An empty completion scores what the scorer gives it, normalised. Not deterministic: the same text
    scores differently as others come, unless ``frozen``, which is an attribute: set it for evaluation. Not incremental.
    Statistics move by :meth:`observe`, scoring leaves them as they are. The mean moves with the policy, so the score
    says how good a text is beside recent ones and not whether the policy improves: watch the component for that.

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
    >>> batch = TextBatch.from_texts(["a", "abc"])
    >>> scorer.observe(batch, scorer.score_components(batch))
    >>> scorer(batch), scorer.mean, scorer.std
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
        self._statistics = _Statistics(0, 0.0, 0.0)

    @property
    def count(self) -> int:
        """Episodes observed so far."""
        return self._statistics.count

    @property
    def mean(self) -> float:
        """The mean score of the episodes observed so far."""
        return self._statistics.mean

    @property
    def std(self) -> float:
        """The standard deviation of the scores observed so far, 1 while they do not differ."""
        return self._statistics.std

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the statistics are frozen, and the scorer is deterministic."""
        return self.frozen and super().deterministic

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the normalised scores."""
        scores = totals[0]
        statistics = self._statistics if self.frozen else self._statistics.with_scores(scores[batch.done])
        result = scores - statistics.mean if self.center else scores
        result = result / statistics.std if self.scale else result
        return result if self.clip is None else np.clip(result, -self.clip, self.clip)

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Count the scores of finished episodes, unless frozen."""
        if not self.frozen:
            self._statistics = self._statistics.with_scores(scores.inner[0].total[batch.done])

    def get_state(self) -> dict[str, Any]:
        """Return the statistics, as JSON can hold them."""
        return asdict(self._statistics)

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
        self._statistics = _Statistics(count, mean, sum_of_squares)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """[-c, c], None without a limit."""
        return None if self.clip is None else (-self.clip, self.clip)
