"""Environments with a known optimum that a sound agent reaches in seconds, for debugging agents.

``PROBES`` is ordered by difficulty: each probe requires one more ability, and ``textgym.testing.probe_agent`` names the
first that an agent fails. Every probe has an id (``gym.make("ProbeCopy-v0")``). ``solve`` computes values, policies and
policy gradients of these and of any other small text MDP exactly.
"""

from textgym.probes.exact import Solution, solve
from textgym.probes.ladder import PROBES, Probe, probe_keywords
from textgym.probes.page import probe_page

__all__ = ["PROBES", "Probe", "Solution", "probe_keywords", "probe_page", "solve"]
