"""``as_reward``: rewards by name, as objects or as plain functions."""

import inspect
from collections.abc import Callable
from typing import Any

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.rewards.base import Reward, RewardState, ScoreFunction, Terminal
from textgym.rewards.dense import PerToken, PerTurn, Potential
from textgym.rewards.redistributed import Redistributed
from textgym.scorers import Scorer
from textgym.scorers.base import FloatArray

__all__ = ["as_reward"]

_REWARDS: dict[str, Callable[[], Reward]] = {
    "per_token": PerToken,
    "per_turn": PerTurn,
    "potential": Potential,
    "redistributed": Redistributed,
    "terminal": Terminal,
}
_HOOKS = [name for name in vars(Reward) if not name.startswith("_")]


def as_reward(spec: Any, scorer: Scorer | None = None) -> Reward:
    """Return ``spec`` as a reward.

    Args:
        spec: A name (``"terminal"``, ``"per_token"``, ``"per_turn"``, ``"potential"``, ``"redistributed"``), a
            ``Reward``, or a function ``f(score, batch, final_scores, state) -> (rewards, state)``.
        scorer: The environment's scorer, for a reward that needs it.

    Raises:
        ValueError: If the name is unknown, or the reward does not support the scorer.
        TypeError: If ``spec`` is not a reward.
    """
    if isinstance(spec, str):
        if spec not in _REWARDS:
            raise unknown_name("reward", spec, _REWARDS, also="A Reward object is accepted too.")
        return as_reward(_REWARDS[spec](), scorer)
    if isinstance(spec, type):
        raise TypeError(f"reward is the class {spec.__name__}; give an object of it, such as {spec.__name__}()")
    reward = spec if isinstance(spec, Reward) else _plain_reward(spec)
    return reward if scorer is None else reward.for_scorer(scorer)


class _PlainReward(Reward):
    """A function, or an object of another class, that is called as a reward."""

    def __init__(self, function: Callable[..., tuple[FloatArray, RewardState]]) -> None:
        self.function = function

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        return self.function(score, batch, final_scores, state)


def _plain_reward(spec: Any) -> Reward:
    expected = (
        f"expected a name ({', '.join(sorted(_REWARDS))}), a textgym.rewards.Reward, or a function "
        "f(score, batch, final_scores, state) -> (rewards, state)"
    )
    try:
        inspect.signature(spec).bind(None, None, None, None)
    except (TypeError, ValueError):
        raise TypeError(f"reward is {spec!r} of type {type(spec).__name__}; {expected}") from None
    for hook in _HOOKS:
        if hasattr(spec, hook):
            raise TypeError(f"reward is a {type(spec).__name__} with {hook}: inherit from textgym.rewards.Reward")
    return _PlainReward(spec)
