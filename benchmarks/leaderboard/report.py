"""Report of the leaderboard: means and intervals over seeds as ``leaderboard.json``, tables and a figure."""

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from entries import ENTRIES, EVERY, EXPERTS, NUM_CASES, TRAINED, UNTRAINED
from learning_curve import median_tokens, tokens_to
from textgym.rendering import display_text
from textgym.tasks import find_task

BASELINE = "sampled LM"
"""Entry whose mean score is 0 % of the gap; the optimum is 100 %."""

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""

BY_RUN = ("score_by_level", "perplexity", "learning_curve", "trained_tokens", "training_seconds", "evaluation_seconds")
"""Keys of a record that a summary collects over seeds, besides the score."""

SHARES = {"50 %": 0.5, "75 %": 0.75}
"""Shares of the gap to which tokens are counted."""

GRAY, BLUE, GREEN = "#7f7f7f", "#1f77b4", "#2ca02c"


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % confidence interval of the mean, t s / sqrt(n); NaN for one value.

    Raises:
        ValueError: If there are no values or more than ten.

    >>> round(half_width([0.4, 0.5, 0.6]), 4)
    0.2484
    """
    if not 1 <= len(values) <= len(STUDENT_T) + 1:
        raise ValueError(f"expected 1 to {len(STUDENT_T) + 1} values, got {len(values)}")
    if len(values) == 1:
        return math.nan
    return STUDENT_T[len(values) - 2] * stdev(values) / math.sqrt(len(values))


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the records of runs by task, JSON-serialisable.

    Per entry: ``scores`` by seed, their ``mean``, the ``half_width`` of its 95 % interval (None for one seed),
    ``score_normalised``, which is the share of the gap between the sampled LM and the optimum that the mean closes, and
    the costs of the runs. If no optimal policy was run, the optimum is the task's upper bound. Entries that train also
    have ``tokens_to``: for each of ``SHARES``, by seed, the tokens of the first evaluation in the course of the
    training that closed as much of the gap on its own cases, None if none did.
    """
    tasks: dict[str, Any] = {}
    for record in records:
        spec = record["job"]
        task = tasks.setdefault(spec["task"], {"num_held_out": spec["num_held_out"], "entries": {}})
        entry = task["entries"].setdefault(
            spec["entry"],
            {name: [] for name in ("scores", *BY_RUN)} | {"settings": spec["settings"]},
        )
        entry["scores"].append(record["score"])
        entry.setdefault("samples", record["samples"])  # of the first seed
        for name in BY_RUN:
            entry[name].append(record[name])
    for name, task in tasks.items():
        _add_statistics(name, task)
    return tasks


def _add_statistics(name: str, task: dict[str, Any]) -> None:
    """Add means, intervals and normalised scores to the entries of a task."""
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
    _add_tokens_to(task)


def _add_tokens_to(task: dict[str, Any]) -> None:
    """Replace the learning curves of the entries of a task by the tokens to shares of the gap."""
    curves = {name: entry.pop("learning_curve") for name, entry in task["entries"].items()}

    def untrained(name: str, default: float) -> float:
        """Return the mean score on the cases of the curves."""
        return fmean(curve[0][1] for curve in curves[name]) if name in curves else default

    low, high = untrained(BASELINE, math.nan), untrained("optimum", task["optimum"])
    for name in TRAINED:
        if name in curves:
            task["entries"][name]["tokens_to"] = {
                label: [tokens_to(low + share * (high - low), curve) for curve in curves[name]]
                for label, share in SHARES.items()
            }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the scores depend on."""
    packages = ("textgym", "gymnasium", "numpy", "torch", "transformers", "stable-baselines3")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def write_report(folder: Path, leaderboard: Mapping[str, Any]) -> None:
    """Write ``leaderboard.json``, ``.md`` and ``.png``; ``leaderboard`` is the content of the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "leaderboard.json").write_text(json.dumps(leaderboard, indent=1) + "\n", encoding="utf-8")
    (folder / "leaderboard.md").write_text(markdown(leaderboard), encoding="utf-8")
    draw(folder / "leaderboard.png", leaderboard["tasks"])


