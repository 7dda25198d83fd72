"""Environments that test an agent: the optimum is known, chance is far from it, and a sound agent is there in seconds.

``PROBES`` is a ladder: each rung takes one thing more to climb, and ``textgym.testing.probe`` names the first that an
agent fails. Every probe is also an id (``gym.make("ProbeCopy-v0")``).
"""

from textgym.tasks.probes.base import Probe
from textgym.tasks.probes.envs import probe_keywords
from textgym.tasks.probes.ladder import PROBES

__all__ = ["PROBES", "Probe", "probe_keywords"]
