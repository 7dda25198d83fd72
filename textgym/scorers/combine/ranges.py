"""The range of a combination, from the ranges of its parts."""

from collections.abc import Callable, Iterable

from textgym.scorers.base import Range, Scorer

__all__ = ["hull", "of_some", "product", "ranges_of", "scaled", "total"]


def ranges_of(scorers: Iterable[Scorer]) -> list[Range] | None:
    """Return the ranges of all, None where one is not known."""
    limits = [scorer.score_range for scorer in scorers]
    known = [pair for pair in limits if pair is not None]
    return known if len(known) == len(limits) else None


def hull(limits: Iterable[Range]) -> Range:
    """Return the smallest range that holds all of them."""
    lows, highs = zip(*limits, strict=True)
    return min(lows), max(highs)


def scaled(limits: Range, factor: float) -> Range:
    """Return the range of ``factor * score``."""
    return product(limits, (factor, factor))


def total(first: Range, second: Range) -> Range:
    """Return the range of a sum."""
    return first[0] + second[0], first[1] + second[1]


def product(first: Range, second: Range) -> Range:
    """Return the range of a product."""
    corners = [a * b if a and b else 0.0 for a in first for b in second]  # 0 * inf is 0 here
    return min(corners), max(corners)


def of_some(limits: Iterable[Range], combine: Callable[[Range, Range], Range]) -> Range:
    """Return the range of a combination of those that apply: of all of them, of some, or of a single one.

    >>> of_some([(0.5, 1.0), (2.0, 3.0)], total)
    (0.5, 4.0)
    """
    first, *others = limits
    reached = first
    for other in others:
        reached = hull([reached, other, combine(reached, other)])
    return reached
