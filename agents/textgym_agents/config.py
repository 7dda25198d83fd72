"""Hyper-parameters that several agents share, and the checks of all."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import Self

from textgym.errors import unknown_name

__all__ = [
    "ActorCriticConfig",
    "AgentConfig",
    "CriticConfig",
    "DiscountConfig",
    "OfflineAgentConfig",
    "OnlineAgentConfig",
    "Settings",
    "check_count",
    "check_settings",
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of dataclasses of settings.

    Raises:
        TypeError: If a setting is unknown.
    """

    def __new__(cls, **settings: Any) -> Self:
        """Refuse unknown settings and suggest the nearest known name, which a dataclass does not."""
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                raise TypeError(f"{cls.__name__}: {unknown_name('setting', name, names)}")
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class AgentConfig(Settings):
    """Hyper-parameters of every agent.

    Raises:
        TypeError: If a setting is unknown or of another type; True is not a number.
        ValueError: If a setting is out of range.
    """

    learning_rate: float = 3e-4
    """Learning rate of Adam for the language model."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """Whether the learning rates stay as they are or fall linearly to 0 over the tokens planned by ``learn``."""
    max_grad_norm: float = 1.0
    """The maximum value for the gradient clipping."""
    micro_batch: int | None = None
    """Episodes per forward and backward pass; gradients accumulate to those of the whole minibatch, in less memory.
    None takes the minibatch at once."""
    seed: int = 0
    """Seed of the sampling and, through ``env_seed``, of the environment."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            learning_rate=(0, math.inf),
            max_grad_norm=(0, math.inf),
            micro_batch=(1, math.inf),
            seed=(0, math.inf),
        )


@dataclass(frozen=True, kw_only=True)
class OnlineAgentConfig(AgentConfig):
    """Hyper-parameters of agents that collect their episodes."""

    num_episodes: int = 64
    """Episodes to collect per update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, num_episodes=(1, math.inf))


@dataclass(frozen=True, kw_only=True)
class OfflineAgentConfig(AgentConfig):
    """Hyper-parameters of agents that learn from recorded episodes."""

    batch_size: int = 64
    """Minibatch size, in episodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, batch_size=(1, math.inf))


@dataclass(frozen=True, kw_only=True)
class DiscountConfig(AgentConfig):
    """Hyper-parameter of agents that compute returns."""

    gamma: float = 1.0
    """Discount factor, per token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, gamma=(0, 1))


@dataclass(frozen=True, kw_only=True)
class CriticConfig(AgentConfig):
    """Hyper-parameters of agents with a value or Q head.

    An agent whose config inherits from this class trains the heads of its policy; without it they are not in the
    optimizer. ``update`` has to observe ``bootstrap_truncated``: if it is True, pass ``last_values`` to the functions
    of ``returns``, from ``LMPolicy.last_values(episodes)``, or from ``QPolicy.evaluate(episodes, with_truncated=True)``
    by ``Episodes.spread_values``; otherwise None.
    """

    head_learning_rate: float = 3e-3
    """Learning rate of Adam for the value or Q head, which starts from zero."""
    bootstrap_truncated: bool = False
    """Whether to bootstrap with the value of the last state where an episode was truncated. Off, the time limit counts
    as the end of the episode, which is right where the score of the cut text was given as a reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, head_learning_rate=(0, math.inf))


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(CriticConfig):
    """Hyper-parameters of agents that learn V(s) of their policy."""

    vf_coef: float = 0.5
    """Value function coefficient for the loss calculation. It matters only to a V trained by gradient, such as
    ``value_function="linear"``, not to one that is fitted to past episodes, such as ``"prefix"``."""
    value_buffer_size: int = 4_096
    """Past episodes that a fitted V is fitted on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, vf_coef=(0, math.inf), value_buffer_size=(1, math.inf))


def check_settings(config: Any, **ranges: tuple[float, float]) -> None:
    """Check the types of a dataclass's fields against their annotations, and the ranges (least, most) of some.

    Only numbers, bools and ``Literal`` are checked. NumPy numbers become Python numbers, which JSON can hold.

    Raises:
        TypeError: If a field is of another type; True is not a number.
        ValueError: If a field is out of its range or not one of its choices.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        object.__setattr__(config, field.name, _checked(field.name, getattr(config, field.name), hints[field.name]))
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """Return an integer argument of at least ``least``.

    Raises:
        TypeError: If it is not an integer, such as 2.5, True or "100".
        ValueError: If it is less.

    >>> check_count("num_episodes", 2.5)
    Traceback (most recent call last):
        ...
    TypeError: num_episodes must be an integer, got 2.5
    """
    count: int = _checked(name, value, int)
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return count


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return a value of the annotated type, NumPy numbers as Python numbers."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(name, value, get_args(hint))
        return value
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
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
