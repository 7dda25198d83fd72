"""How the token budget and Gymnasium's ``TimeLimit`` are kept to one limit.

A ``TimeLimit`` shorter than the budget would cut each text before it is scored, and so remove the reward.
``gym.make(id, max_episode_steps=n)`` puts that wrapper around the finished environment and tells the environment
nothing, so both functions look at who is calling.
"""

import copy
import sys
from types import FrameType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

__all__ = ["make_time_limit", "settle_time_limits", "spec_with_budget"]


def make_time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return ``max_episode_steps`` of the ``gym.make`` call that is constructing ``env``; None without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_locals.get("self") is env:
        frame = frame.f_back
    if frame is None or frame.f_code is not gym.make.__code__:
        return None
    limit: int | None = frame.f_locals.get("max_episode_steps")
    return getattr(frame.f_locals.get("env_spec"), "max_episode_steps", None) if limit is None else limit


def settle_time_limits(env: gym.Env[Any, Any], budget: int, *, whole_stack: bool) -> None:
    """Check the ``TimeLimit`` wrappers through which ``env`` is being reset, and switch off those equal to the budget.

    Such a wrapper would call a text that ends at its last token truncated, whatever ``time_limit`` says.

    Args:
        env: The environment, whose ``reset`` calls this.
        budget: Tokens.
        whole_stack: Whether to look beyond the first caller that is no wrapper of ``env``. Gymnasium's checker, a plain
            function that stands between wrappers in the first reset, is one.

    Raises:
        ValueError: If a wrapper's limit is shorter than the budget.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if caller is not env and not (isinstance(caller, gym.Wrapper) and caller.unwrapped is env):
            if not whole_stack:
                return
        elif isinstance(caller, gym.wrappers.TimeLimit):
            limit = caller._max_episode_steps
            if limit < budget:
                raise ValueError(
                    f"a TimeLimit of {limit} steps is around an environment whose budget is {budget} tokens: its texts "
                    f"would be cut before they are scored. Give max_new_tokens={limit} to the environment instead"
                )
            if limit == budget:
                _ = caller.spec  # is cached where there is one, and goes on telling the limit
                caller._max_episode_steps = sys.maxsize
        frame = frame.f_back


def spec_with_budget(spec: EnvSpec | None, budget: int) -> EnvSpec | None:
    """Return a copy of a spec with the budget as ``max_episode_steps``, where wrappers look for it."""
    if spec is None:
        return None
    copied = copy.copy(spec)
    copied.max_episode_steps = budget
    return copied
