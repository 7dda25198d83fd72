"""Each token's own share of the score, from a scorer that follows the text as it grows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.rewards.base import FloatArray, Reward, RewardState, ScoreFunction
from textgym.scorers import Scorer, scorer_names
from textgym.scorers.registry import scorer_factory

__all__ = ["PerToken"]


class _Kept(NamedTuple):
    """What is remembered of one text."""

    length: int
    """Tokens, prompt included, that ``state`` has seen."""
    state: Any
    """The scorer's state, or None where it was lost to an error."""
    given: float
    """The rewards so far, which are the score of the text so far."""


class PerToken(Reward):
    """What each token adds to the score of the text, at a cost per token that does not depend on the text's length.

    Reward of a step from text s to text s'::

        score(s') - score(s), where the text before the first step counts as 0

    The rewards of an episode sum to its final score. The scorer has to be incremental
    (:attr:`textgym.scorers.Scorer.incremental`); the final text is scored whole, once, as ever, and the last step
    settles what the increments left open. For any other scorer there is :class:`Potential`.

    Unlike potential-based shaping it is not made to leave the optimal policy as it is under a discount below 1:
    what an early token earns counts for more than what a late one does, which may be what is wanted.

    Where the scorer fails under the policy ``"invalid"``, a step gives 0, and the next one makes up for it; where
    the policy is a number, that is the score of the text so far.

    >>> import gymnasium, textgym
    >>> from textgym.scorers import LengthBand
    >>> keywords = {"tokenizer": "char", "prompts": ["Hi"], "scorer": LengthBand(4, 4)}
    >>> env = gymnasium.make("TextGen-v0", reward="per_token", **keywords)
    >>> _ = env.reset(seed=0)
    >>> [env.step(0)[1] for _ in range(5)]
    [0.25, 0.25, 0.25, 0.25, -0.25]
    """

    per_token = True
    scorer: Scorer

    def for_scorer(self, scorer: Scorer) -> "PerToken":
        """Return the reward of an environment with this scorer.

        Raises:
            ValueError: If the scorer is not incremental.
        """
        if not scorer.incremental:
            able = ", ".join(name for name in scorer_names() if _is_incremental_by_name(name))
            raise ValueError(
                f"reward='per_token' needs an incremental scorer, which {scorer.name!r} is not"
                f"{_because(scorer)}; incremental are, among others, {able}. "
                "textgym.rewards.Potential(every=4) gives rewards to steps from any scorer."
            )
        bound = PerToken()
        bound.scorer = scorer
        return bound

    def start(self, score: ScoreFunction, batch: TextBatch) -> RewardState:
        """Return (B,) objects: no reward has been given, whatever the text begins with."""
        follow = _Follow(self.scorer, None)
        score(batch, follow)
        states = follow.states or [None] * len(batch)
        kept = zip(batch.lengths.tolist(), states, strict=True)
        return _objects((_Kept(length, state, 0.0) for length, state in kept), len(batch))

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards, and what is remembered of each text as state."""
        kept: list[_Kept] = state.tolist()
        lengths = batch.lengths.tolist()
        given = np.array([text.given for text in kept])
        values = given.copy()
        grown = [i for i, text in enumerate(kept) if text.length != lengths[i]]  # an ignored action writes nothing
        if grown:
            texts = batch if len(grown) == len(batch) else batch.select(np.array(grown))
            states = [kept[i].state for i in grown]
            follow = _Follow(self.scorer, None if any(state is None for state in states) else states)
            now = score(texts, follow)
            values[grown] = np.where(np.isnan(now), given[grown], now)
            for i, grown_state in zip(grown, follow.states or [None] * len(grown), strict=True):
                kept[i] = _Kept(lengths[i], grown_state, values[i])
        settled = batch.done & ~np.isnan(final_scores)
        values[settled] = final_scores[settled]
        return values - given, _objects(kept, len(batch))


class _Follow(Scorer):
    """The scorer's next value of some texts, as a scorer, so that errors fall under the environment's policy."""

    def __init__(self, scorer: Scorer, before: list[Any] | None) -> None:
        self.scorer = scorer
        self.before = before
        self.states: list[Any] | None = None
        """The states afterwards, None where the scorer failed."""
        self.name = scorer.name

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, 0 where the scorer does not apply to an unfinished text."""
        states = self.scorer.begin(batch) if self.before is None else self.scorer.advance(self.before, batch)
        values = self.scorer.value(states, batch)
        self.states = states
        return np.where(np.isnan(values), 0.0, values)


def _objects(values: Iterable[_Kept], size: int) -> RewardState:
    return np.fromiter(values, dtype=object, count=size)


def _because(scorer: Scorer) -> str:
    """Return which scorer inside of a combined one is not incremental, as the end of a clause."""
    culprit: Scorer = scorer
    inner: Scorer | None = scorer
    while inner is not None:
        culprit = inner
        inner = next((one for one in culprit.scorers if not one.incremental), None)
    if culprit.scorers:
        return f" because of {type(culprit).__name__}"
    return "" if culprit.name == scorer.name else f" because of {culprit.name!r}"


def _is_incremental_by_name(name: str) -> bool:
    try:
        factory = scorer_factory(name)
        return isinstance(factory, type) and issubclass(factory, Scorer) and factory.incremental is not False
    except ImportError:
        return False
