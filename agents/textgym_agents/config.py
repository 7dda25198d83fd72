"""Settings: those of every agent, and the checks of all."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Self

from textgym.errors import unknown_name

__all__ = ["AgentConfig", "OfflineAgentConfig", "OnlineAgentConfig", "ReturnConfig", "check_count", "check_settings"]


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Settings of a run of any agent.

    Raises:
        TypeError: If there is no such setting, or it is of another type; True is no number.
        ValueError: If it is out of range.
    """

    micro_batch: int | None = None
    """Episodes per forward and backward, over which gradients accumulate; less takes less memory and gives the same
    gradient. None takes all at once."""
    learning_rate: float = 3e-4
    """Of AdamW, for the language model."""
    head_learning_rate: float = 3e-3
    """Of AdamW, for the value or Q head, which starts from nothing and has to keep up with the language model."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    seed: int = 0
    """Decides the prompts and the sampling, each derived from it on its own (see ``env_seed``)."""

    def __new__(cls, **settings: Any) -> Self:
        """Refuse unknown settings with the nearest known name, which a dataclass of itself does not tell."""
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                raise TypeError(f"{cls.__name__}: {unknown_name('setting', name, names)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_settings(
            self,
            micro_batch=(1, math.inf),
            learning_rate=(0, math.inf),
            head_learning_rate=(0, math.inf),
            max_grad_norm=(0, math.inf),
            seed=(0, math.inf),
        )


@dataclass(frozen=True, kw_only=True)
class ReturnConfig(AgentConfig):
    """Settings of the return, for the agents that learn from rewards step by step."""

    gamma: float = 1.0
    """Discount per token."""
    bootstrap_truncated: bool = False
    """Whether the value of the last state is added where the budget cut an episode off. Off, the budget's end counts
    as the text's end, which is right where the score of the cut text was already given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, gamma=(0, 1))


@dataclass(frozen=True, kw_only=True)
class OnlineAgentConfig(AgentConfig):
    """Settings of a run of any agent that writes the episodes it learns from."""

    num_episodes: int = 64
    """Episodes written per update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, num_episodes=(1, math.inf))


@dataclass(frozen=True, kw_only=True)
class OfflineAgentConfig(AgentConfig):
    """Settings of a run of any agent that learns from recorded episodes."""

    batch_size: int = 64
    """Episodes per gradient step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, batch_size=(1, math.inf))


def check_settings(config: Any, **ranges: tuple[float, float]) -> None:
    """Check that the fields of a dataclass are what their annotations say, and that some lie within (least, most).

    Numpy's numbers become Python's, which JSON can hold. What is neither a number, a bool nor a ``Literal`` is not
    checked.

    Raises:
        TypeError: At the first of another type; True is no number.
        ValueError: At the first out of its range or of its choices.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        object.__setattr__(config, field.name, _checked(field.name, getattr(config, field.name), hints[field.name]))
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_count(name: str, value: Any) -> int:
    """Return an argument that counts something, 1 or more.

    Raises:
        TypeError: If it is no integer, such as 2.5, True or "100".
        ValueError: If it is less than 1.

    >>> check_count("num_episodes", 2.5)
    Traceback (most recent call last):
        ...
    TypeError: num_episodes must be an integer, got 2.5
    """
    count: int = _checked(name, value, int)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return count


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return a value of the annotated type, Python's own number for numpy's."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(name, value, get_args(hint))
        return value
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return value
    or_none = " or None" if NoneType in kinds else ""
    if bool in kinds and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False{or_none}, got {value!r}")
    if int in kinds:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be an integer{or_none}, got {value!r}")
        return int(value)
    if float in kinds:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number{or_none}, got {value!r}")
        return value if isinstance(value, int) else float(value)
    return value
