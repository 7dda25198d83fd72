"""What scorers made of other scorers have in common, so that it is written once."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.base import FloatArray, Scorer, Scores, as_values, score_part, scorer_name, set_progress
from textgym.scorers.combine.gathering import Gathered
from textgym.scorers.combine.ranges import Range
from textgym.scorers.incremental import is_incremental
from textgym.scorers.registry import as_scorer

__all__ = ["Composite", "Following", "Pooled", "Wrapper"]


class Composite(ABC):
    """A scorer with inner scorers; see :mod:`textgym.scorers.combine` for the names of its components."""

    parts: Mapping[str, Any]
    """The parts by name: scorers, or tuples that begin with one."""

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The inner scorers, in order."""
        return tuple(part[0] if isinstance(part, tuple) else part for part in self.parts.values())

    @property
    def deterministic(self) -> bool:
        """Whether all inner scorers are."""
        return all(getattr(scorer, "deterministic", True) for scorer in self.scorers)

    @property
    def requires(self) -> tuple[str, ...]:
        """The packages that the inner scorers need."""
        return tuple(dict.fromkeys(name for scorer in self.scorers for name in getattr(scorer, "requires", ())))

    @property
    def score_range(self) -> Range:
        """The least and the greatest score; missing where an inner scorer does not tell its own."""
        limits = self._range()
        if limits is None:
            raise AttributeError(f"the range of {scorer_name(self)!r} is not known")
        return limits

    def set_progress(self, progress: float) -> None:
        """Pass the share of training done, 0 to 1, on to the inner scorers."""
        for scorer in self.scorers:
            set_progress(scorer, progress)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        scores = self.score_components(batch)
        if scores.error is not None:
            raise ScorerError(scores.error) from scores.cause
        return scores.total

    @abstractmethod
    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a part failed has no total."""

    @abstractmethod
    def _range(self) -> Range | None: ...


class Pooled(Composite):
    """A scorer whose total follows from the totals of its inner scorers."""

    @abstractmethod
    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64 from the (B,) totals of the inner scorers, NaN where one does not apply or failed."""

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a part failed has no total."""
        gathered = Gathered(batch)
        totals = [gathered.ask(name, scorer) for name, scorer in zip(self.parts, self.scorers, strict=True)]
        return gathered.scores(self.combined(totals, batch))


class Wrapper(Pooled):
    """A scorer made of one other, whose name and components it keeps."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = as_scorer(scorer)
        self.name = scorer_name(self.scorer)
        parts = getattr(self.scorer, "parts", None)
        self.parts = parts if isinstance(parts, Mapping) else {self.name: self.scorer}

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The inner scorer."""
        return (self.scorer,)

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the changed total, and the components as they were before."""
        part = score_part(self.scorer, batch)
        components = part.components or dict.fromkeys(self.parts, part.total)
        return Scores(self.combined([part.total], batch), components, part.error, part.failed, part.cause)


class Following(Pooled):
    """Makes a pooled scorer incremental where its inner scorers are: a state is the tuple of theirs."""

    @property
    def incremental(self) -> bool:
        """Whether all inner scorers are."""
        return all(map(is_incremental, self.scorers))

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B tuples of states."""
        followed: tuple[Any, ...] = self.scorers
        return list(zip(*(scorer.begin(batch) for scorer in followed), strict=True))

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B tuples of states, after one more token."""
        grown = (scorer.advance(column, batch) for scorer, column in self._columns(states))
        return list(zip(*grown, strict=True))

    def value(self, states: Sequence[Any], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts that the states are of."""
        totals = [as_values(scorer.value(column, batch), len(batch)) for scorer, column in self._columns(states)]
        for scorer, total in zip(self.scorers, totals, strict=True):
            if np.isinf(total).any():
                raise ScorerError(f"scorer {scorer_name(scorer)!r} gave {total[np.isinf(total)][0]}")
        return self.combined(totals, batch)

    def _columns(self, states: Sequence[Any]) -> Iterable[tuple[Any, Sequence[Any]]]:
        columns: Sequence[Sequence[Any]] = list(zip(*states, strict=True)) or [()] * len(self.scorers)
        return zip(self.scorers, columns, strict=True)
