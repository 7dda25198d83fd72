"""The result of an inspection: episodes, tokens, alarms, branches."""

import os
import tempfile
import warnings
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from textgym.rendering import display_text
from textgym_agents.inspection.table import TokenTable

__all__ = ["Alarm", "Branch", "EpisodeView", "Report", "TokenView"]

_View = TypeVar("_View")


@dataclass(frozen=True)
class Alarm:
    """A statistic of a training run that left its bounds."""

    name: str
    """Its name among the alarms, such as ``"kl"``."""
    message: str
    """One sentence: the statistic, its value, its bound."""
    advice: str
    """One sentence: what to try."""
    value: float
    threshold: float
    update: int | None = None
    """Number of the update that raised it, from 1; None if the episodes do not tell."""
    episodes: tuple[int, ...] = ()
    """Up to five episodes that show it best, counted over all updates of the run."""
    texts: tuple[str, ...] = ()
    """Their completions."""
    baseline: float | None = None
    """Value at the start of the training, if the alarm compares with it."""

    def __str__(self) -> str:
        where = "" if self.update is None else f" at update {self.update}"
        lines = [f"alarm {self.name}{where}: {self.message} {self.advice}"]
        return "\n".join([*lines, *(f"    {display_text(text, one_line=True):.150}" for text in self.texts[:1])])


@dataclass(frozen=True)
class Branch:
    """What would have followed other actions in one state, by rollouts."""

    episode: int
    token: int
    """Row within the episode."""
    actions: tuple[int, ...]
    probs: tuple[float, ...]
    """pi(a|s) of each action."""
    q_values: tuple[float, ...]
    standard_errors: tuple[float, ...]
    samples: tuple[tuple[str, ...], ...] = ()
    """Some continuations of each action."""


class _Views(Sequence[_View]):
    """A sequence whose entries are made when they are asked for."""

    def __init__(self, size: int, make: Callable[[int], _View]) -> None:
        self._indices, self._make = range(size), make

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> _View: ...

    @overload
    def __getitem__(self, index: slice) -> list[_View]: ...

    def __getitem__(self, index: int | slice) -> _View | list[_View]:
        numbers = self._indices[index]  # raises an IndexError
        return self._make(numbers) if isinstance(numbers, int) else [self._make(number) for number in numbers]

    def __repr__(self) -> str:
        shown = [repr(view) for view in self[:3]] + (["..."] if len(self) > 3 else [])
        return f"<{len(self)}: [{', '.join(shown)}]>"


@dataclass(frozen=True, repr=False)
class TokenView:
    """One token of a report; its columns are attributes: ``report.episodes[3].tokens[7].advantage_mc``."""

    id: int
    text: str
    _table: TokenTable
    _row: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._table.columns:
            raise AttributeError(f"this report has no column {name!r}; it has {', '.join(self._table.columns)}")
        value = self._table.columns[name][self._row]
        return value.item() if value.ndim == 0 else value

    def text_of(self, token: int) -> str:
        """Return the text of another token, such as one of ``top_ids``."""
        return self._table.texts[token]

    def __dir__(self) -> list[str]:
        return ["id", "text", "text_of", *self._table.columns]

    def __repr__(self) -> str:
        shown = [name for name in ("log_prob", "reward", "advantage_mc") if name in self._table.columns]
        return f"TokenView({', '.join([repr(self.text), *(f'{name}={getattr(self, name):.3g}' for name in shown)])})"


@dataclass(frozen=True, repr=False)
class EpisodeView:
    """One episode of a report."""

    info: dict[str, Any]
    """``prompt``, ``completion``, ``return``, ``score``, ``scores``, ``end_reason``, ``group``, ``update``; in a
    comparison ``policy``, ``"before"`` or ``"after"``, and ``pair``, the number of the other episode."""
    tokens: Sequence[TokenView]
    branches: tuple[Branch, ...] = ()
    """The branches of its tokens, if there are any."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns of its tokens."""
        return list(self.tokens[0]._table.columns) if len(self.tokens) else []

    def show(self, column: str | None = None) -> None:
        """Print the text, coloured by a column, and its most notable tokens; needs rich."""
        _print(self, column)

    def __rich__(self) -> Any:
        from textgym_agents.inspection.terminal import episode_view

        return episode_view(self)

    def _repr_html_(self) -> str:
        from textgym_agents.inspection.notebook import episode_html

        return episode_html(self)

    def column(self, name: str) -> Any:
        """Return a column of this episode: (C,) or (C, K) of the C tokens of its completion."""
        if not self.tokens:
            return np.zeros(0)
        return np.stack([np.asarray(getattr(token, name)) for token in self.tokens])

    def __repr__(self) -> str:
        prompt, text = str(self.info.get("prompt", "")), str(self.info.get("completion", ""))
        reward = self.info.get("return", float("nan"))
        return f"EpisodeView({prompt[-24:]!r} -> {text[:32]!r}, return={reward:.3g}, tokens={len(self.tokens)})"


