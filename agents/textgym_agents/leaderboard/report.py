"""What the leaderboard leaves: ``leaderboard.json``, ``leaderboard.md`` with its tables, and ``leaderboard.png``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from textgym_agents.leaderboard.entries import ENTRIES, UNTRAINED
from textgym_agents.leaderboard.summary import BASELINE

__all__ = ["draw", "markdown", "write_report"]

GRAY, BLUE, GREEN = "#7f7f7f", "#1f77b4", "#2ca02c"


def write_report(folder: Path, leaderboard: Mapping[str, Any]) -> None:
    """Write the three files; ``leaderboard`` holds ``tasks``, as ``summarised`` makes them, and how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "leaderboard.json").write_text(json.dumps(leaderboard, indent=1) + "\n", encoding="utf-8")
    (folder / "leaderboard.md").write_text(markdown(leaderboard), encoding="utf-8")
    draw(folder / "leaderboard.png", leaderboard["tasks"])


def markdown(leaderboard: Mapping[str, Any]) -> str:
    """Return the page: scores, shares of the gap, costs and settings, and by which command it was made."""
    tasks = leaderboard["tasks"]
    num_held_out = next(iter(tasks.values()))["num_held_out"]
    lines = [
        "# Leaderboard",
        "",
        f"Made by `{leaderboard['command']}`; everything measured is in [leaderboard.json](leaderboard.json).",
        "",
        f"Mean score on the same {num_held_out} held-out cases of each task, all levels mixed, over "
        f"{leaderboard['num_seeds']} seeds, with the half-width of its 95 % interval (Student's t over seeds). All "
        f"start from the language model `{leaderboard['model']}`; trained ones write their likeliest tokens, "
        'as the greedy LM does. The best but the optimum is in bold. "best of 8" is told the scores of eight attempts '
        "at each held-out "
        f"case and plays the best. The optimum is played in the environment{_bounds(tasks)}.",
        "",
        *_table(tasks, _score, "mean"),
        "",
        f"Share of the gap between {BASELINE} and optimum that is closed:",
        "",
        *_table(tasks, _share, "score_normalised"),
        "",
        "![scores by task](leaderboard.png)",
        "",
        "Tokens, and seconds of one training on one core:",
        "",
        *_costs(tasks),
        "",
        "Settings, beside the agents' defaults:",
        "",
        *_settings(tasks),
    ]
    return "\n".join(lines) + "\n"


def _bounds(tasks: Mapping[str, Any]) -> str:
    names = [name for name, task in tasks.items() if not task["optimum_is_played"]]
    return f", but for {' and '.join(names)}, where it is the score's upper bound" if names else ""


def _table(tasks: Mapping[str, Any], cell: Any, key: str) -> list[str]:
    """Return a row per entry and a column per task."""
    best = {
        name: max((n for n in task["entries"] if n != "optimum"), key=lambda n: task["entries"][n][key] or 0.0)
        for name, task in tasks.items()
    }
    rows = []
    for label in _present(tasks):
        cells = []
        for name, task in tasks.items():
            text = cell(task["entries"].get(label), task if label == "optimum" else None)
            cells.append(f"**{text}**" if best[name] == label else text)
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return [f"| | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|", *rows]


def _score(entry: Mapping[str, Any] | None, bound: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "" if bound is None else f"{bound['optimum']:.3f} (bound)"
    width = entry["half_width"]
    return f"{entry['mean']:.3f}" + ("" if width is None else f" ± {width:.3f}")


def _share(entry: Mapping[str, Any] | None, bound: Mapping[str, Any] | None) -> str:
    if entry is None or entry["score_normalised"] is None:
        return "" if bound is None else "100 %"
    return f"{round(100 * entry['score_normalised'])} %"  # rounded first: there is no -0


def _costs(tasks: Mapping[str, Any]) -> list[str]:
    trained = [name for name in _present(tasks) if name not in (*UNTRAINED, "optimum")]
    rows = []
    for name, task in tasks.items():
        entries = [task["entries"].get(label) for label in trained]
        tokens = max((max(entry["trained_tokens"]) for entry in entries if entry), default=0)
        seconds = [
            f"{sum(entry['training_seconds']) / len(entry['training_seconds']):.0f}" if entry else ""
            for entry in entries
        ]
        rows.append(f"| {' | '.join([name, f'{tokens:,}', *seconds])} |")
    return [f"| {' | '.join(['', 'tokens', *trained])} |", "|---" * (len(trained) + 2) + "|", *rows]


def _settings(tasks: Mapping[str, Any]) -> list[str]:
    """Return a line per entry and setting: mostly one for all tasks."""
    used: dict[tuple[str, str], list[str]] = {}
    for name, task in tasks.items():
        for label, entry in task["entries"].items():
            if entry["settings"]:
                text = ", ".join(f"{key}={value!r}" for key, value in entry["settings"].items())
                used.setdefault((label, text), []).append(name)
    lines = []
    for (label, text), names in used.items():
        where = "" if len(names) == len(tasks) else f" ({', '.join(names)})"
        lines.append(f"- {label}{where}: `{text}`")
    return lines


def _present(tasks: Mapping[str, Any]) -> list[str]:
    """Return the entries that took part, in the order of ``ENTRIES``, and the optimum, which always does."""
    return [name for name in ENTRIES if name == "optimum" or any(name in task["entries"] for task in tasks.values())]


def draw(path: Path, tasks: Mapping[str, Any]) -> None:
    """Draw a panel per task: a dot per entry with its interval, lines at the untrained LM and the optimum."""
    names = [name for name in _present(tasks) if name != "optimum"]
    figure = Figure(figsize=(3.2 * len(tasks) + 1.2, 0.34 * len(names) + 1.5), layout="constrained")
    panels: Sequence[Any] = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, (task_name, task) in zip(panels, tasks.items(), strict=True):
        for place, name in enumerate(names):
            entry = task["entries"].get(name)
            if entry is not None:
                color = GRAY if name in UNTRAINED else BLUE
                axes.errorbar(entry["mean"], place, xerr=entry["half_width"], fmt="o", color=color, capsize=3)
        _draw_gap(axes, task)
        axes.set_title(task_name)
        axes.set_xlabel("mean score")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    panels[0].legend(*panels[0].get_legend_handles_labels(), loc="lower left", fontsize=7)
    figure.savefig(path, dpi=110)


def _draw_gap(axes: Any, task: Mapping[str, Any]) -> None:
    """Draw lines at both ends of the gap, and one in its middle."""
    axes.axvline(task["optimum"], color=GREEN, label="optimum" if task["optimum_is_played"] else "optimum (bound)")
    if BASELINE in task["entries"]:
        low = task["entries"][BASELINE]["mean"]
        axes.axvline(low, color=GRAY, linestyle="--", label=BASELINE)
        axes.axvline((low + task["optimum"]) / 2, color=GREEN, linestyle=":", label="half of the gap")
