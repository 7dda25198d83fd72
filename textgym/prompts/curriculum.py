"""Curriculum learning: levels of difficulty, promoted and demoted by success rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.prompts.base import PromptSource, Sample

__all__ = ["Curriculum"]


class Curriculum(PromptSource):
    """Draws prompts from levels of increasing difficulty, chosen by the success rate.

    Levels count from 1; training starts at the first. The success rate of the current level is an exponential moving
    average over its episodes that starts at 0: above ``promote_at`` the next level follows; below ``demote_at``, after
    at least ``4 * patience`` episodes, the previous one. A fraction of the episodes is drawn uniformly from the easier
    levels, against forgetting.

    The prompts depend on how earlier episodes ended, in a vector environment on those of all sub-environments. The
    state is part of snapshots and of agents' checkpoints.

    Args:
        levels: Prompt source of each level, the easiest first.
        success_score: Minimum score of a success.
        promote_at: Success rate above which the level rises, in (0, 1).
        demote_at: Success rate below which the level falls, in [0, ``promote_at``).
        patience: Time constant of the moving average, in episodes.
        review_share: Fraction of the episodes from easier levels, in [0, 1).

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
        """Return a sample of the current or an easier level, with the level in its metadata as ``"stage"``."""
        stage = self.level
        if stage > 1 and rng.random() < self.review_share:
            stage = 1 + int(rng.integers(stage - 1))
        sample = self.levels[stage - 1].draw(rng)
        return Sample(sample.prompt, sample.references, {**sample.metadata, "stage": stage})

    def observe(self, samples: Sequence[Sample], scores: npt.NDArray[np.float64]) -> None:
        """Update the success rate from K samples and (K,) scores. NaN scores (failed scorers) are ignored."""
        for sample, score in zip(samples, scores.tolist(), strict=True):
            if sample.metadata.get("stage") == self.level and not np.isnan(score):
                self._update(score >= self.success_score)

    def _update(self, succeeded: bool) -> None:
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
        """Return level, success rate and number of episodes observed, JSON-serialisable."""
        return {"level": self.level, "success_rate": self.success_rate, "num_observed": self.num_observed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state from ``get_state``."""
        if not 1 <= state["level"] <= len(self.levels):
            raise ValueError(f"the state has level {state['level']}, but this curriculum has {len(self.levels)} levels")
        self.level, self.success_rate = int(state["level"]), float(state["success_rate"])
        self.num_observed = int(state["num_observed"])
