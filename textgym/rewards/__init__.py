"""How the scores of texts become the rewards of steps."""

from textgym.rewards.base import Reward, RewardState, ScoreFunction
from textgym.rewards.kl import KL_ESTIMATORS, AdaptiveCoefficient, Reference, kl_estimate, kl_penalty
from textgym.rewards.per_token import PerToken
from textgym.rewards.per_turn import PerTurn
from textgym.rewards.potential import Potential
from textgym.rewards.redistributed import Redistributed, discounted, leave_one_out, uniform
from textgym.rewards.registry import as_reward
from textgym.rewards.terminal import Terminal

__all__ = [
    "KL_ESTIMATORS",
    "AdaptiveCoefficient",
    "PerToken",
    "PerTurn",
    "Potential",
    "Redistributed",
    "Reference",
    "Reward",
    "RewardState",
    "ScoreFunction",
    "Terminal",
    "as_reward",
    "discounted",
    "kl_estimate",
    "kl_penalty",
    "leave_one_out",
    "uniform",
]
