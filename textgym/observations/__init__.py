"""What the agent sees: the token window, or a dict of it and its lengths."""

from textgym.errors import unknown_name
from textgym.observations.base import Observation
from textgym.observations.tokens import TokenDict, TokenWindow

__all__ = ["Observation", "TokenDict", "TokenWindow", "as_observation"]

_BY_NAME: dict[str, type[TokenDict] | type[TokenWindow]] = {"tokens": TokenWindow, "dict": TokenDict}


def as_observation(spec: "str | Observation") -> Observation:
    """Turn the ``observation`` keyword into an object: ``"tokens"`` or ``"dict"`` by name, anything else as it is.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If the object does not fit the contract.
    """
    if isinstance(spec, str):
        if spec not in _BY_NAME:
            raise unknown_name("observation", spec, _BY_NAME)
        return _BY_NAME[spec]()
    if not callable(spec) or not callable(getattr(spec, "space", None)):
        raise TypeError(f"observation must be a name, or callable and have a method space; got {spec!r}")
    return spec
