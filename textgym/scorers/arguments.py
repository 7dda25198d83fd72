"""Checks of numbers and configurations given to the constructors of scorers."""

from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeVar

__all__ = ["as_config", "as_count", "as_finite"]

T = TypeVar("T")


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


def as_count(value: Any, what: str, least: int = 1) -> int:
    """Return an integer.

    Raises:
        ValueError: If it is not an integer of at least ``least``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} is {value!r}, expected an integer >= {least}")
    return int(value)


def as_config(value: Any, kind: type[T], what: str) -> T:
    """Return a configuration object, the default one for None.

    Raises:
        TypeError: If it is of another class.
    """
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {value!r:.120} of type {type(value).__name__}; expected {kind.__name__}(...)")
    return value
