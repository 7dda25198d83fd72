"""One score, cut off or on another scale."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range
from textgym.scorers.combine.arguments import as_finite
from textgym.scorers.combine.composite import Wrapper
from textgym.scorers.combine.ranges import scaled

__all__ = ["Affine", "Clip"]


class Clip(Wrapper):
    """A score cut off below ``low`` and above ``high``: what goes beyond earns nothing more.

    Formula: ``min(max(score, low), high)``, NaN where the scorer does not apply. Range: [low, high], or what of it the
    scorer can reach. An empty completion scores what the scorer gives it, cut off; deterministic if it is, incremental
    if it is.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        low: The least score, none by default.
        high: The greatest score, none by default.

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
        """Return (B,) float64, the (B,) scores cut off."""
        return np.clip(totals[0], self.low, self.high)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        known = self.scorer.score_range
        low, high = np.clip(known or (-np.inf, np.inf), self.low, self.high).tolist()
        return (low, high) if known or np.isfinite([low, high]).all() else None


class Affine(Wrapper):
    """A score on another scale.

    Formula: ``scale * score + shift``, NaN where the scorer does not apply. Range: that of the scorer, scaled and
    shifted. An empty completion scores what the scorer gives it, so changed; deterministic if it is, incremental if
    it is.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        scale: The factor; a negative one makes a reward of a flaw.
        shift: What is added afterwards.

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
        """Return (B,) float64, the (B,) scores on the other scale."""
        return self.scale * totals[0] + self.shift

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = self.scorer.score_range
        if limits is None:
            return None
        low, high = scaled(limits, self.scale)
        return low + self.shift, high + self.shift
