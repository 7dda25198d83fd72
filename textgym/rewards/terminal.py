"""The score at the end, and nothing before."""

import numpy as np

from textgym.batch import TextBatch
from textgym.rewards.base import FloatArray, Memory, ScoreFunction

__all__ = ["Terminal"]


class Terminal:
    """The final score at the end of an episode, 0 before.

    >>> batch = TextBatch.from_texts(["done"])
    >>> Terminal()(lambda batch: np.ones(len(batch)), batch, np.array([0.7]), np.array([0.0]))[0]
    array([0.7])
    """

    def start(self, score: ScoreFunction, batch: TextBatch) -> Memory:
        """Return (B,) zeros: nothing is remembered."""
        return np.zeros(len(batch))

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, memory: Memory
    ) -> tuple[FloatArray, Memory]:
        """Return ``final_scores`` and ``memory`` as they are."""
        return final_scores, memory
