"""A score that counts only where another one is high enough."""

from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range, Scores
from textgym.scorers.combine.arguments import as_finite, as_number_or_nan, as_part
from textgym.scorers.combine.composite import Composite, Gathered
from textgym.scorers.combine.ranges import hull

__all__ = ["Gate"]


class Gate(Composite):
    """The score of the texts that meet a condition; the others get ``otherwise``, and are not scored.

    Formula: ``score if condition >= at_least else otherwise``. An episode to which the condition does not apply (NaN)
    passes. NaN where the scorer is called and does not apply. The scorer is called once, on the episodes that pass, and
    not at all where none does: a cheap condition before an expensive judge saves its calls. Components are
    ``"condition"`` and ``"score"``, NaN where it was not called.

    Range: that of the scorer and ``otherwise``. An empty completion scores what the parts make of it; deterministic if
    they are. Not incremental. If the scorer can be below ``otherwise``, failing the condition can be rewarded.

    Args:
        condition: Anything that :func:`textgym.scorers.as_scorer` accepts.
        at_least: The least score of the condition that passes.
        scorer: The scorer of passing texts, of the same kinds.
        otherwise: The score of the others; NaN: the gate does not apply to them.

    Raises:
        ValueError: If ``at_least`` is not finite, or ``otherwise`` infinite.
        TypeError: If one is not a number.

    >>> from textgym.scorers import Keywords
    >>> scorer = Gate("length_band", 0.5, Keywords(["cat"]), otherwise=-1.0)
    >>> scorer(TextBatch.from_texts(["a cat", "an old dog", "cat"]))
    array([ 1.,  0., -1.])
    """

    def __init__(self, condition: Any, at_least: float, scorer: Any, otherwise: float = 0.0) -> None:
        self.at_least = as_finite(at_least, "at_least")
        self.otherwise = as_number_or_nan(otherwise, "otherwise")
        self.parts = {"condition": as_part(condition, "condition"), "score": as_part(scorer, "score")}

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a part that was called failed has no total."""
        gathered = Gathered(batch)
        condition = gathered.call("condition", self.parts["condition"])
        passes = np.isnan(condition) | (condition >= self.at_least)
        passes &= ~gathered.failed
        score: FloatArray = gathered.call("score", self.parts["score"], passes)
        return gathered.scores(np.where(passes, score, self.otherwise))

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """The least and the greatest score, None where that of an inner scorer is not known."""
        limits = self.parts["score"].score_range
        if limits is None or np.isnan(self.otherwise):
            return limits
        return hull([limits, (self.otherwise, self.otherwise)])
