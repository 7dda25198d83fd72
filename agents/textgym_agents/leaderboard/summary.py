"""From single runs to what the leaderboard says: means and intervals over seeds, and the share of the gap closed."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from statistics import fmean, stdev
from typing import Any

from textgym.tasks import find_task

__all__ = ["BASELINE", "half_width", "summarised", "versions"]

BASELINE = "sampled LM"
"""The entry whose mean score is the lower end of the gap; the upper end is the optimum."""

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""

MEASURED = ("trained_tokens", "training_seconds", "evaluation_seconds")


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the mean, t s / sqrt(n); NaN of a single value.

    Raises:
        ValueError: Of no values, or more than ten.

    >>> round(half_width([0.4, 0.5, 0.6]), 4)
    0.2484
    """
    if not 1 <= len(values) <= len(STUDENT_T) + 1:
        raise ValueError(f"intervals are known for 1 to {len(STUDENT_T) + 1} values, got {len(values)}")
    if len(values) == 1:
        return math.nan
    return STUDENT_T[len(values) - 2] * stdev(values) / math.sqrt(len(values))


def summarised(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return by task what the entries scored, as JSON can hold it; records as ``running.run`` makes them.

    Per entry: ``scores`` by seed, their ``mean`` and the ``half_width`` of its 95 % interval (null for one seed),
    ``score_normalised``, the share of the gap between the sampled LM and the optimum that the mean closes, and what the
    runs cost. If no optimal policy was run, the optimum is the task's upper bound.
    """
    tasks: dict[str, Any] = {}
    for record in records:
        job = record["job"]
        task = tasks.setdefault(job["task"], {"num_held_out": job["num_held_out"], "entries": {}})
        entry = task["entries"].setdefault(
            job["entry"],
            {"scores": [], "score_by_level": [], **{name: [] for name in MEASURED}, "settings": job["settings"]},
        )
        entry["scores"].append(record["score"])
        for name in ("score_by_level", *MEASURED):
            entry[name].append(record[name])
    for name, task in tasks.items():
        _complete(name, task)
    return tasks


def _complete(name: str, task: dict[str, Any]) -> None:
    """Add means, intervals and the shares of the gap to what one task's runs measured."""
    entries = task["entries"]
    for entry in entries.values():
        width = half_width(entry["scores"])
        entry["mean"] = fmean(entry["scores"])
        entry["half_width"] = None if math.isnan(width) else width
        by_level = entry.pop("score_by_level")
        entry["score_by_level"] = {level: fmean(scores[level] for scores in by_level) for level in by_level[0]}
    task["optimum_is_played"] = "optimum" in entries
    task["optimum"] = entries["optimum"]["mean"] if task["optimum_is_played"] else find_task(name).optimum
    low = entries[BASELINE]["mean"] if BASELINE in entries else math.nan
    gap = task["optimum"] - low
    for entry in entries.values():
        entry["score_normalised"] = (entry["mean"] - low) / gap if gap > 0 else None


def versions() -> dict[str, str]:
    """Return what was installed where the runs were made."""
    packages = ("textgym", "gymnasium", "numpy", "torch", "transformers", "stable-baselines3")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
