"""Reports and episodes as coloured text in a terminal, by rich.

Colours follow ``NO_COLOR`` and vanish where the output is not a terminal; the sign then is a mark behind the token.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.errors import install_hint
from textgym.rendering import display_text, display_token, isolated
from textgym_agents.inspection.shading import column_of, default_column, legend, shades, token_label

try:
    from rich.console import Console, ConsoleOptions, Group, RenderableType
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise ImportError(f"to show a report in a terminal, install rich: {install_hint('agents')}") from error

if TYPE_CHECKING:
    from rich.console import RenderResult

    from textgym_agents.inspection.report import Branch, EpisodeView, Report

__all__ = ["HeatMap", "before_and_after", "episode_view", "report_view"]

NUM_EPISODES = 3
"""Episodes to show at either end, and pairs of a comparison."""


class HeatMap:
    """One episode as text, coloured by a column; below it, what the colours mean.

    Args:
        episode: The episode.
        column: Name of the column; by default the advantage by rollouts, if there is one, else what is nearest to it.
    """

    def __init__(self, episode: "EpisodeView", column: str | None = None) -> None:
        self.episode = episode
        self.column, self.values = column_of(episode, column)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> "RenderResult":
        has_color = console.is_terminal and not console.no_color and console.color_system is not None
        text = Text(overflow="fold").append(_shown(self.episode.info.get("prompt", "")), style="dim")
        for token, shade in zip(self.episode.tokens, shades(self.column, self.values), strict=True):
            label = token_label(token.text)
            if np.isnan(shade.value):
                text.append(label, style="dim")
                continue
            is_below = self.column.scale == "diverging" and shade.strength < 0
            style = Style(underline=is_below)
            if has_color and abs(shade.strength) > 0.05:
                style += Style.parse("rgb({},{},{}) on rgb({},{},{})".format(*shade.foreground, *shade.background))
            text.append(label, style=style)
            if not has_color:
                text.append(shade.mark)
        yield text
        yield Text(legend(self.column, self.values, has_color=has_color), style="italic")


def episode_view(episode: "EpisodeView", column: str | None = None) -> RenderableType:
    """Return an episode with its score, its heat map and its five most notable tokens."""
    info = episode.info
    parts = [f"return {info.get('return', float('nan')):+.3f}", f"{len(episode.tokens)} tokens"]
    parts += [
        f"{name.replace('_', ' ')} {_shown(str(info[name]))}" for name in ("end_reason", "policy") if name in info
    ]
    if not len(episode.tokens):
        return Group(Text(", ".join(parts), style="bold"), Text(_shown(info.get("prompt", ""))))
    heat = HeatMap(episode, column)
    return Group(Text(", ".join(parts), style="bold"), heat, Text(), _notable(episode, heat))


def report_view(report: "Report", column: str | None = None) -> RenderableType:
    """Return an overview: what was inspected, alarms, best and worst episodes, before and after, and one episode."""
    about = report.about
    lines = [f"{len(report.infos):,} episodes, {len(report.table):,} tokens"]
    lines += [f"{name} {_shown(str(about[name]))}" for name in ("policy", "reference") if about.get(name)]
    parts: list[RenderableType] = [Text(", ".join(lines), style="bold")]
    if "return" in about:
        parts.append(Text(f"value, advantages and return to go are of: {_shown(about['return'])}"))
    if report.alarms:
        parts += [Text(), _alarms(report)]
    is_comparison = any("pair" in info for info in report.infos)
    parts += [Text(), before_and_after(report) if is_comparison else _best_and_worst(report)]
    if report.infos and report.table.columns:
        shown = default_column(report.table.columns) if column is None else column
        known = np.nan_to_num(report.table.columns[shown], posinf=0.0, neginf=0.0)
        spreads = [
            float(np.ptp(known[rows])) if (rows := report.table.rows(b)).stop > rows.start else 0.0
            for b in range(len(report.infos))
        ]
        number = int(np.argmax(spreads))
        parts += [Text(), Text(f"episode {number}", style="bold"), episode_view(report.episodes[number], shown)]
    return Group(*parts)


def before_and_after(report: "Report") -> RenderableType:
    """Return the first pairs of a comparison side by side, under the mean returns of both policies."""
    pairs = [(b, info["pair"]) for b, info in enumerate(report.infos) if info.get("policy") == "before"]
    returns = np.array([[report.infos[i]["return"] for i in pair] for pair in pairs])
    better = int((returns[:, 1] > returns[:, 0]).sum())
    means = " -> ".join(f"{mean:+.3f}" for mean in returns.mean(axis=0))
    table = Table(title=f"mean return {means}, better in {better} of {len(pairs)}", title_justify="left", expand=True)
    table.add_column("before", ratio=1, overflow="fold")
    table.add_column("after", ratio=1, overflow="fold")
    for pair in pairs[:NUM_EPISODES]:
        infos = [report.infos[number] for number in pair]
        cells = [f"{info['return']:+.2f} {_shown(info['completion'])}" for info in infos]
        table.add_row(Text(f"> {_shown(infos[0]['prompt'])}", style="dim"), Text())
        table.add_row(*map(Text, cells), end_section=True)
    return table


def _best_and_worst(report: "Report") -> RenderableType:
    chosen = report.best_and_worst(NUM_EPISODES)
    table = Table(title="best and worst episodes", title_justify="left", expand=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("return", justify="right", no_wrap=True)
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for place, number in enumerate(chosen, start=1):
        info = report.infos[number]
        prompt = _shown(info["prompt"])
        text = Text().append(f"...{prompt[-20:]}" if len(prompt) > 20 else prompt, style="dim")
        text.append(_shown(info["completion"]))
        is_last_best = place == NUM_EPISODES and len(chosen) < len(report.infos)
        table.add_row(str(number), f"{info['return']:+.3f}", text, end_section=is_last_best)
    return table


def _alarms(report: "Report") -> RenderableType:
    table = Table(title="alarms", title_justify="left", expand=True)
    table.add_column("alarm", no_wrap=True)
    table.add_column("what and what to try", ratio=1)
    table.add_column("episodes", justify="right")
    for alarm in report.alarms:
        name = alarm.name if alarm.update is None else f"{alarm.name} ({alarm.update})"
        text = Text(f"{_shown(alarm.message)} {_shown(alarm.advice)}")
        table.add_row(Text(_shown(name), style="bold"), text, ", ".join(map(str, report.alarmed(alarm))))
    return table


def _notable(episode: "EpisodeView", heat: HeatMap) -> RenderableType:
    """Return a table of the tokens with the largest numbers, and what might have been in their place."""
    names = episode.columns
    sizes = np.where(np.isfinite(heat.values), np.abs(heat.values), -1)
    chosen = sorted(np.argsort(-sizes, kind="stable")[:5].tolist())
    table = Table(expand=True)
    table.add_column("token", no_wrap=True, overflow="ellipsis", max_width=16)
    table.add_column(heat.column.label, justify="right", no_wrap=True)
    has_before = {"log_prob_after", "log_prob_before"} <= set(names)
    if has_before or "log_prob" in names:
        table.add_column("p before -> now" if has_before else "p", justify="right", no_wrap=True)
    has_alternatives = {"top_ids", "top_log_probs"} <= set(names)
    branches = {branch.token: branch for branch in episode.branches}
    if has_alternatives:
        heading = "likeliest instead: p, Q" if branches.keys() & set(chosen) else "likeliest instead: p"
        table.add_column(heading, ratio=1, no_wrap=True, overflow="ellipsis")
    for t in chosen:
        token = episode.tokens[t]
        cells: list[Any] = [Text(isolated(display_token(token.text))), _number(token, heat)]
        if has_before:
            cells.append(f"{np.exp(token.log_prob_before):.3f} -> {np.exp(token.log_prob_after):.3f}")
        elif "log_prob" in names:
            cells.append(f"{np.exp(token.log_prob):.3f}")
        if has_alternatives:
            cells.append(Text(", ".join(_alternatives(token, branches.get(t)))))
        table.add_row(*cells)
    return table


def _number(token: Any, heat: HeatMap) -> str:
    sign = "+" if heat.column.scale == "diverging" else ""
    number = f"{getattr(token, heat.column.name):{sign}.3g}"
    error = f"{heat.column.name}_se"
    return f"{number} +- {getattr(token, error):.2g}" if error in dir(token) else number


def _alternatives(token: Any, branch: "Branch | None") -> Iterator[str]:
    """Yield the likeliest other tokens with their probabilities, and with Q where it is known."""
    q = {} if branch is None else dict(zip(branch.actions, branch.q_values, strict=True))
    for i, log_prob in zip(token.top_ids.tolist(), token.top_log_probs.tolist(), strict=True):
        if i >= 0 and i != token.id and log_prob > -5.3:  # 0.5 %
            value = f" {q[i]:+.2f}" if i in q else ""
            yield f"{isolated(display_token(token.text_of(i)))} {np.exp(log_prob):.2f}{value}"


def _shown(text: str) -> str:
    return isolated(display_text(text, one_line=True))
