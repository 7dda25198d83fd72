"""Potential-based shaping: each step's reward is the change of the score, and policies keep their order."""

from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.rewards.base import FloatArray, Reward, RewardState, ScoreFunction
from textgym.scorers import as_scorer, evaluate

__all__ = ["Potential"]


class Potential(Reward):
    """The final score plus potential-based shaping, which gives each step what it adds to the score.

    Reward of a step from text s to text s'::

        final_score(s') if s' is finished else 0, plus gamma * Phi(s') - Phi(s)

    Phi of an unfinished text is its score so far, Phi of a finished one is 0, whether it was terminated or used up its
    budget. Shaping telescopes: the return, discounted by ``gamma``, is that of :class:`Terminal` minus Phi of the
    prompt alone. No action changes that difference, so policies keep their order and the optimal ones stay optimal,
    which fails where the last text keeps a potential of its own. Do not combine it with
    ``time_limit="truncated"`` and an agent that bootstraps: its value estimates have Phi subtracted from them.

    A potential that is NaN, where the scorer failed or does not apply, counts as 0, and so does a final score.
    Costs one call of the scorer for all unfinished texts in every step. With ``every=k`` a text is scored only when
    an episode begins with it or its completion has a multiple of k tokens, and Phi stays what it was in between: all of
    the above holds, and the shaping comes in fewer and larger steps.

    Sources: Ng, Harada, Russell, Policy invariance under reward transformations, ICML 1999; Grzes, Reward shaping in
    episodic reinforcement learning, AAMAS 2017 (why the last potential has to be 0).

    Args:
        gamma: The agent's discount, in (0, 1].
        potential: What gives Phi in place of the environment's scorer: anything that
            :func:`textgym.scorers.as_scorer` accepts. An error in it raises :class:`textgym.errors.ScorerError`.
        every: k, in tokens.

    Raises:
        ValueError: If gamma is not in (0, 1], or ``every`` no positive integer.

    >>> unfinished = TextBatch.from_texts(["a happy"])
    >>> unfinished.done = np.array([False])
    >>> Potential()(lambda batch: np.array([0.5]), unfinished, np.array([0.0]), np.array([0.2]))
    (array([0.3]), array([0.5]))
    """

    def __init__(self, gamma: float = 1.0, potential: Any = None, every: int = 1) -> None:
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {gamma!r}")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive integer, got {every!r}")
        self.gamma = gamma
        self.potential = None if potential is None else as_scorer(potential)
        self.scorers = () if self.potential is None else (self.potential,)
        self.every = every

    def start(self, score: ScoreFunction, batch: TextBatch) -> RewardState:
        """Return (B,) float64, Phi of the prompts alone."""
        return self._phi(score, batch, None)

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards, and Phi of the texts as state."""
        phi = self._phi(score, batch, state)
        base = np.where(np.isnan(final_scores), 0.0, final_scores)
        return base + self.gamma * phi - state, phi

    def _phi(self, score: ScoreFunction, batch: TextBatch, before: RewardState | None) -> FloatArray:
        """Return (B,) float64, Phi of the texts; ``before`` is that of the texts without their last token."""
        phi = np.zeros(len(batch)) if before is None else np.where(batch.done, 0.0, before)
        due = ~batch.done if before is None else ~batch.done & (batch.num_new_tokens % self.every == 0)
        if due.any():
            texts = batch if due.all() else batch.select(due)
            values = score(texts) if self.potential is None else evaluate(self.potential, texts).total
            phi[due] = np.where(np.isnan(values), 0.0, values)
        return phi
