"""The contract of rewards, and the terminal reward."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import Scorer, observe_episodes
from textgym.scorers.base import FloatArray

__all__ = ["Reward", "RewardState", "ScoreFunction", "Terminal", "checked_rewards", "checked_token_rewards"]

RewardState = npt.NDArray[Any]
"""(B,) floats, or (B,) objects that are never changed in place."""


class ScoreFunction(Protocol):
    """The environment's scorer, with checked results and ``on_scorer_error`` applied."""

    def __call__(self, batch: TextBatch, scorer: Scorer | None = None) -> FloatArray:
        """Return (B,) float64 scores, by ``scorer`` if given; NaN only with ``on_scorer_error="invalid"``."""
        ...


class Reward(ABC):
    """Turns the scores of B episodes into step rewards. ``__call__`` is the one method to fill in.

    A reward keeps one value of state per episode, which the environment stores, snapshots and passes back.
    """

    per_token: bool = False
    """Whether each token gets its own reward, in its step or afterwards by ``on_episode_end``. The tokens of a
    simulated user have none, so such a reward cannot be combined with ``user=...``."""
    scorers: tuple[Scorer, ...] = ()
    """The reward's own scorers, besides the environment's. Progress and saved states reach them through it."""

    def for_scorer(self, scorer: Scorer) -> "Reward":
        """Return the reward for an environment with this scorer; by default ``self``.

        Raises:
            ValueError: If the reward does not support this scorer.
        """
        return self

    def start(self, score: ScoreFunction, batch: TextBatch) -> RewardState:
        """Return the (B,) initial states of B new episodes; by default zeros."""
        return np.zeros(len(batch))

    @abstractmethod
    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards of one step and the new state.

        Args:
            score: Scores any batch.
            batch: The B episodes after their action.
            final_scores: (B,) float64, read-only: the score where ``batch.done``, else 0; NaN where the scorer failed
                and ``on_scorer_error="invalid"``, for which the environment gives 0.
            state: (B,) states from the step before, read-only.

        Returns:
            (B,) float64 rewards and (B,) states.
        """

    def on_episode_end(
        self, score: ScoreFunction, texts: TextBatch, final_scores: FloatArray
    ) -> list[FloatArray] | None:
        """Return the token rewards of K ended episodes for ``info["token_rewards"]``; by default None.

        Only called if ``per_token``.

        Args:
            score: Scores any batch.
            texts: The K texts.
            final_scores: (K,) float64, read-only; NaN where the scorer failed and ``on_scorer_error="invalid"``; token
                rewards that are NaN become 0 there.

        Returns:
            K arrays with one finite number per token of the completion, which sum to the final score.
        """
        return None

    def observe(self, batch: TextBatch, seen: set[int]) -> None:
        """Let ``scorers`` learn from episodes that ended; by default they observe the final texts.

        Called once per episode, after its last step has succeeded, and not in clones.

        Args:
            batch: B finished episodes.
            seen: ``id`` of the scorers that have observed these episodes, for
                ``textgym.scorers.observe_episodes``.
        """
        for scorer in self.scorers:
            observe_episodes(scorer, batch, seen=seen)

    def set_progress(self, progress: float) -> None:
        """Receive the fraction of training that is done, 0 to 1; by default passed on to ``scorers``."""
        for scorer in self.scorers:
            scorer.set_progress(progress)


class Terminal(Reward):
    """The final score at the end of an episode, 0 before.

    >>> batch = TextBatch.from_texts(["done"])
    >>> Terminal()(lambda batch: np.ones(len(batch)), batch, np.array([0.7]), np.array([0.0]))[0]
    array([0.7])
    """

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return ``final_scores`` and ``state`` unchanged."""
        return final_scores, state


def checked_rewards(
    reward: Reward, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
) -> tuple[FloatArray, RewardState]:
    """Return ``reward(score, batch, final_scores, state)``, called with read-only arrays.

    Raises:
        ValueError: If rewards or state are not of shape (B,).
    """
    final_scores.setflags(write=False)
    state.setflags(write=False)
    rewards, new_state = reward(score, batch, final_scores, state)
    final_scores.setflags(write=True)
    if rewards is not final_scores or new_state is not state:  # as in most rewards but the terminal one
        rewards, new_state = np.array(rewards, dtype=np.float64), np.asarray(new_state)
        if rewards.shape != final_scores.shape or new_state.shape != final_scores.shape:
            raise ValueError(
                f"{type(reward).__name__} returned rewards of shape {rewards.shape} and a state of shape "
                f"{new_state.shape} for {len(batch)} episodes, expected {final_scores.shape} for both"
            )
    return rewards, new_state


def checked_token_rewards(
    reward: Reward, score: ScoreFunction, texts: TextBatch, final_scores: FloatArray
) -> list[FloatArray] | None:
    """Return ``reward.on_episode_end(score, texts, final_scores)``, with 0 for NaN where the final score is NaN.

    Raises:
        ValueError: If it is not one array per text, with one finite number per token of the completion, or changes
            ``final_scores`` in place.
    """
    final_scores = final_scores.view()
    final_scores.setflags(write=False)
    returned = reward.on_episode_end(score, texts, final_scores)
    if returned is None:
        return None
    shares = [np.array(share, dtype=np.float64) for share in returned]
    name = f"{type(reward).__name__}.on_episode_end"
    if [share.shape for share in shares] != [(length,) for length in texts.num_new_tokens.tolist()]:
        raise ValueError(
            f"{name} returned {[share.size for share in shares]} rewards for texts of {texts.num_new_tokens} tokens"
        )
    for share, final in zip(shares, final_scores.tolist(), strict=True):
        if np.isnan(final):
            share[np.isnan(share)] = 0.0
        if not np.isfinite(share).all():
            raise ValueError(f"{name} returned {share!r:.200}, expected finite numbers")
    return shares
