"""The contract of rewards: how the scores of texts become the rewards of steps."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import Scorer

__all__ = ["Memory", "Redistribution", "Reward", "ScoreFunction"]

FloatArray = npt.NDArray[np.float64]
Memory = npt.NDArray[Any]
"""(B,) floats, or (B,) objects, none of which is ever changed in place."""


class ScoreFunction(Protocol):
    """The environment's scorer, checked and under its error policy."""

    def __call__(self, batch: TextBatch, scorer: Scorer | None = None) -> FloatArray:
        """Return (B,) float64, NaN only where the error policy is ``"invalid"``; by ``scorer`` instead, if given."""
        ...


class Reward(Protocol):
    """Turns the scores of B episodes into rewards.

    A reward is a stateless object: what it has to remember of an episode is one value, which the environment keeps,
    snapshots and hands back. One that needs the scorer itself has a method ``for_scorer(scorer) -> Reward``, which the
    environment calls when it is made. One that changes in the course of training has ``set_progress``, as a scorer has.
    """

    def start(self, score: ScoreFunction, batch: TextBatch) -> Memory:
        """Return (B,) values, the memory of B episodes that begin."""
        ...

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, memory: Memory
    ) -> tuple[FloatArray, Memory]:
        """Return the rewards of one step and the new memory.

        Args:
            score: Scores any batch.
            batch: The B episodes after their action.
            final_scores: (B,) float64, the score where ``batch.done``, else 0; NaN where the scorer failed under the
                policy ``"invalid"``, for which the environment pays 0.
            memory: (B,) values, what the step before returned. It must not be changed in place.

        Returns:
            (B,) float64 rewards and (B,) memory.
        """
        ...


@runtime_checkable
class Redistribution(Reward, Protocol):
    """A reward that, once a text is finished, also says which token was worth how much of its score."""

    def token_rewards(self, score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
        """Return K arrays, one entry per token of K finished completions, each of which sums to the final score."""
        ...
