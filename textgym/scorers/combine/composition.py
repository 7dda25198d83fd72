"""Several scores as one: sum, product, minimum, maximum, gate and sequence."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_finite
from textgym.scorers.base import FloatArray, Range, Scorer, Scores, scorer_name
from textgym.scorers.combine.base import Composite, InnerCalls, hull, named_scorer, product
from textgym.scorers.registry import as_scorer

__all__ = ["Gate", "Maximum", "Minimum", "Product", "Sequential", "WeightedSum", "weighted_sum"]


class WeightedSum(Composite):
    """The sum of ``weight * score`` over the scorers that apply; ``{name: weight}`` builds one.

    NaN where none applies, as TRL sums reward functions; a scorer of weight 0 is only reported, and does not count as
    one that applies unless all weights are 0. Range: that of the sums of some or all scores. Components are
    unweighted. Deterministic and incremental if all scorers are.

    Args:
        scorers: ``{name: (scorer, weight)}``; a scorer is anything that ``textgym.scorers.as_scorer`` accepts.

    Raises:
        ValueError: If there are no scorers, a weight is not finite, or a name is empty or contains a ``/``.
        TypeError: If ``scorers`` is not a mapping, a value not a pair, or a weight not a number.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = WeightedSum({"length": (LengthBand(2, 3), 1.0), "cats": (Keywords(["cat"]), 0.5)})
    >>> scorer(TextBatch.from_texts(["cat", "a"]))
    array([1.5, 0.5])
    """

    pointwise = True

    def __init__(self, scorers: Mapping[str, tuple[Any, float]]) -> None:
        self.named_scorers, self.weights = _with_numbers(scorers, "weight")

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the weighted sums."""
        summed = np.zeros(len(batch))
        applies = np.zeros(len(batch), dtype=np.bool_)
        are_all_zero = not any(self.weights.values())
        for weight, scores in zip(self.weights.values(), totals, strict=True):
            present = ~np.isnan(scores)
            summed += np.where(present, weight * scores, 0.0)
            applies |= present & (weight != 0 or are_all_zero)
        return summed if applies.all() else np.where(applies, summed, np.nan)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of an inner scorer is unknown."""
        ranges = _ranges(self.scorers)
        if ranges is None:
            return None
        weighted = [
            product(limits, (weight, weight)) for limits, weight in zip(ranges, self.weights.values(), strict=True)
        ]
        return _range_of_some(weighted, _total)


def weighted_sum(spec: Mapping[Any, Any]) -> WeightedSum:
    """Return the scorer that ``textgym.scorers.as_scorer`` builds for ``{name: weight}``.

    Raises:
        ValueError: If two scorers have the same name, and as ``WeightedSum`` does.
        TypeError: If a weight is a scorer.
    """
    scorers: dict[str, tuple[Any, Any]] = {}
    for key, value in spec.items():
        if callable(value):
            raise TypeError(
                f"the weight of {key!r} is {value!r}; to name a scorer, write {{{key!r}: (scorer, weight)}}"
            )
        inner, weight = value if isinstance(value, tuple | list) and len(value) == 2 else (key, value)
        scorer: Scorer = named_scorer(inner, key) if isinstance(key, str) else as_scorer(inner)
        name = key if isinstance(key, str) else scorer_name(scorer)
        if name in scorers:
            raise ValueError(f"two scorers are named {name!r}; name them with {{name: (scorer, weight)}}")
        scorers[name] = (scorer, weight)
    return WeightedSum(scorers)


class _Unweighted(Composite):
    """Base class of the pointwise compositions without weights."""

    pointwise = True

    def __init__(self, scorers: Any) -> None:
        self.named_scorers = _without_numbers(scorers, type(self).__name__)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of an inner scorer is unknown."""
        ranges = _ranges(self.scorers)
        return None if ranges is None else hull(ranges)


class Product(_Unweighted):
    """The product of the scores that apply; for scores in [0, 1], all have to be high at once.

    NaN where none applies. Range: that of the products of some or all scores. Deterministic and incremental if all
    scorers are. Two negative scores have a positive product: shift such scores with ``textgym.scorers.Affine``
    first.

    Args:
        scorers: ``{name: scorer}``, or a list of scorers under their own names.

    Raises:
        ValueError: If there are no scorers, a name is empty or contains a ``/``, or two are equal.
        TypeError: If ``scorers`` is neither a mapping nor a list, or an element is not a scorer.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = Product([LengthBand(2, 3), Keywords(["cat", "dog"])])
    >>> scorer(TextBatch.from_texts(["cat", "ox", "cat cat"]))
    array([0.5, 0. , 0. ])
    """

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the products."""
        result = np.ones(len(batch))
        applies = np.zeros(len(batch), dtype=np.bool_)
        for scores in totals:
            present = ~np.isnan(scores)
            result *= np.where(present, scores, 1.0)
            applies |= present
        return result if applies.all() else np.where(applies, result, np.nan)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of an inner scorer is unknown."""
        ranges = _ranges(self.scorers)
        return None if ranges is None else _range_of_some(ranges, product)


