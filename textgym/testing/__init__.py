"""The contracts as functions: what a scorer or an environment of your own has to pass before anything is trained.

``probe`` is the same for agents: it says on which of the probe environments one fails first. ``probe_hacks`` says which
scorers fall for texts that nobody wants to read.
"""

from textgym.testing.envs import check_text_env
from textgym.testing.hacking import HackTable, degenerate_texts, probe_hacks
from textgym.testing.probe import Ladder, Rung, probe
from textgym.testing.scorers import Check, ScorerReport, check_scorer

__all__ = [
    "Check",
    "HackTable",
    "Ladder",
    "Rung",
    "ScorerReport",
    "check_scorer",
    "check_text_env",
    "degenerate_texts",
    "probe",
    "probe_hacks",
]
