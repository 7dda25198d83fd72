"""The contract of rewards: how the scores of texts become the rewards of steps."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import Scorer

__all__ = ["Reward", "RewardState", "ScoreFunction"]

FloatArray = npt.NDArray[np.float64]
RewardState = npt.NDArray[Any]
"""(B,) floats, or (B,) objects, none of which is ever changed in place."""


class ScoreFunction(Protocol):
    """The environment's scorer, checked and under its error policy."""

    def __call__(self, batch: TextBatch, scorer: Scorer | None = None) -> FloatArray:
        """Return (B,) float64, NaN only where the error policy is ``"invalid"``; by ``scorer`` instead, if given."""
        ...


class Reward(ABC):
    """Turns the scores of B episodes into rewards. ``__call__`` is the one method to fill in.

    A reward has no state of its own: what it has to remember of an episode is one value, which the environment keeps,
    snapshots and hands back.
    """

    per_token: bool = False
    """Whether each token gets its own reward, in its step or afterwards by ``on_episode_end``. Those of a simulated
    user have none, so such a reward cannot be combined with ``user=...``."""
    scorers: tuple[Scorer, ...] = ()
    """Scorers of its own, besides the environment's. Progress, observation and saved states reach them through it."""

    def for_scorer(self, scorer: Scorer) -> "Reward":
        """Return the reward of an environment with this scorer, called when it is made; by default this very one.

        Raises:
            ValueError: If the reward cannot be had from this scorer.
        """
        return self

    def start(self, score: ScoreFunction, batch: TextBatch) -> RewardState:
        """Return (B,) values, the state of B episodes that begin; by default zeros."""
        return np.zeros(len(batch))

    @abstractmethod
    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards of one step and the new state.

        Args:
            score: Scores any batch.
            batch: The B episodes after their action.
            final_scores: (B,) float64, the score where ``batch.done``, else 0; NaN where the scorer failed under the
                policy ``"invalid"``, for which the environment gives 0.
            state: (B,) values, what the step before returned. It must not be changed in place.

        Returns:
            (B,) float64 rewards and (B,) state.
        """

    def on_episode_end(
        self, score: ScoreFunction, texts: TextBatch, final_scores: FloatArray
    ) -> list[FloatArray] | None:
        """Return what each token of K ended episodes earned, for ``info["token_rewards"]``; by default None.

        Only called where ``per_token``.

        Args:
            score: Scores any batch.
            texts: The K texts.
            final_scores: (K,) float64, NaN where the scorer failed under the policy ``"invalid"``.

        Returns:
            K arrays with one finite number per token of the completion, which sum to the final score.
        """
        return None

    def set_progress(self, progress: float) -> None:
        """Take note of the share of training that is done, 0 to 1; by default it is passed on to ``scorers``."""
        for scorer in self.scorers:
            scorer.set_progress(progress)
