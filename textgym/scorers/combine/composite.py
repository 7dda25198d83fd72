"""Base classes of scorers that are made of other scorers, and the batched calls of those."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.base import EpisodewiseScorer, FloatArray, Range, Scorer, Scores
from textgym.scorers.evaluation import as_values, score_part, unscored
from textgym.scorers.registry import as_scorer

__all__ = ["Composite", "Gathered", "Wrapper"]

BoolArray = npt.NDArray[np.bool_]


class Composite(EpisodewiseScorer):
    """A scorer with inner scorers; see :mod:`textgym.scorers.combine` for the names of its components.

    A subclass fills in :meth:`combined`, or, where not every inner scorer is called on every episode,
    :meth:`score_components`.
    """

    parts: Mapping[str, Any]
    """The parts by name: scorers, or tuples that begin with one."""
    pointwise: bool = False
    """Whether :meth:`combined` is a function of the totals alone, so that it is incremental where the parts are."""

    @property
    def scorers(self) -> tuple[Scorer, ...]:  # type: ignore[override]
        """The inner scorers, in order."""
        return tuple(part[0] if isinstance(part, tuple) else part for part in self.parts.values())

    @property
    def components(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the parts, each followed by those of its own components."""
        named = zip(self.parts, self.scorers, strict=True)
        return tuple(each for name, inner in named for each in (name, *(f"{name}/{one}" for one in inner.components)))

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether all inner scorers are."""
        return all(scorer.deterministic for scorer in self.scorers)

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        """Whether it is pointwise, and all inner scorers are incremental."""
        return self.pointwise and all(scorer.incremental for scorer in self.scorers)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        return None

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64 from the (B,) totals of the inner scorers, NaN where one does not apply or failed."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither combined nor score_components")

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a part failed has no total."""
        gathered = Gathered(batch)
        totals = [gathered.call(name, scorer) for name, scorer in zip(self.parts, self.scorers, strict=True)]
        return gathered.scores(self.combined(totals, batch))

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B tuples of the inner scorers' states."""
        return list(zip(*(scorer.begin(batch) for scorer in self.scorers), strict=True))

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B tuples of states, after one more token."""
        grown = (scorer.advance(column, batch) for scorer, column in self._columns(states))
        return list(zip(*grown, strict=True))

    def value(self, states: Sequence[Any], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts at ``states``."""
        totals = [as_values(scorer.value(column, batch), len(batch)) for scorer, column in self._columns(states)]
        for scorer, total in zip(self.scorers, totals, strict=True):
            if np.isinf(total).any():
                raise ScorerError(f"scorer {scorer.name!r} gave {total[np.isinf(total)][0]}")
        return self.combined(totals, batch)

    def _columns(self, states: Sequence[Any]) -> Iterable[tuple[Scorer, Sequence[Any]]]:
        columns: Sequence[Sequence[Any]] = list(zip(*states, strict=True)) or [()] * len(self.scorers)
        return zip(self.scorers, columns, strict=True)


class Wrapper(Composite):
    """A scorer made of one other, whose name and components it keeps; its score too, unless ``combined`` says else."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = as_scorer(scorer)
        self.name = self.scorer.name

    @property
    def scorers(self) -> tuple[Scorer, ...]:  # type: ignore[override]
        """The inner scorer."""
        return (self.scorer,)

    @property
    def components(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the inner scorer, itself where it has none."""
        return self.scorer.components or (self.name,)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """That of the inner scorer."""
        return self.scorer.score_range

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the inner scorer's totals as they are."""
        return totals[0]

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the changed total, and the components as they were before."""
        part = score_part(self.scorer, batch)
        components = part.components or {self.name: part.total}
        return Scores(self.combined([part.total], batch), components, part.errors, part.cause, (part,))


class Gathered:
    """The scores of inner scorers for B episodes so far."""

    def __init__(self, batch: TextBatch) -> None:
        self.batch = batch
        self.components: dict[str, FloatArray] = {}
        self.errors: dict[int, str] = {}
        """Index of each episode for which a part failed -> the first such part's message."""
        self._inner: list[Scores] = []
        self._cause: BaseException | None = None

    @property
    def failed(self) -> BoolArray:
        """(B,) bool, where a part failed."""
        failed = np.zeros(len(self.batch), dtype=np.bool_)
        failed[list(self.errors)] = True
        return failed

    def call(self, name: str, scorer: Scorer, rows: BoolArray | None = None) -> FloatArray:
        """Call a part, and return its (B,) scores.

        Args:
            name: The name of the part.
            scorer: The part.
            rows: (B,) bool, the episodes that it is called on, all by default. The others have NaN. It is not called
                where there are none.
        """
        if rows is not None and not rows.any():
            part = unscored(scorer, len(self.batch))
        elif rows is None or rows.all():
            part = score_part(scorer, self.batch)
        else:
            part = _spread(score_part(scorer, self.batch.select(rows)), rows)
        self.components[name] = part.total
        for inner, values in part.components.items():
            self.components[f"{name}/{inner}"] = values
        if not self.errors:
            self._cause = part.cause
        for row, error in part.errors.items():
            self.errors.setdefault(row, f"part {name!r}: {error}")
        self._inner.append(part)
        return part.total

    def scores(self, total: FloatArray) -> Scores:
        """Return the combination's scores; an episode for which a part failed has no total."""
        if self.errors:
            total = np.where(self.failed, np.nan, total)
        return Scores(total, self.components, self.errors, self._cause, tuple(self._inner))


def _spread(scores: Scores, rows: BoolArray) -> Scores:
    """Return the scores of the episodes at ``rows`` as scores of all B, NaN for the others."""

    def full(values: FloatArray) -> FloatArray:
        spread_values = np.full(len(rows), np.nan)
        spread_values[rows] = values
        return spread_values

    places = rows.nonzero()[0].tolist()
    return replace(
        scores,
        total=full(scores.total),
        components={name: full(values) for name, values in scores.components.items()},
        errors={places[row]: error for row, error in scores.errors.items()},
        inner=tuple(_spread(inner, rows) for inner in scores.inner),
    )
