"""The colours of tokens by a column, for terminal and notebook."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.rendering import display_token, isolated
from textgym_agents.inspection.table import COLUMNS, Column

if TYPE_CHECKING:
    from textgym_agents.inspection.report import EpisodeView

__all__ = ["Shade", "column_of", "default_column", "legend", "shades", "token_label"]

PREFERRED = ("advantage_mc", "credit_prefix", "gae_advantage", "kl_k1", "log_prob")
"""Columns to colour by, the first that a report has: the truth first, then what the agent believed."""
POSITIVE, NEGATIVE, SEQUENTIAL = (33, 102, 172), (200, 90, 10), (118, 42, 131)
"""Blue, orange and purple, which people who are colour-blind tell apart."""


class Shade(NamedTuple):
    """How one token is coloured."""

    value: float
    """NaN where the token has no number."""
    strength: float
    """From -1 to 1, relative to the largest of the episode."""
    background: tuple[int, int, int]
    foreground: tuple[int, int, int]

    @property
    def mark(self) -> str:
        """The sign without colour: one for a third of the largest, two for two thirds."""
        count = min(2, int(abs(self.strength) * 3))
        return ("⁺" if self.strength > 0 else "⁻") * count


def default_column(columns: Any) -> str:
    """Return the column to colour by of those that there are."""
    return next((name for name in PREFERRED if name in columns), next(iter(columns), "log_prob"))


def column_of(episode: "EpisodeView", column: str | None) -> tuple[Column, npt.NDArray[np.float64]]:
    """Return a column's description and its (C,) values in an episode; the default column if it is None.

    Raises:
        ValueError: If the column holds several numbers of a token.
    """
    name = default_column(episode.columns) if column is None else column
    values = np.asarray(episode.column(name), dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name!r} holds {values.shape[1]} numbers of each token: choose a column with one")
    unknown = Column(name, name, "", "", "diverging" if (values < 0).any() else "sequential")
    return COLUMNS.get(name, unknown), values


def shades(column: Column, values: npt.NDArray[np.float64]) -> list[Shade]:
    """Return the shade of each of (C,) values of one episode."""
    known = values[np.isfinite(values)]
    if column.scale == "diverging":
        low, size = 0.0, float(np.abs(known).max(initial=0.0))
    else:
        low = float(known.min(initial=np.inf)) if known.size else 0.0
        low, size = (0.0, 1.0) if column.scale == "flag" else (low, float(known.max(initial=low)) - low)
    found = []
    for value in values.tolist():
        strength = (value - low) / size if size > 0 and np.isfinite(value) else 0.0
        hue = SEQUENTIAL if column.scale != "diverging" else POSITIVE if strength > 0 else NEGATIVE
        weight = 0.85 * abs(strength)
        red, green, blue = (round(255 + weight * (part - 255)) for part in hue)
        # Black has the higher contrast on backgrounds of a relative luminance above 0.179 (WCAG 2).
        linear = ((np.array([red, green, blue]) / 255 + 0.055) / 1.055) ** 2.4
        is_light = float(linear @ (0.2126, 0.7152, 0.0722)) > 0.179
        found.append(Shade(value, strength, (red, green, blue), (0, 0, 0) if is_light else (255, 255, 255)))
    return found


def legend(column: Column, values: npt.NDArray[np.float64], *, has_color: bool = True) -> str:
    """Return a sentence that says what the colours, or the marks without them, mean and where they end."""
    known = values[np.isfinite(values)]
    if not known.size:
        return f"{column.label}: no token has a number"
    unit = f" {column.unit}" if column.unit else ""
    ends = f"{known.min():+.3g} to {known.max():+.3g}" if column.scale == "diverging" else ""
    ends = ends or f"{known.min():.3g} to {known.max():.3g}"
    signs = "; blue is above 0, orange and underlined below" if column.scale == "diverging" else ""
    marks = "; ⁺ or ⁻ from a third, two from two thirds of the largest"
    return f"{column.label}: {ends}{unit} in this text{signs if has_color else marks}"


def token_label(text: str) -> str:
    r"""Return a token in its display form, but with the space before a word, so that a text can be read.

    >>> token_label(" happy"), token_label(" "), token_label("a\x1b[2J")
    (' happy', '␣', 'a␛[2J')
    """
    shown = display_token(text)
    return isolated(f" {shown[1:]}" if shown.startswith("␣") and len(shown) > 1 else shown)
