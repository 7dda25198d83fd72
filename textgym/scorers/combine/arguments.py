"""What the constructors of combined scorers accept: parts by name, and numbers."""

from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Real
from typing import Any

from textgym.scorers.base import Scorer, scorer_name
from textgym.scorers.registry import as_scorer

__all__ = ["as_count", "as_finite", "as_number_or_nan", "as_pairs", "as_part_name", "as_parts"]


def as_finite(value: Any, what: str) -> float:
    """Return a number as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what} is {value!r}, expected a number")
    if not isfinite(value):
        raise ValueError(f"{what} is {value!r}, expected a finite number")
    return float(value)


def as_number_or_nan(value: Any, what: str) -> float:
    """Return a number or NaN as a float; raise as :func:`as_finite` does for anything else."""
    return float("nan") if isinstance(value, Real) and value != value else as_finite(value, what)


def as_count(value: Any, what: str, least: int = 1) -> int:
    """Return a whole number.

    Raises:
        ValueError: If it is not one, or below ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} is {value!r}, expected a whole number from {least} on")
    return value


def as_part_name(name: Any) -> str:
    """Return the name of a part.

    Raises:
        ValueError: If it is no non-empty string, or has a ``/`` in it.
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"{name!r} cannot name a part: a non-empty string without '/' is expected")
    return name


def as_parts(parts: Any) -> dict[str, Scorer]:
    """Return the scorers of a mapping from names, or of a list of scorers, which keep their own names.

    Raises:
        ValueError: If there are none, a name is no name, or two have the same.
        TypeError: If this is one string, whose letters are meant for nothing.
    """
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        raise TypeError(f"parts is {parts!r}, expected {{name: scorer}} or a list of scorers")
    if isinstance(parts, Mapping):
        named = {as_part_name(name): as_scorer(scorer) for name, scorer in parts.items()}
    else:
        named = {}
        for scorer in map(as_scorer, parts):
            name = as_part_name(scorer_name(scorer))
            if name in named:
                raise ValueError(f"two scorers are named {name!r}; name them with {{name: scorer}}")
            named[name] = scorer
    if not named:
        raise ValueError("at least one part is needed, got none")
    return named


def as_pairs(parts: Mapping[str, tuple[Any, float]], what: str) -> dict[str, tuple[Scorer, float]]:
    """Return the parts of ``{name: (scorer, number)}``.

    Args:
        parts: The pairs by name; a pair may be a list, as JSON gives it.
        what: What the numbers are (``"weight"``), for the message.

    Raises:
        ValueError: If there are none, a name is no name, or a number is not finite.
        TypeError: If a value is not a pair, or a number is not one.
    """
    if not parts:
        raise ValueError("at least one part is needed, got none")
    pairs: dict[str, tuple[Scorer, float]] = {}
    for name, pair in parts.items():
        as_part_name(name)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"the part {name!r} is {pair!r}, expected (scorer, {what})")
        pairs[name] = (as_scorer(pair[0]), as_finite(pair[1], f"the {what} of {name!r}"))
    return pairs
