"""Fixed functions of one score: another scale, limits, a weight that changes over training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_finite
from textgym.scorers.base import FloatArray, Range
from textgym.scorers.combine.base import Wrapper, hull, product

__all__ = ["Affine", "Clip", "Schedule"]


class Affine(Wrapper):
    """The affine transform ``scale * score + shift`` of a score.

    NaN where the scorer does not apply. Deterministic and incremental if the scorer is.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        scale: The factor; a negative one turns a measure of a flaw into a reward.
        shift: Added afterwards.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If one is not a number.

    >>> Affine("repetition", scale=-1.0, shift=1.0)(TextBatch.from_texts(["no no no no", "a cat sat"]))
    array([0.5, 1. ])
    """

    pointwise = True

    def __init__(self, scorer: Any, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(scorer)
        self.scale = as_finite(scale, "scale")
        self.shift = as_finite(shift, "shift")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the transformed scores."""
        return self.scale * totals[0] + self.shift

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of the scorer is unknown."""
        limits = self.scorer.score_range
        if limits is None:
            return None
        low, high = product(limits, (self.scale, self.scale))
        return low + self.shift, high + self.shift


class Clip(Wrapper):
    """A score limited to [low, high].

    NaN where the scorer does not apply. Deterministic and incremental if the scorer is.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        low: Lower limit, none by default.
        high: Upper limit, none by default.

    Raises:
        ValueError: If neither is given, one is not finite, or ``low`` exceeds ``high``.
        TypeError: If one is not a number.

    >>> Clip("sentiment", 0.0, 0.5)(TextBatch.from_texts(["a happy dog", "a sad dog", "a dog"]))
    array([0.5, 0. , 0. ])
    """

    pointwise = True

    def __init__(self, scorer: Any, low: float | None = None, high: float | None = None) -> None:
        super().__init__(scorer)
        if low is None and high is None:
            raise ValueError("neither low nor high is given; expected at least one")
        self.low = None if low is None else as_finite(low, "low")
        self.high = None if high is None else as_finite(high, "high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"expected low <= high, got low={low!r}, high={high!r}")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the clipped scores."""
        return np.clip(totals[0], self.low, self.high)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of the scorer is unknown and a limit is missing."""
        known = self.scorer.score_range
        low, high = np.clip(known or (-np.inf, np.inf), self.low, self.high).tolist()
        return (low, high) if known or np.isfinite([low, high]).all() else None


class Schedule(Wrapper):
    """A score times a weight that depends on training progress.

    The weight is linear between the given points, and constant before the first and after the last. NaN where the
    scorer does not apply. Deterministic at constant progress and incremental if the scorer is. The scorer is called
    even if the weight is 0, so that its component can be monitored. Value estimates learned under one weight are wrong
    under the next: change weights slowly. To blend two scorers, sum two opposite schedules.

    Progress is 0 until ``set_progress`` of the scorer or the environment is called. The agents of ``textgym_agents``
    call it; for Stable-Baselines3, pass the callback ``textgym_agents.sb3.ReportProgress`` to ``learn``; call it
    yourself in your own training loop.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        weights: ``{progress: weight}``, progress in [0, 1]. For a jump, use two points close together.

    Raises:
        ValueError: If there are no points, one lies outside [0, 1], or a number is not finite.
        TypeError: If a value is not a number.

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
        """The weight at the current progress."""
        return float(np.interp(self.progress, list(self.weights), list(self.weights.values())))

    def set_progress(self, progress: float) -> None:
        """Set the fraction of training done, here and in the inner scorer; below 0 and above 1 the weight is constant.

        Raises:
            ValueError: If it is not finite.
            TypeError: If it is not a number.
        """
        self.progress = as_finite(progress, "progress")
        super().set_progress(progress)

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the weighted scores."""
        return self.weight * totals[0]

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score over training; None if that of the scorer is unknown."""
        limits = self.scorer.score_range
        return None if limits is None else hull(product(limits, (weight, weight)) for weight in self.weights.values())
