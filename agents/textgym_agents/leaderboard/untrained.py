"""What the untrained language model scores by task and level: the zero of ``info["score_normalised"]``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from textgym import tasks
from textgym_agents.leaderboard.entries import ENTRIES, RunSpec
from textgym_agents.leaderboard.running import held_out_scores

__all__ = ["PATH", "untrained_scores", "write_untrained_scores"]

PATH = Path(tasks.__file__).parent / "untrained_scores.json"
"""Where ``textgym.tasks.score_bounds`` reads them."""


def untrained_scores(
    names: Sequence[str] | None = None,
    *,
    num_cases: int = 1000,
    model: str = "tiny",
    tell: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Return ``{task: {level: mean score}}`` of the sampled language model on held-out cases, four digits each.

    Args:
        names: Tasks, by default all.
        num_cases: Held-out cases of each level, 1000 at most.
        model: The language model.
        tell: Is given a line per task and level.
    """
    scores: dict[str, dict[str, float]] = {}
    for name in tasks.TASKS if names is None else names:
        entry = ENTRIES["sampled LM"](RunSpec(name, 0, 0, model, {}))
        scores[name] = {}
        for level in range(1, tasks.find_task(name).num_levels + 1):
            found = held_out_scores(entry, name, range(num_cases), model=model, level=level)
            scores[name][str(level)] = round(float(found.mean()), 4)
            tell(f"{name:11} level {level}  {scores[name][str(level)]:+.4f}")
    return scores


def write_untrained_scores(scores: dict[str, dict[str, float]], path: Path = PATH) -> None:
    """Write them where ``textgym.tasks.score_bounds`` finds them."""
    path.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
