"""Base classes of scorers that are made of other scorers, and the calls of the inner ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.base import EpisodewiseScorer, FloatArray, Range, Scorer, Scores
from textgym.scorers.evaluation import as_values, score_batch, unscored
from textgym.scorers.registry import as_scorer

__all__ = ["Composite", "InnerCalls", "Wrapper", "hull", "named_scorer", "product"]

BoolArray = npt.NDArray[np.bool_]


class Composite(EpisodewiseScorer):
    """Base class of scorers with inner scorers; see ``textgym.scorers.combine`` for the names of components.

    Implement ``combined``, or ``score_components`` where not every inner scorer scores every episode.
    """

    named_scorers: Mapping[str, Scorer]
    """Inner scorers by component name."""
    pointwise: bool = False
    """Whether ``combined`` depends on the totals alone, so that the composite is incremental if all inner are."""

    @property
    def scorers(self) -> tuple[Scorer, ...]:  # type: ignore[override]
        """The inner scorers, in order."""
        return tuple(self.named_scorers.values())

    @property
    def components(self) -> tuple[str, ...]:  # type: ignore[override]
        """The component names, each followed by the names nested in it."""
        return tuple(
            each
            for name, inner in self.named_scorers.items()
            for each in (name, *(f"{name}/{nested}" for nested in inner.components))
        )

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether all inner scorers are deterministic."""
        return all(scorer.deterministic for scorer in self.scorers)

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        """Whether the composite is pointwise and all inner scorers are incremental."""
        return self.pointwise and all(scorer.incremental for scorer in self.scorers)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Lowest and highest score; None if that of an inner scorer is unknown."""
        return None

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64 from the (B,) totals of the inner scorers, NaN where one failed or does not apply."""
        raise NotImplementedError(f"{type(self).__name__} implements neither combined nor score_components")

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which an inner scorer failed has no total."""
        calls = InnerCalls(batch)
        totals = [calls.score(name, scorer) for name, scorer in self.named_scorers.items()]
        return calls.scores(self.combined(totals, batch))

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B tuples of the inner scorers' states."""
        return list(zip(*(scorer.begin(batch) for scorer in self.scorers), strict=True))

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B tuples of states, one token later."""
        advanced = (scorer.advance(column, batch) for scorer, column in self._columns(states))
        return list(zip(*advanced, strict=True))

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
    """Base class of scorers with one inner scorer, whose name and components they keep.

    The score is kept too unless ``combined`` is overridden.
    """

    def __init__(self, scorer: Any) -> None:
        self.scorer = as_scorer(scorer)
        self.name = self.scorer.name

    @property
    def scorers(self) -> tuple[Scorer, ...]:  # type: ignore[override]
        """The inner scorer."""
        return (self.scorer,)

    @property
    def components(self) -> tuple[str, ...]:  # type: ignore[override]
        """Components of the inner scorer, or its name if it has none."""
        return self.scorer.components or (self.name,)

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Range of the inner scorer."""
        return self.scorer.score_range

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the inner scorer's totals."""
        return totals[0]

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the combined total, and the components of the inner scorer."""
        inner = score_batch(self.scorer, batch)
        components = inner.components or {self.name: inner.total}
        return Scores(self.combined([inner.total], batch), components, inner.errors, inner.cause, (inner,))


class InnerCalls:
    """Calls inner scorers on one batch of B episodes and collects their components and errors."""

    def __init__(self, batch: TextBatch) -> None:
        self.batch = batch
        self.components: dict[str, FloatArray] = {}
        self.errors: dict[int, str] = {}
        """Index of each failed episode -> the message of the first inner scorer that failed on it."""
        self._inner: list[Scores] = []
        self._cause: BaseException | None = None

    @property
    def failed(self) -> BoolArray:
        """(B,) bool, where an inner scorer failed."""
        failed = np.zeros(len(self.batch), dtype=np.bool_)
        failed[list(self.errors)] = True
        return failed

    def score(self, name: str, scorer: Scorer, rows: BoolArray | None = None) -> FloatArray:
        """Call an inner scorer and return its (B,) totals.

        Args:
            name: Its component name.
            scorer: The scorer.
            rows: (B,) bool, the episodes to score, all by default; the others get NaN. Without any, it is not called.
        """
        if rows is not None and not rows.any():
            scores = unscored(scorer, len(self.batch))
        elif rows is None or rows.all():
            scores = score_batch(scorer, self.batch)
        else:
            scores = _scattered(score_batch(scorer, self.batch.select(rows)), rows)
        self.components[name] = scores.total
        for inner, values in scores.components.items():
            self.components[f"{name}/{inner}"] = values
        if not self.errors:
            self._cause = scores.cause
        for row, error in scores.errors.items():
            self.errors.setdefault(row, f"component {name!r}: {error}")
        self._inner.append(scores)
        return scores.total

    def scores(self, total: FloatArray) -> Scores:
        """Return the composite's scores; an episode for which an inner scorer failed has no total."""
        if self.errors:
            total = np.where(self.failed, np.nan, total)
        return Scores(total, self.components, self.errors, self._cause, tuple(self._inner))


def _scattered(scores: Scores, rows: BoolArray) -> Scores:
    """Return scores of the episodes at ``rows`` as scores of all B, NaN elsewhere."""

    def full(values: FloatArray) -> FloatArray:
        scattered = np.full(len(rows), np.nan)
        scattered[rows] = values
        return scattered

    places = rows.nonzero()[0].tolist()
    return replace(
        scores,
        total=full(scores.total),
        components={name: full(values) for name, values in scores.components.items()},
        errors={places[row]: error for row, error in scores.errors.items()},
        inner=tuple(_scattered(inner, rows) for inner in scores.inner),
    )


def named_scorer(spec: Any, name: Any) -> Scorer:
    """Return the scorer of a component; errors of ``textgym.scorers.as_scorer`` are prefixed with its name."""
    try:
        return as_scorer(spec)
    except TypeError as error:
        raise TypeError(f"component {name!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"component {name!r}: {error}") from error


def hull(ranges: Iterable[Range]) -> Range:
    """Return the smallest range that contains all given ones."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def product(first: Range, second: Range) -> Range:
    """Return the range of a product."""
    corners = [a * b if a and b else 0.0 for a in first for b in second]  # 0 * inf is 0 here
    return min(corners), max(corners)
