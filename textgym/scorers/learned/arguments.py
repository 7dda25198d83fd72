"""What the constructors of learned scorers accept as their configuration."""

from typing import Any, TypeVar

__all__ = ["as_config"]

T = TypeVar("T")


def as_config(value: Any, kind: type[T], what: str) -> T:
    """Return a configuration: the given one, or where None is given, the default one.

    Args:
        value: What came.
        kind: The class that it has to be of.
        what: The name of the argument, for the message.

    Raises:
        TypeError: If it is of another class.
    """
    if value is None:
        return kind()
    if not isinstance(value, kind):
        shown = (
            f"the class {value.__name__}"
            if isinstance(value, type)
            else f"{value!r:.80} of type {type(value).__name__}"
        )
        raise TypeError(f"{what} is {shown}; expected {kind.__name__}(...)")
    return value
