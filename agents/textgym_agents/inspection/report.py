"""The result of an inspection: episodes, tokens, alarms, branches."""

from dataclasses import dataclass, field
from typing import Any

from textgym_agents.inspection.table import TokenTable

__all__ = ["Alarm", "Branch", "EpisodeView", "Report", "TokenView"]


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
    """Up to five episodes of the report that show it best."""


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


@dataclass(frozen=True)
class TokenView:
    """One token of a report; its columns are attributes: ``report.episodes[3].tokens[7].advantage_mc``."""

    id: int
    text: str
    _table: TokenTable = field(repr=False)
    _row: int = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._table.columns:
            raise AttributeError(f"this report has no column {name!r}; it has {', '.join(self._table.columns)}")
        value = self._table.columns[name][self._row]
        return float(value) if value.ndim == 0 else value


@dataclass(frozen=True)
class EpisodeView:
    """One episode of a report."""

    info: dict[str, Any]
    """``prompt``, ``completion``, ``return``, ``score``, ``scores``, ``end_reason``, ``group``, ``update``; in a
    comparison ``policy``, ``"before"`` or ``"after"``, and ``pair``, the number of the other episode."""
    tokens: list[TokenView]


@dataclass
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
    branches: list[Branch] = field(default_factory=list)

    @property
    def episodes(self) -> list[EpisodeView]:
        """The episodes."""
        views = []
        for number, info in enumerate(self.infos):
            rows = range(*self.table.rows(number).indices(len(self.table)))
            ids = self.table.ids[rows.start : rows.stop].tolist()
            tokens = [TokenView(i, self.table.texts[i], self.table, row) for i, row in zip(ids, rows, strict=True)]
            views.append(EpisodeView(info, tokens))
        return views
