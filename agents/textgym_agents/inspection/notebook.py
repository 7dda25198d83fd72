"""Reports and episodes as HTML of a notebook's cell: escaped, styled inline, without scripts."""

import html
from typing import TYPE_CHECKING

import numpy as np

from textgym.rendering import display_text
from textgym_agents.inspection.shading import column_of, legend, shades, token_label
from textgym_agents.inspection.table import COLUMNS

if TYPE_CHECKING:
    from textgym_agents.inspection.report import EpisodeView, Report

__all__ = ["episode_html", "report_html"]

NUM_EPISODES = 5
"""Episodes of a report to show, those of the highest and lowest returns."""
_ON_HOVER = ("log_prob", "log_prob_before", "rank", "entropy", "kl", "reward", "value", "gae_advantage", "advantage_mc")


def episode_html(episode: "EpisodeView", column: str | None = None) -> str:
    """Return an episode as text coloured by a column; hovering over a token shows its other numbers.

    Args:
        episode: The episode.
        column: Name of the column; by default the advantage by rollouts, if there is one, else what is nearest to it.
    """
    prompt = f'<span style="opacity:0.6">{_shown(episode.info.get("prompt", ""))}</span>'
    if not len(episode.tokens):
        return f'<div style="max-width:50em">{prompt}</div>'
    described, values = column_of(episode, column)
    spans = []
    names = [name for name in (described.name, *_ON_HOVER) if name in episode.columns]
    for token, shade in zip(episode.tokens, shades(described, values), strict=True):
        style = "unicode-bidi:isolate"
        if abs(shade.strength) > 0.05:
            colors = "background:rgb({},{},{});color:rgb({},{},{})".format(*shade.background, *shade.foreground)
            style += f";{colors}"
        if described.scale == "diverging" and shade.strength < 0:
            style += ";text-decoration:underline"
        numbers = [f"{COLUMNS[name].label if name in COLUMNS else name} {getattr(token, name):.3g}" for name in names]
        title = html.escape(", ".join(numbers), quote=True)
        spans.append(f'<span style="{style}" title="{title}">{html.escape(token_label(token.text))}</span>')
    reward = episode.info.get("return", np.nan)
    note = html.escape(f"return {reward:+.3f}. {legend(described, values)}")
    return (
        f'<div style="max-width:50em;line-height:1.8;white-space:pre-wrap">{prompt}{"".join(spans)}</div>'
        f'<div style="opacity:0.7;font-size:smaller">{note}</div>'
    )


def report_html(report: "Report") -> str:
    """Return a summary, the alarms, and the best and worst episodes."""
    about = ", ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in report.about.items() if value not in (None, [])
    )
    parts = [
        f"<p><b>{len(report.infos):,} episodes, {len(report.table):,} tokens</b><br>",
        f'<span style="opacity:0.7;font-size:smaller">{_shown(about)}</span></p>',
    ]
    if report.alarms:
        rows = [f"<li><b>{_shown(a.name)}</b>: {_shown(a.message)} {_shown(a.advice)}</li>" for a in report.alarms]
        parts.append(f"<ul>{''.join(rows)}</ul>")
    chosen = report.best_and_worst(NUM_EPISODES)
    parts += [f'<div style="margin:0.5em 0">{b}: {episode_html(report.episodes[b])}</div>' for b in chosen]
    return "".join(parts)


def _shown(text: str) -> str:
    return html.escape(display_text(str(text), one_line=True))
