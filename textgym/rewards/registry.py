"""How a reward is given: by name, or as an object."""

from collections.abc import Callable
from typing import Any

from textgym.errors import unknown_name
from textgym.rewards.base import Reward
from textgym.rewards.per_token import PerToken
from textgym.rewards.per_turn import PerTurn
from textgym.rewards.potential import Potential
from textgym.rewards.redistributed import Redistributed
from textgym.rewards.terminal import Terminal
from textgym.scorers import Scorer

__all__ = ["as_reward"]

_REWARDS: dict[str, Callable[[], Reward]] = {
    "per_token": PerToken,
    "per_turn": PerTurn,
    "potential": Potential,
    "redistributed": Redistributed,
    "terminal": Terminal,
}


def as_reward(spec: Any, scorer: Scorer | None = None) -> Reward:
    """Return the reward that ``spec`` describes: a name or a :class:`Reward` object.

    The names are ``"terminal"``, ``"per_token"``, ``"per_turn"``, ``"potential"`` and ``"redistributed"`` (evenly).

    Args:
        spec: The name or object.
        scorer: The environment's, for a reward that needs it.

    Raises:
        ValueError: If a name is unknown, or the reward cannot be had from this scorer.
        TypeError: If ``spec`` is no reward.
    """
    if isinstance(spec, str):
        if spec not in _REWARDS:
            raise unknown_name("reward", spec, _REWARDS, also="A Reward object is accepted too.")
        return as_reward(_REWARDS[spec](), scorer)
    if isinstance(spec, type):
        raise TypeError(f"reward is the class {spec.__name__}; give an object of it, such as {spec.__name__}()")
    if not callable(spec) or not callable(getattr(spec, "start", None)):
        raise TypeError(
            f"reward is {spec!r} of type {type(spec).__name__}; expected a name ({', '.join(sorted(_REWARDS))}) "
            "or an object with start(score, batch) and __call__(score, batch, final_scores, memory)"
        )
    bind = getattr(spec, "for_scorer", None)
    reward: Reward = spec if bind is None or scorer is None else bind(scorer)
    return reward