class Minimum(_Unweighted):
    """The lowest of the scores that apply.

    NaN where none applies. Range: from the lowest to the highest score of any scorer. Deterministic and incremental if
    all scorers are. Unlike in a sum, one score cannot compensate for another, which makes it harder to hack. Arguments
    and errors: as ``Product``.

    >>> from textgym.scorers import Keywords, LengthBand
    >>> scorer = Minimum({"length": LengthBand(4, 8), "animals": Keywords(["cat", "dog"])})
    >>> scorer(TextBatch.from_texts(["cat", "cat dog", "a"]))
    array([0.5, 1. , 0. ])
    """

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the minima."""
        lowest: FloatArray = np.fmin.reduce(totals)
        return lowest


class Maximum(_Unweighted):
    """The highest of the scores that apply; as easy to hack as the easiest of them.

    NaN where none applies. Range: from the lowest to the highest score of any scorer. Deterministic and incremental if
    all scorers are. Arguments and errors: as ``Product``.

    >>> from textgym.scorers import Keywords
    >>> scorer = Maximum({"cats": Keywords(["cat", "kitten"]), "dogs": Keywords(["dog", "puppy"])})
    >>> scorer(TextBatch.from_texts(["a cat", "a dog and a puppy", "an ox"]))
    array([0.5, 1. , 0. ])
    """

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the maxima."""
        highest: FloatArray = np.fmax.reduce(totals)
        return highest


class Gate(Composite):
    """The score of texts that meet a condition; other texts get ``otherwise`` and are not scored.

    Formula: ``score if condition >= at_least else otherwise``. An episode to which the condition does not apply (NaN)
    passes. The scorer is called only on the episodes that pass, so a cheap condition saves calls of an expensive judge.
    Components are ``"condition"`` and ``"score"``, NaN where it was not called. Range: that of the scorer and
    ``otherwise``. Deterministic if both scorers are; not incremental. If the scorer can fall below ``otherwise``,
    failing the condition can be rewarded.

    Args:
        condition: Anything that ``textgym.scorers.as_scorer`` accepts.
        at_least: The lowest score of the condition that passes.
        scorer: The scorer of passing texts.
        otherwise: The score of other texts; NaN: the gate does not apply to them.

    Raises:
        ValueError: If ``at_least`` is not finite, or ``otherwise`` infinite.
        TypeError: If one is not a number.

    >>> from textgym.scorers import Keywords
    >>> scorer = Gate("length_band", 0.5, Keywords(["cat"]), otherwise=-1.0)
    >>> scorer(TextBatch.from_texts(["a cat", "an old dog", "cat"]))
    array([ 1.,  0., -1.])
    """

    def __init__(self, condition: Any, at_least: float, scorer: Any, otherwise: float = 0.0) -> None:
        is_nan = isinstance(otherwise, Real) and otherwise != otherwise
        self.at_least = as_finite(at_least, "at_least")
        self.otherwise = float("nan") if is_nan else as_finite(otherwise, "otherwise")
        self.named_scorers = {
            "condition": named_scorer(condition, "condition"),
            "score": named_scorer(scorer, "score"),
        }

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a called scorer failed has no total."""
        calls = InnerCalls(batch)
        condition = calls.score("condition", self.named_scorers["condition"])
        passes = np.isnan(condition) | (condition >= self.at_least)
        passes &= ~calls.failed
        score = calls.score("score", self.named_scorers["score"], passes)
        return calls.scores(np.where(passes, score, self.otherwise))

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of the scorer is unknown."""
        limits = self.named_scorers["score"].score_range
        if limits is None or np.isnan(self.otherwise):
            return limits
        return hull([limits, (self.otherwise, self.otherwise)])


