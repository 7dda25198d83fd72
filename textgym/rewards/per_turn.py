"""The score turn by turn, in dialogues."""

from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.rewards.base import FloatArray, Reward, RewardState, ScoreFunction
from textgym.scorers import Scorer, as_scorer, score_part

__all__ = ["PerTurn"]


class PerTurn(Reward):
    """What each turn of the agent is worth, given with the token that ends it.

    Without ``turn_scorer`` the environment's scorer is asked about the dialogue after each turn, the user's reply
    included, and the turn is given the change of the score since the turn before, the first one the whole score::

        r_k = score(dialogue after turn k) - score(dialogue after turn k - 1),   score before the first turn = 0

    so that the return, undiscounted, is the final score. With ``turn_scorer`` each turn is given the score of its own
    text instead, times ``weight``, and the last one the final score as well.

    A NaN, where a scorer failed or does not apply, gives 0. Where there is no user, the only turn ends with the
    text, and both rewards are given at the end.

    Args:
        turn_scorer: Anything that :func:`textgym.scorers.as_scorer` accepts; the completion that it sees is one turn.
            An error in it raises :class:`textgym.errors.ScorerError`.
        weight: Of ``turn_scorer``.

    >>> batch = TextBatch.from_texts(["done"])
    >>> PerTurn()(lambda batch: np.ones(len(batch)), batch, np.array([0.7]), np.array([0.2]))
    (array([0.5]), array([0.7]))
    >>> PerTurn(lambda turn: float(len(turn)), weight=0.1)(lambda batch: None, batch, np.array([0.7]), np.zeros(1))[0]
    array([1.1])
    """

    def __init__(self, turn_scorer: Any = None, weight: float = 1.0) -> None:
        self.turn_scorer = None if turn_scorer is None else as_scorer(turn_scorer)
        self.scorers = () if self.turn_scorer is None else (self.turn_scorer,)
        self.weight = weight

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards, and as state the scores, or with ``turn_scorer`` the number of turns, given so far."""
        if self.turn_scorer is not None:
            scores, num_given = _turn_scores(self.turn_scorer, batch, state)
            return np.nan_to_num(final_scores, nan=0.0) + self.weight * scores, num_given
        due = batch.turn_ended & ~batch.done
        worth = np.where(batch.done & ~np.isnan(final_scores), final_scores, state)
        if due.any():
            scores = score(batch.select(due))
            worth[due] = np.where(np.isnan(scores), state[due], scores)
        return worth - state, worth


def _turn_scores(scorer: Scorer, batch: TextBatch, num_given: RewardState) -> tuple[FloatArray, RewardState]:
    """Return (B,) float64, the score of the last turn where one has ended, else 0, and (B,) the scores given so far."""
    given, num_given = np.zeros(len(batch)), num_given.copy()
    ended = np.flatnonzero(batch.turn_ended)
    part = batch.select(ended)
    num_turns = np.array([len(said) for said in part.agent_turns], dtype=np.int64)
    is_new = num_turns > num_given[ended]  # not so where an invalid action wrote nothing after the turn's end
    if is_new.any():
        num_given[ended] = num_turns
        part = part.select(is_new)
        last = [said[-1] for said in part.agent_turns]
        turns = TextBatch.from_texts(last, part.prompts, part.references, part.metadata, part.tokenizer)
        scores = score_part(scorer, turns)
        if scores.error is not None:
            raise ScorerError(scores.error) from scores.cause
        given[ended[is_new]] = np.nan_to_num(scores.total, nan=0.0)
    return given, num_given
