"""The contracts as functions: what a scorer or an environment of your own has to pass before anything is trained.

``probe`` is the same for agents: it says on which of the probe environments one fails first.
"""

from textgym.testing.envs import check_text_env
from textgym.testing.probe import Ladder, Rung, probe
from textgym.testing.scorers import check_scorer

__all__ = ["Ladder", "Rung", "check_scorer", "check_text_env", "probe"]
