"""The score at the end, and nothing before."""

from textgym.batch import TextBatch
from textgym.rewards.base import FloatArray, Reward, RewardState, ScoreFunction

__all__ = ["Terminal"]


class Terminal(Reward):
    """The final score at the end of an episode, 0 before.

    >>> import numpy as np
    >>> batch = TextBatch.from_texts(["done"])
    >>> Terminal()(lambda batch: np.ones(len(batch)), batch, np.array([0.7]), np.array([0.0]))[0]
    array([0.7])
    """

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return ``final_scores`` and ``state`` as they are."""
        return final_scores, state
