"""One score maximised while another is kept high enough on average."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Range, Scores
from textgym.scorers.combine.arguments import as_count, as_finite, as_part
from textgym.scorers.combine.composite import Composite
from textgym.scorers.combine.ranges import hull

__all__ = ["Constrained"]


class Constrained(Composite):
    """The objective plus the constraint times a multiplier, which rises while the constraint is not met.

    Maximises the mean of the objective A subject to ``mean of the constraint B >= b``. Formula::

        total = (A + multiplier * (B - b)) / (1 + multiplier)
        multiplier <- max(0, multiplier - learning_rate * (mean(B) - b))     after every n observed episodes

    Dividing by ``1 + multiplier`` changes no policy's rank and keeps the total in the range of A and B - b, so that the
    reward does not grow while the constraint is violated. The mean is that of n episodes in the order in which they
    end, whatever batches they come in. They are counted by :meth:`observe`; scoring leaves the multiplier as it is.
    Where the constraint does not apply, ``B - b`` is 0; where the objective does not, neither does the total.
    Components are ``"objective"`` and ``"constraint"``.

    Range: that of A, of B - b and 0 together. An empty completion scores what the parts give it. Not deterministic: the
    multiplier moves, unless ``frozen``, which is an attribute: set it for evaluation. Not incremental. A constraint
    that no text can meet drives the multiplier up without end, and it takes as long to come down: watch it.

    Sources: Tessler, Mankowitz and Mannor, Reward Constrained Policy Optimization, ICLR 2019,
    https://arxiv.org/abs/1805.11074; the division as in Stooke, Achiam and Abbeel, Responsive Safety in Reinforcement
    Learning by PID Lagrangian Methods, ICML 2020, https://arxiv.org/abs/2007.03964; reward models as constraints as in
    Moskovitz et al., Confronting Reward Model Overoptimization with Constrained RLHF, ICLR 2024,
    https://arxiv.org/abs/2310.04373

    Args:
        objective: A, anything that :func:`textgym.scorers.as_scorer` accepts.
        constraint: B, of the same kinds.
        at_least: b.
        learning_rate: The step of the multiplier.
        texts_per_update: n.

    Raises:
        ValueError: If ``at_least`` is not finite, ``learning_rate`` not positive or ``texts_per_update`` not a positive
            whole number.
        TypeError: If a number is not one.

    >>> scorer = Constrained(len, "length_band", 0.5, learning_rate=2.0, texts_per_update=2)
    >>> batch = TextBatch.from_texts(["ab", "abcd"])
    >>> scores = scorer.score_components(batch)
    >>> scorer.observe(batch, scores)
    >>> scores.total, scorer.multiplier
    (array([2., 4.]), 0.25)
    >>> scorer(TextBatch.from_texts(["abcdefgh"]))
    array([6.5])
    """

    def __init__(
        self, objective: Any, constraint: Any, at_least: float, learning_rate: float = 0.05, texts_per_update: int = 64
    ) -> None:
        self.parts = {"objective": as_part(objective, "objective"), "constraint": as_part(constraint, "constraint")}
        self.at_least = as_finite(at_least, "at_least")
        self.learning_rate = as_finite(learning_rate, "learning_rate")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {learning_rate!r}, expected a positive number")
        self.texts_per_update = as_count(texts_per_update, "texts_per_update")
        self.frozen = False
        self.multiplier = 0.0
        """The weight of the constraint, never negative."""
        self._waiting: list[float] = []

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the multiplier is frozen, and the parts are deterministic."""
        return self.frozen and super().deterministic

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the weighted means."""
        objective, constraint = totals
        slack = np.where(np.isnan(constraint), 0.0, constraint - self.at_least)
        result: FloatArray = (objective + self.multiplier * slack) / (1.0 + self.multiplier)
        return result

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Count the constraint's scores of finished episodes, unless frozen."""
        if not self.frozen:
            constraint = scores.inner[1].total
            self._ascend(constraint[batch.done & ~np.isnan(constraint)].tolist())

    def get_state(self) -> dict[str, Any]:
        """Return the multiplier, and the constraint's scores that wait for its next update, as JSON can hold them."""
        return {"multiplier": self.multiplier, "waiting": list(self._waiting)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`get_state` returned.

        Raises:
            KeyError: If a part of it is missing.
            ValueError: If the multiplier is negative, or a number not finite.
        """
        multiplier = as_finite(state["multiplier"], "multiplier")
        if multiplier < 0:
            raise ValueError(f"multiplier is {multiplier!r}, expected a number from 0 on")
        self._waiting = [as_finite(score, "a waiting score") for score in state["waiting"]]
        self.multiplier = multiplier

    def _ascend(self, scores: list[float]) -> None:
        self._waiting += scores
        size = self.texts_per_update
        while len(self._waiting) >= size:
            mean = float(np.mean(self._waiting[:size]))
            del self._waiting[:size]
            self.multiplier = max(0.0, self.multiplier - self.learning_rate * (mean - self.at_least))

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """That of the objective, of the constraint's slack and 0 together."""
        objective, constraint = (scorer.score_range for scorer in self.scorers)
        if objective is None or constraint is None:
            return None
        low, high = constraint
        return hull([objective, (low - self.at_least, high - self.at_least), (0.0, 0.0)])
