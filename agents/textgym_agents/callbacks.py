"""Callbacks of ``learn``, and the schedule of those that act every k updates or tokens."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from textgym.errors import unknown_name
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes

__all__ = ["Callback", "Schedule", "Unit", "as_callbacks"]

Unit = Literal["updates", "tokens"]


class Callback:
    """Called by ``learn`` at fixed points of a training; override the hooks that are needed.

    The hooks receive the agent, with its policy, config, counters (``num_timesteps``, ``num_updates``), environment
    and ``episodes``. Calling its ``predict`` in a hook does not change the run.

    >>> class StopAtReturn(Callback):
    ...     def on_update_end(self, agent, metrics):
    ...         return metrics["rollout/ep_rew_mean"] < 0.9
    """

    def on_training_start(self, agent: Any) -> None:
        """Called when ``learn`` begins, after its arguments have been checked."""

    def on_rollout_end(self, agent: Any, episodes: Episodes) -> None:
        """Called before each update with the episodes just collected or, offline, drawn from the data."""

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> bool | None:
        """Called after each update with its metrics; returning False stops the training."""

    def on_update_complete(self, agent: Any, metrics: dict[str, float]) -> None:
        """Called once ``on_update_end`` of all callbacks has returned, to write metrics or save the agent.

        The metrics then hold what the other callbacks added, and the states of these are those after the update.
        """

    def on_training_end(self, agent: Any) -> None:
        """Called when ``learn`` ends, also by an exception or Ctrl-C, if ``on_training_start`` returned.

        A list of callbacks is called in reverse order; an exception in one does not prevent the others.
        """

    def get_state(self) -> dict[str, Any] | None:
        """Return what checkpoints have to hold to resume exactly, JSON-serialisable; by default None, for nothing."""
        return None

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state from ``get_state``, before ``on_training_start`` of the first ``learn`` of a loaded agent."""
        raise NotImplementedError(f"{type(self).__name__} returns a state and has no set_state")


class Schedule:
    """Whether something is due that is done every k updates or tokens.

    In updates it is due after each k-th; in tokens after the first update at or past each multiple of k.

    Args:
        every: k. None is never due.
        unit: Of ``every``.

    Attributes:
        position: Updates or tokens so far; None before the first training.

    Raises:
        ValueError: If ``every`` is less than 1, or ``unit`` is unknown.
        TypeError: If ``every`` is not an integer.
    """

    def __init__(self, every: int | None, unit: Unit = "updates") -> None:
        if unit not in get_args(Unit):
            raise unknown_name("unit", unit, get_args(Unit))
        self.every, self.unit = None if every is None else check_count("every", every), unit
        self.position: int | None = None

    def start(self, agent: Any) -> None:
        """Begin to count, if that has not been done."""
        if self.position is None:
            self.position = agent.num_timesteps if self.unit == "tokens" else 0

    def advance(self, agent: Any) -> bool:
        """Count an update and return whether it is due; call it once after each update."""
        assert self.position is not None, "call start in on_training_start"
        before = self.position
        self.position = agent.num_timesteps if self.unit == "tokens" else before + 1
        return self.every is not None and self.position // self.every > before // self.every

    def get_state(self) -> dict[str, Any]:
        """Return unit and position."""
        return {"unit": self.unit, "position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the position, if the unit is the same."""
        if state["unit"] == self.unit:
            self.position = state["position"]


_HOOKS = {
    name: list(inspect.signature(hook).parameters)[1:]
    for name, hook in vars(Callback).items()
    if name.startswith("on_")
}
"""Hook -> names of its arguments."""


class _Hooks(Callback):
    """Adapter for an object with hooks that is not a ``Callback``, or a function as ``on_update_end``."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.__dict__.update(hooks)


def as_callbacks(callback: Any) -> list[Callback]:
    """Return callbacks, in the order in which they are called.

    Args:
        callback: None, a ``Callback``, an object with at least one of its hooks, a function ``f(agent, metrics)``
            that is called after each update and stops the training by False, or a list or tuple of these.

    Raises:
        TypeError: If it is none of these, or a hook takes other arguments.

    >>> len(as_callbacks([print, Callback(), None]))
    2
    """
    if callback is None:
        return []
    if isinstance(callback, list | tuple):
        return [one for each in callback for one in as_callbacks(each)]
    if not isinstance(callback, type):
        hooks = {name: getattr(callback, name) for name in _HOOKS if callable(getattr(callback, name, None))}
        for name, hook in hooks.items():
            if not _takes(hook, _HOOKS[name]):
                raise TypeError(
                    f"{type(callback).__name__} must take its hook as {name}({', '.join(_HOOKS[name])}), got "
                    f"{inspect.signature(hook)}"
                )
        if isinstance(callback, Callback):
            return [callback]
        if hooks:
            return [_Hooks(**hooks)]
        if callable(callback) and _takes(callback, _HOOKS["on_update_end"]):
            return [_Hooks(on_update_end=callback)]
    raise TypeError(
        f"callback must be a function f(agent, metrics), an object with one of {', '.join(_HOOKS)}, or a list of "
        f"these, got {callback!r}"
    )


def _takes(function: Callable[..., Any], arguments: Sequence[str]) -> bool:
    """Return whether a function accepts these positional arguments; True if its signature is unknown."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True
