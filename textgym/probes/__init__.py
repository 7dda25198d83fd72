"""Environments that test an agent: the optimum is known, chance is far from it, and a sound agent is there in seconds.

``PROBES`` is a ladder: each rung takes one thing more to climb, and ``textgym.testing.probe`` names the first that an
agent fails. Every probe is also an id (``gym.make("ProbeCopy-v0")``). ``solve`` computes values, policies and policy
gradients of these, and of any other small text MDP, exactly.
"""

from textgym.probes.exact import Solution, solve
from textgym.probes.keywords import probe_keywords
from textgym.probes.ladder import PROBES, Probe
from textgym.probes.page import probe_page

__all__ = ["PROBES", "Probe", "Solution", "probe_keywords", "probe_page", "solve"]
