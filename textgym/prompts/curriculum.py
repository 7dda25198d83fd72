"""Prompts that grow harder with success: levels of difficulty, and the rule that chooses among them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.prompts.base import PromptSource, Sample

__all__ = ["Curriculum"]


class Curriculum(PromptSource):
    """Draws from the level that is neither solved nor out of reach, by the success rate of the episodes so far.

    Levels count from 1. Training begins at the first. The success rate of the present level is a running average over
    its episodes, which begins at 0 on entering it: above ``promote_at`` the level is left for the next one, below
    ``demote_at``, once four times ``patience`` episodes of it have ended, for the one before. A share of the episodes
    is drawn from the easier levels, evenly, so that they are not forgotten.

    The environment tells it how its episodes ended, so which prompts come depends on what the agent did, and in a
    vector environment on all slots. Its state is part of snapshots and of agents' checkpoints.

    Args:
        levels: The prompts of each level, the easiest first.
        success_score: The score from which on an episode counts as a success.
        promote_at: Success rate, in (0, 1).
        demote_at: Success rate, less than ``promote_at``.
        patience: How many episodes the average looks back on, more or less.
        review_share: Share of the episodes that come from easier levels, in [0, 1).

    Raises:
        ValueError: If there is no level, or a number is outside of its range.

    >>> from textgym.prompts import ListPrompts
    >>> curriculum = Curriculum([ListPrompts(["easy"]), ListPrompts(["hard"])], patience=2, review_share=0.0)
    >>> easy = curriculum.draw(np.random.default_rng(0))
    >>> curriculum.observe([easy, easy, easy, easy], np.ones(4))
    >>> curriculum.draw(np.random.default_rng(0)).prompt, curriculum.level
    ('hard', 2)
    """

    def __init__(
        self,
        levels: Sequence[PromptSource],
        success_score: float = 1.0,
        promote_at: float = 0.7,
        demote_at: float = 0.1,
        patience: int = 128,
        review_share: float = 0.2,
    ) -> None:
        if not levels:
            raise ValueError("a curriculum needs at least one level")
        if not 0 <= demote_at < promote_at < 1:
            raise ValueError(f"expected 0 <= demote_at < promote_at < 1, got {demote_at} and {promote_at}")
        if patience < 1 or not 0 <= review_share < 1:
            raise ValueError(f"expected patience >= 1 and 0 <= review_share < 1, got {patience} and {review_share}")
        self.levels = tuple(levels)
        self.success_score = success_score
        self.promote_at = promote_at
        self.demote_at = demote_at
        self.patience = patience
        self.review_share = review_share
        self.level = 1
        self.success_rate = 0.0
        self.num_observed = 0

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a sample of the present level, or of an easier one; its metadata's ``stage`` says of which."""
        stage = self.level
        if stage > 1 and rng.random() < self.review_share:
            stage = 1 + int(rng.integers(stage - 1))
        sample = self.levels[stage - 1].draw(rng)
        return Sample(sample.prompt, sample.references, {**sample.metadata, "stage": stage})

    def observe(self, samples: Sequence[Sample], scores: npt.NDArray[np.float64]) -> None:
        """Learn how episodes ended: their samples and (K,) scores. NaN scores (failed scorers) are ignored."""
        for sample, score in zip(samples, scores.tolist(), strict=True):
            if sample.metadata.get("stage") == self.level and not np.isnan(score):
                self._count(score >= self.success_score)

    def _count(self, succeeded: bool) -> None:
        self.num_observed += 1
        self.success_rate += (succeeded - self.success_rate) / self.patience
        step = 0
        if self.success_rate > self.promote_at and self.level < len(self.levels):
            step = 1
        elif self.success_rate < self.demote_at and self.num_observed >= 4 * self.patience and self.level > 1:
            step = -1
        if step:
            self.level, self.success_rate, self.num_observed = self.level + step, 0.0, 0

    def get_state(self) -> dict[str, Any]:
        """Return how far it has come, as JSON can hold it."""
        return {"level": self.level, "success_rate": self.success_rate, "num_observed": self.num_observed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of ``get_state``.

        Raises:
            ValueError: If there is no such level.
        """
        if not 1 <= state["level"] <= len(self.levels):
            raise ValueError(f"the state is of level {state['level']}, this curriculum has {len(self.levels)} levels")
        self.level, self.success_rate = int(state["level"]), float(state["success_rate"])
        self.num_observed = int(state["num_observed"])
