"""What a trained model says a text is worth: reward models, judges, preferences."""

from textgym.scorers.learned.judge import Judge, JudgeUsage
from textgym.scorers.learned.judge_config import JudgeConfig
from textgym.scorers.learned.preferences import BradleyTerry
from textgym.scorers.learned.preferences_pairs import PreferencePair, read_pairs
from textgym.scorers.learned.preferences_settings import PreferenceReport, PreferenceSettings
from textgym.scorers.learned.reward_model import RewardModel, RewardModelConfig

__all__ = [
    "BradleyTerry",
    "Judge",
    "JudgeConfig",
    "JudgeUsage",
    "PreferencePair",
    "PreferenceReport",
    "PreferenceSettings",
    "RewardModel",
    "RewardModelConfig",
    "read_pairs",
]
