"""Contract tests for scorers, tasks and environments, and tests for agents and against reward hacking.

``check_scorer``, ``check_task`` and ``check_text_env`` raise ``AssertionError`` where an implementation breaks its
contract. ``probe_agent`` trains an agent on the probe environments and reports the first that it fails. ``probe_hacks``
reports the degenerate texts that a scorer rewards.
"""

from textgym.testing.agents import ProbeReport, ProbeResult, probe_agent
from textgym.testing.envs import check_text_env
from textgym.testing.fixtures import Check, ScorerReport
from textgym.testing.reward_hacking import HackTable, degenerate_texts, probe_hacks
from textgym.testing.scorers import check_scorer
from textgym.testing.tasks import check_task

__all__ = [
    "Check",
    "HackTable",
    "ProbeReport",
    "ProbeResult",
    "ScorerReport",
    "check_scorer",
    "check_task",
    "check_text_env",
    "degenerate_texts",
    "probe_agent",
    "probe_hacks",
]
