"""The contracts as functions: what a scorer or an environment of your own has to pass before anything is trained."""

from textgym.testing.envs import check_text_env
from textgym.testing.scorers import check_scorer

__all__ = ["check_scorer", "check_text_env"]
