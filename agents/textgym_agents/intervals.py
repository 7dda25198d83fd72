"""Confidence intervals of means."""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["Bounds", "mean_interval"]

Bounds = tuple[float, float]

_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def mean_interval(returns: npt.ArrayLike, bounds: Bounds | None = None) -> Bounds:
    """Return a 95 % confidence interval of the expectation of R independent returns.

    Where the returns take two values, it is Wilson's interval of the share of the larger one; where they take more,
    the mean +- the quantile of Student's t with R - 1 degrees of freedom times the standard error. Where all are equal,
    their standard error of 0 says nothing about outcomes that have not occurred. Those have a probability of at most
    p = 1 - 0.025^(1/R), and the interval reaches from the return by p of the distance to either bound of the return;
    it is NaN if the bounds are unknown.

    Args:
        returns: (R,).
        bounds: Least and largest possible return, if known.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference; Hanley and Lippman-Hand
    1983, If nothing goes wrong, is everything all right?

    >>> [round(end, 3) for end in mean_interval([0.0] * 48 + [1.0] * 16)]
    [0.16, 0.368]
    >>> [round(end, 3) for end in mean_interval([1.0] * 64, (0.0, 1.0))]
    [0.944, 1.0]
    """
    sample = np.asarray(returns, dtype=np.float64)
    size, low, high, mean = len(sample), float(sample.min()), float(sample.max()), float(sample.mean())
    if low == high:
        if bounds is None:
            return math.nan, math.nan
        unseen = 1 - 0.025 ** (1 / size)
        return low - unseen * max(low - bounds[0], 0.0), low + unseen * max(bounds[1] - low, 0.0)
    num_high = int((sample == high).sum())
    if num_high + int((sample == low).sum()) == size:
        share, weight = num_high / size, _Z**2 / size
        center = (share + weight / 2) / (1 + weight)
        half = _Z * math.sqrt(share * (1 - share) / size + weight / (4 * size)) / (1 + weight)
        return low + (high - low) * (center - half), low + (high - low) * (center + half)
    half = _t_quantile(size - 1) * float(sample.std(ddof=1)) / math.sqrt(size)
    return mean - half, mean + half


def _t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, by its expansion around the normal one (Fisher and Cornish 1960).

    The error is below 0.001 from 7 degrees of freedom on; with fewer, the exact quantiles are listed.
    """
    few = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469)
    if degrees <= len(few):
        return few[degrees - 1]
    z, n = _Z, degrees
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
