"""The leaderboard of the tasks: who scores how much, with intervals, between the untrained LM and the known optimum.

entries      the LM untrained, the LM trained by each agent, and the optimum
settings     with which settings, and on how many tokens, the agents train
optimum      the known optimum, played in the real environment
running      one run is a task, an entry and a seed; finished ones are kept
summary      means and intervals over seeds, and the share of the gap that is closed
report       JSON, a table and a picture
untrained    what the untrained LM scores by task and level
command      ``python -m textgym_agents.leaderboard``
"""

from textgym.errors import install_hint

try:
    import stable_baselines3 as _  # noqa: F401
except ImportError as error:
    raise ImportError(f"the leaderboard needs the extras: {install_hint('agents,sb3,scorers')}") from error

from textgym_agents.leaderboard.command import main
from textgym_agents.leaderboard.entries import ENTRIES, Entry, RunSpec
from textgym_agents.leaderboard.running import Job, RunBook, held_out_scores, jobs_of, run, run_all
from textgym_agents.leaderboard.summary import half_width, summarised

__all__ = [
    "ENTRIES",
    "Entry",
    "Job",
    "RunBook",
    "RunSpec",
    "half_width",
    "held_out_scores",
    "jobs_of",
    "main",
    "run",
    "run_all",
    "summarised",
]
