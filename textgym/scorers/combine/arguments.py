"""What the constructors of combined scorers accept: parts by name, and numbers."""

from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Real
from typing import Any

from textgym.scorers.base import Scorer, scorer_name
from textgym.scorers.registry import as_scorer

__all__ = ["as_count", "as_finite", "as_number_or_nan", "as_pairs", "as_part", "as_part_name", "as_parts"]


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


def as_part(spec: Any, name: Any) -> Scorer:
    """Return a part's scorer; what :func:`as_scorer` says of one that is none begins with the part's name."""
    try:
        return as_scorer(spec)
    except TypeError as error:
        raise TypeError(f"the part {name!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"the part {name!r}: {error}") from error


def as_parts(parts: Any, owner: str) -> dict[str, Scorer]:
    """Return the scorers of a mapping from names, or of a list of scorers, which keep their own names.

    Args:
        parts: The mapping or the list.
        owner: What they are the parts of (``"Product"``), for the message.

    Raises:
        ValueError: If there are none, a name is no name or that of no scorer, or two have the same.
        TypeError: If this is one string, whose letters are meant for nothing, or a part is no scorer.
    """
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        raise TypeError(f"parts is {parts!r}, expected {{name: scorer}} or a list of scorers")
    if isinstance(parts, Mapping):
        named = {as_part_name(name): _unweighted(scorer, name, owner) for name, scorer in parts.items()}
    else:
        named = {}
        for i, part in enumerate(parts):
            scorer = _unweighted(part, i, owner)
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
        TypeError: If this is no mapping, or a value is not a pair of a scorer and a number.
    """
    if not isinstance(parts, Mapping):
        raise TypeError(f"parts is {parts!r}, expected {{name: (scorer, {what})}}")
    if not parts:
        raise ValueError("at least one part is needed, got none")
    pairs: dict[str, tuple[Scorer, float]] = {}
    for name, pair in parts.items():
        as_part_name(name)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"the part {name!r} is {pair!r}, expected (scorer, {what})")
        if isinstance(pair[0], Real) and not isinstance(pair[1], Real):
            raise TypeError(f"the part {name!r} is {pair!r}, expected (scorer, {what}); the two seem swapped")
        pairs[name] = (as_part(pair[0], name), as_finite(pair[1], f"the {what} of {name!r}"))
    return pairs


def _unweighted(spec: Any, name: Any, owner: str) -> Scorer:
    """Return a part's scorer where no weight belongs."""
    if isinstance(spec, Real):
        raise TypeError(f"the part {name!r}: scorer is {spec!r}, a number, but {owner} takes no weights")
    if isinstance(spec, tuple | list):
        raise TypeError(f"the part {name!r} is {spec!r}, expected a scorer alone: {owner} takes no weights")
    return as_part(spec, name)