@dataclass(repr=False)
class Report:
    """The result of ``inspect``."""

    table: TokenTable
    infos: list[dict[str, Any]]
    """Of each episode, see ``EpisodeView.info``."""
    about: dict[str, Any] = field(default_factory=dict)
    """Settings, versions and seeds. ``return`` says which return V, the advantages and GAE concern."""
    metrics: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each update of the run, if it is known."""
    alarms: list[Alarm] = field(default_factory=list)
    """Alarms of the run; those of their episodes are shown that ``alarmed`` finds in the report."""
    branches: list[Branch] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str], *, alternatives: int | None = None, force: bool = False) -> Path:
        """Write the report as one HTML file, which shows it in any browser and requests nothing.

        The same report gives the same bytes.

        Args:
            path: File to write, such as ``"report.html"``; one that exists is replaced.
            alternatives: Number of episodes whose alternatives and other columns of several numbers a token are kept:
                those of alarms and branches, then of each update the best, the worst and others at random. By default
                all, or 500 if the file would be larger than 25 MB with all. The page says what was left out.
            force: Write more than 100 MB, which browsers open slowly.

        Returns:
            The path.

        Raises:
            FileNotFoundError: If the folder does not exist.
            IsADirectoryError: If the path is a folder.
            TypeError: If ``alternatives`` is not an integer.
            ValueError: If ``alternatives`` is negative, the file would be larger than 100 MB, or columns and infos do
                not fit the table. Nothing is written then.

        Warns:
            UserWarning: If the file is larger than 25 MB.
        """
        from textgym_agents.inspection.page import save_page

        return save_page(self, path, alternatives=alternatives, force=force)

    def open(self) -> Path:
        """Open the page of ``save`` in the browser, from a new temporary folder, and return the file."""
        path = self.save(Path(tempfile.mkdtemp(prefix="textgym-")) / "report.html")
        if not webbrowser.open(path.as_uri()):
            warnings.warn(f"no browser could be opened: open {path} yourself", stacklevel=2)
        return path

    @property
    def episodes(self) -> Sequence[EpisodeView]:
        """The episodes; their views are made on access."""
        return _Views(len(self.infos), self._episode)

    def best_and_worst(self, count: int) -> list[int]:
        """Return the numbers of the ``count`` episodes of the highest and as many of the lowest returns, sorted."""
        order = sorted(range(len(self.infos)), key=lambda b: -self.infos[b]["return"])
        return order if len(order) <= 2 * count else order[:count] + order[-count:]

    def alarmed(self, alarm: Alarm) -> list[int]:
        """Return the episodes of an alarm that are episodes of this report.

        They are counted over the run, of which the report may hold a part. An episode is the report's if the one with
        its number has its text.
        """
        return [
            episode
            for episode, text in zip(alarm.episodes, alarm.texts, strict=False)
            if 0 <= episode < len(self.infos) and self.infos[episode].get("completion") == text
        ]

    def show(self, column: str | None = None) -> None:
        """Print alarms, the best and worst episodes or the two sides of a comparison, and the most notable episode.

        Args:
            column: Name of the column that colours the tokens; by default the advantage by rollouts, if there is one,
                else what is nearest to it.

        Raises:
            ImportError: If rich is not installed.
        """
        _print(self, column)

    def __rich__(self) -> Any:
        from textgym_agents.inspection.terminal import report_view

        return report_view(self)

    def _repr_html_(self) -> str:
        from textgym_agents.inspection.notebook import report_html

        return report_html(self)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row per token: ``episode``, ``id``, ``text`` and the columns."""
        import pandas  # type: ignore[import-untyped]

        episodes = np.repeat(np.arange(len(self.infos)), np.diff(self.table.offsets))
        texts = [self.table.texts[i] for i in self.table.ids.tolist()]
        columns = {name: column if column.ndim == 1 else list(column) for name, column in self.table.columns.items()}
        return pandas.DataFrame({"episode": episodes, "id": self.table.ids, "text": texts, **columns})

    def _episode(self, number: int) -> EpisodeView:
        rows = range(*self.table.rows(number).indices(len(self.table)))
        tokens = _Views(len(rows), lambda token: self._token(rows[token]))
        return EpisodeView(self.infos[number], tokens, tuple(b for b in self.branches if b.episode == number))

    def _token(self, row: int) -> TokenView:
        token = int(self.table.ids[row])
        return TokenView(token, self.table.texts[token], self.table, row)

    def __repr__(self) -> str:
        counts = f"episodes={len(self.infos)}, tokens={len(self.table)}, alarms={len(self.alarms)}"
        return f"Report({counts}, columns={list(self.table.columns)})"


def _print(view: EpisodeView | Report, column: str | None) -> None:
    from textgym_agents.inspection import terminal

    shown = terminal.report_view(view, column) if isinstance(view, Report) else terminal.episode_view(view, column)
    terminal.Console(highlight=False).print(shown)
