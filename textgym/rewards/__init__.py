"""Rewards: how the scores of texts become the rewards of steps."""

from textgym.rewards.base import Reward, RewardState, ScoreFunction, Terminal, checked_rewards, checked_token_rewards
from textgym.rewards.dense import PerToken, PerTurn, Potential
from textgym.rewards.kl import KL_ESTIMATORS, AdaptiveCoefficient, Reference, kl_estimate, kl_penalty
from textgym.rewards.redistributed import Redistributed, discounted, leave_one_out, uniform
from textgym.rewards.resolve import as_reward

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
    "checked_rewards",
    "checked_token_rewards",
    "discounted",
    "kl_estimate",
    "kl_penalty",
    "leave_one_out",
    "uniform",
]