class Sequential(Composite):
    """The fraction of steps passed before the first that is not, as in compile, then test, then lint.

    Formula: ``passed / steps``, where a step passes if its score is at least its threshold. Later steps are not called
    for a text that fails one; their components are NaN. A step that does not apply is skipped and not counted; NaN
    where none applies. Range: [0, 1]. Deterministic if all steps are; not incremental. To grade the last step, such as
    the fraction of passed tests, put it behind a gate: ``Gate(Sequential({...}), 1.0, tests)``.

    Args:
        scorers: ``{name: (scorer, threshold)}`` in order.

    Raises:
        ValueError: If there are no steps, a threshold is not finite, or a name is empty or contains a ``/``.
        TypeError: If ``scorers`` is not a mapping, a value not a pair, or a threshold not a number.

    >>> from textgym.scorers import Keywords
    >>> scorer = Sequential({"long enough": ("length_band", 1.0), "cat": (Keywords(["cat"]), 1.0)})
    >>> scorer(TextBatch.from_texts(["the old cat", "the old dog", "cat"]))
    array([1. , 0.5, 0. ])
    """

    score_range = (0.0, 1.0)

    def __init__(self, scorers: Mapping[str, tuple[Any, float]]) -> None:
        self.named_scorers, self.thresholds = _with_numbers(scorers, "threshold")

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a called step failed has no total."""
        calls = InnerCalls(batch)
        running = np.ones(len(batch), dtype=np.bool_)
        passed = np.zeros(len(batch))
        skipped = np.zeros(len(batch))
        for name, scorer in self.named_scorers.items():
            score = calls.score(name, scorer, running)
            skips = running & np.isnan(score)
            passes = score >= self.thresholds[name]
            passed += passes
            skipped += skips
            running = (passes | skips) & ~calls.failed
        steps = len(self.named_scorers) - skipped
        return calls.scores(np.where(steps > 0, passed / np.maximum(steps, 1), np.nan))


# Arguments


def _without_numbers(scorers: Any, owner: str) -> dict[str, Scorer]:
    """Return the scorers of ``{name: scorer}``, or of a list of scorers, which keep their own names."""
    if isinstance(scorers, str) or not isinstance(scorers, Iterable):
        raise TypeError(f"scorers is {scorers!r}, expected {{name: scorer}} or a list of scorers")
    if isinstance(scorers, Mapping):
        named = {_checked_name(name): _unweighted(scorer, name, owner) for name, scorer in scorers.items()}
    else:
        named = {}
        for i, spec in enumerate(scorers):
            scorer = _unweighted(spec, i, owner)
            name = _checked_name(scorer_name(scorer))
            if name in named:
                raise ValueError(f"two scorers are named {name!r}; name them with {{name: scorer}}")
            named[name] = scorer
    if not named:
        raise ValueError("expected at least one scorer, got none")
    return named


def _with_numbers(scorers: Any, what: str) -> tuple[dict[str, Scorer], dict[str, float]]:
    """Return the scorers and the numbers of ``{name: (scorer, number)}``; a pair may be a list, as JSON gives it."""
    if not isinstance(scorers, Mapping):
        raise TypeError(f"scorers is {scorers!r}, expected {{name: (scorer, {what})}}")
    if not scorers:
        raise ValueError("expected at least one scorer, got none")
    named: dict[str, Scorer] = {}
    numbers: dict[str, float] = {}
    for name, pair in scorers.items():
        _checked_name(name)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"component {name!r} is {pair!r}, expected (scorer, {what})")
        if isinstance(pair[0], Real) and not isinstance(pair[1], Real):
            raise TypeError(f"component {name!r} is {pair!r}, expected (scorer, {what}); the two seem swapped")
        named[name] = named_scorer(pair[0], name)
        numbers[name] = as_finite(pair[1], f"the {what} of {name!r}")
    return named, numbers


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"{name!r} cannot name a component; expected a non-empty string without '/'")
    return name


def _unweighted(spec: Any, name: Any, owner: str) -> Scorer:
    if isinstance(spec, Real):
        raise TypeError(f"component {name!r}: scorer is {spec!r}, a number, but {owner} takes no weights")
    if isinstance(spec, tuple | list):
        raise TypeError(f"component {name!r} is {spec!r}, expected a scorer alone: {owner} takes no weights")
    return named_scorer(spec, name)


# Ranges


def _ranges(scorers: Iterable[Scorer]) -> list[Range] | None:
    """Return the ranges of all scorers, None if one is unknown."""
    ranges = [scorer.score_range for scorer in scorers]
    known = [limits for limits in ranges if limits is not None]
    return known if len(known) == len(ranges) else None


def _total(first: Range, second: Range) -> Range:
    return first[0] + second[0], first[1] + second[1]


def _range_of_some(ranges: Iterable[Range], combine: Callable[[Range, Range], Range]) -> Range:
    """Return the range of a combination of any non-empty subset, because some scorers may not apply."""
    first, *others = ranges
    reached = first
    for other in others:
        reached = hull([reached, other, combine(reached, other)])
    return reached
