"""How the parts of a combined scorer are asked: on which episodes, under which names, and which of them failed."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer, Scores, score_part

__all__ = ["Gathered", "component_names"]

BoolArray = npt.NDArray[np.bool_]


class Gathered:
    """What the parts said of B episodes so far."""

    def __init__(self, batch: TextBatch) -> None:
        self.batch = batch
        self.components: dict[str, FloatArray] = {}
        self.failed: BoolArray | None = None
        """(B,) bool, where a part failed, None while none did."""
        self._error: str | None = None
        self._cause: Exception | None = None

    def ask(self, name: str, scorer: Scorer, rows: BoolArray | None = None) -> FloatArray:
        """Call a part, and return its (B,) scores.

        Args:
            name: The name of the part.
            scorer: The part.
            rows: (B,) bool, the episodes that it is called on, all by default. The others have NaN. It is not called
                where there are none.
        """
        if rows is not None and not rows.any():
            part = _unasked(scorer, len(self.batch))
        elif rows is None or rows.all():
            part = score_part(scorer, self.batch)
        else:
            part = _spread(score_part(scorer, self.batch.select(rows)), rows)
        self.components[name] = part.total
        for inner, values in part.components.items():
            self.components[f"{name}/{inner}"] = values
        if part.error is not None:
            self._note(part, f"part {name!r}: {part.error}", rows)
        return part.total

    def scores(self, total: FloatArray) -> Scores:
        """Return the combination's scores; an episode for which a part failed has no total."""
        if self.failed is not None:
            total = np.where(self.failed, np.nan, total)
        return Scores(total, self.components, self._error, self.failed, self._cause)

    def _note(self, part: Scores, error: str, rows: BoolArray | None) -> None:
        failed = part.failed
        if failed is None:
            failed = np.ones(len(self.batch), dtype=np.bool_) if rows is None else rows
        if self._error is None:
            self._error, self._cause = error, part.cause
        self.failed = failed.copy() if self.failed is None else self.failed | failed


def _unasked(scorer: Scorer, size: int) -> Scores:
    """Return the scores of a scorer that was not called: NaN under the names that it would have used."""
    return Scores(np.full(size, np.nan), {name: np.full(size, np.nan) for name in component_names(scorer)})


def _spread(scores: Scores, rows: BoolArray) -> Scores:
    """Return the scores of the episodes at ``rows`` as scores of all B, NaN for the others."""

    def full(values: FloatArray) -> FloatArray:
        spread_values = np.full(len(rows), np.nan)
        spread_values[rows] = values
        return spread_values

    failed = scores.failed
    if failed is not None:
        failed = np.zeros(len(rows), dtype=np.bool_)
        failed[rows] = scores.failed
    components = {name: full(values) for name, values in scores.components.items()}
    return Scores(full(scores.total), components, scores.error, failed, scores.cause)


def component_names(scorer: object) -> Iterator[str]:
    """Yield the names that a scorer's components have, parts of parts included, without calling it."""
    parts = getattr(scorer, "parts", None)
    if isinstance(parts, Mapping):
        for name, part in parts.items():
            yield name
            inner = part[0] if isinstance(part, tuple) else part
            yield from (f"{name}/{below}" for below in component_names(inner))