def markdown(leaderboard: Mapping[str, Any]) -> str:
    """Return the Markdown page: scores, shares of the gap, costs and settings."""
    tasks = leaderboard["tasks"]
    num_held_out = next(iter(tasks.values()))["num_held_out"]
    lines = [
        "# Leaderboard",
        "",
        f"Made by `{leaderboard['command']}`; everything measured is in [leaderboard.json](leaderboard.json).",
        "",
        f"Mean score on the same {num_held_out} held-out cases of each task, all levels mixed, over "
        f"{leaderboard['num_seeds']} seeds, with the half-width of its 95 % interval (Student's t over seeds). All "
        f"entries start from the language model `{leaderboard['model']}`; trained ones are evaluated greedily. The "
        'best entry is in bold. "best of 8" chooses among eight attempts at each held-out case by their scores, '
        '"supervised" imitates the optimal policy on as many tokens as the others train on; neither is reinforcement '
        f"learning. The optimum is the score of an optimal policy{_bounds(tasks)}.",
        "",
        *_table(tasks, _score, "mean"),
        "",
        f"Share of the gap between {BASELINE} and optimum that is closed:",
        "",
        *_table(tasks, _share, "score_normalised"),
        "",
        "![scores by task](leaderboard.png)",
        "",
        f"Perplexity of the same texts under `{leaderboard['model']}`, as a multiple of that of {BASELINE}:",
        "",
        *_perplexities(tasks),
        "",
        *_sample_efficiency(tasks),
        "Tokens and seconds per training, on one core:",
        "",
        *_costs(tasks),
        "",
        *_settings(tasks),
        "",
        "## Texts",
        "",
        "The first held-out cases of each task, by the first seed of each entry, with their scores:",
        "",
        *_samples(tasks),
    ]
    return "\n".join(lines) + "\n"


def _bounds(tasks: Mapping[str, Any]) -> str:
    names = [name for name, task in tasks.items() if not task["optimum_is_played"]]
    return f", except for {' and '.join(names)}, where it is the score's upper bound" if names else ""


def _table(tasks: Mapping[str, Any], cell: Callable[[Any, Any], str], key: str) -> list[str]:
    """Return a row per entry and a column per task."""
    best = {
        name: max((n for n in task["entries"] if n not in EXPERTS), key=lambda n: task["entries"][n][key] or 0.0)
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
    return f"{round(100 * entry['score_normalised'])} %"  # rounded first, so that there is no -0


def _perplexities(tasks: Mapping[str, Any]) -> list[str]:
    """Return a row per entry and a column per task."""
    rows = []
    for label in _present(tasks):
        cells = []
        for task in tasks.values():
            entry, start = task["entries"].get(label), task["entries"].get(BASELINE)
            ratio = fmean(entry["perplexity"]) / fmean(start["perplexity"]) if entry and start else math.nan
            cells.append("" if math.isnan(ratio) else f"{ratio:.2f} x" if ratio < 100 else f"{ratio:.0e} x")
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return [f"| | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|", *rows]


def _sample_efficiency(tasks: Mapping[str, Any]) -> list[str]:
    """Return the table of tokens to shares of the gap, empty if no entry trained."""
    trained = [label for label in _present(tasks) if label in TRAINED]
    if not trained:
        return []
    rows = [[label, *(_tokens(task["entries"].get(label)) for task in tasks.values())] for label in trained]
    return [
        f"Tokens of training until {' and '.join(SHARES)} of the gap are closed on the first {NUM_CASES} held-out "
        f"cases, by a greedy evaluation every {EVERY:,} tokens; median over seeds, a dash if less than half get there:",
        "",
        f"| | {' | '.join(tasks)} |",
        "|---" * (len(tasks) + 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _tokens(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    medians = map(median_tokens, entry["tokens_to"].values())
    return ", ".join("-" if math.isinf(tokens) else f"{tokens:,.0f}" for tokens in medians)


def _samples(tasks: Mapping[str, Any]) -> list[str]:
    """Return a heading per task, and per held-out case its prompt and the texts of the entries."""
    lines = []
    for name, task in tasks.items():
        lines += [f"### {name}", ""]
        samples = {label: task["entries"][label]["samples"] for label in _present(tasks) if label in task["entries"]}
        for case, first in enumerate(next(iter(samples.values()))):
            lines += ["```text", display_text(first["prompt"])]
            for label, texts in samples.items():
                head, *others = display_text(texts[case]["text"]).splitlines() or [""]
                lines += [f"{label:>10} {texts[case]['score']:5.2f}  {head}", *(f"{'':18}{line}" for line in others)]
            lines += ["```", ""]
    return lines[:-1]


def _costs(tasks: Mapping[str, Any]) -> list[str]:
    trained = [name for name in _present(tasks) if name in TRAINED]
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
    """Return a line per entry and set of settings that differ from its defaults."""
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
    if not lines:
        return ["All agents have their default settings."]
    return ["Settings that differ from the agents' defaults:", "", *lines]


def _present(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names of the entries that took part, in the order of ``ENTRIES``, and the optimum."""
    return [name for name in ENTRIES if name == "optimum" or any(name in task["entries"] for task in tasks.values())]


def draw(path: Path, tasks: Mapping[str, Any]) -> None:
    """Draw a panel per task with a dot and an interval per entry."""
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
    """Draw lines at the ends and the middle of the gap."""
    axes.axvline(task["optimum"], color=GREEN, label="optimum" if task["optimum_is_played"] else "optimum (bound)")
    if BASELINE in task["entries"]:
        low = task["entries"][BASELINE]["mean"]
        axes.axvline(low, color=GRAY, linestyle="--", label=BASELINE)
        axes.axvline((low + task["optimum"]) / 2, color=GREEN, linestyle=":", label="half of the gap")
