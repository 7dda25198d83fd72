"""Dense rewards: score increments per token or per turn, and potential-based shaping."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.rewards.base import Reward, RewardState, ScoreFunction
from textgym.scorers import Scorer, as_scorer, evaluate, observe_episodes, score_batch, scorer_names
from textgym.scorers.base import FloatArray
from textgym.scorers.evaluation import observes
from textgym.scorers.registry import scorer_factory

__all__ = ["PerToken", "PerTurn", "Potential"]


# Per token ------------------------------------------------------------------------------------------------------


class _TextState(NamedTuple):
    length: int
    """Tokens, prompt included, that ``scorer_state`` has processed."""
    scorer_state: Any
    """None if it was lost to an error."""
    score: float
    """Score of the text so far, which is the sum of its rewards."""


class PerToken(Reward):
    """The score increment of each token, from an incremental scorer.

    Reward of a step from text s to text s'::

        score(s') - score(s), with score 0 for the text before the first step

    The rewards of an episode sum to its final score, and their cost does not depend on the text's length. The scorer
    must be incremental (``textgym.scorers.Scorer.incremental``); the final text is also scored as a whole, and the
    last step corrects the difference. For other scorers use ``Potential``.

    Unlike potential-based shaping, the optimal policy can change under a discount below 1: early tokens count more.

    Where the scorer fails, with ``on_scorer_error="invalid"`` a step gives 0 and the next one includes its increment;
    with a number, that number is the score of the text so far.

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
        """Return the reward for an environment with this scorer.

        Raises:
            ValueError: If the scorer is not incremental.
        """
        if not scorer.incremental:
            known = ", ".join(name for name in scorer_names() if _is_incremental(name))
            raise ValueError(
                f"reward='per_token' needs an incremental scorer, which {scorer.name!r} is not"
                f"{_because(scorer)}; incremental are, among others, {known}. "
                "textgym.rewards.Potential(every=4) gives step rewards with any scorer."
            )
        bound = PerToken()
        bound.scorer = scorer
        return bound

    def start(self, score: ScoreFunction, batch: TextBatch) -> RewardState:
        """Return (B,) objects; the score so far is 0, whatever prefix the completion starts with."""
        step = _IncrementalStep(self.scorer, None)
        score(batch, step)
        states = step.states or [None] * len(batch)
        texts = zip(batch.lengths.tolist(), states, strict=True)
        return _objects((_TextState(length, state, 0.0) for length, state in texts), len(batch))

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards and the states of the texts."""
        texts: list[_TextState] = state.tolist()
        lengths = batch.lengths.tolist()
        before = np.array([text.score for text in texts])
        after = before.copy()
        grown = [i for i, text in enumerate(texts) if text.length != lengths[i]]  # an ignored action writes nothing
        if grown:
            part = batch if len(grown) == len(batch) else batch.select(np.array(grown))
            states = [texts[i].scorer_state for i in grown]
            step = _IncrementalStep(self.scorer, None if any(state is None for state in states) else states)
            scores = score(part, step)
            after[grown] = np.where(np.isnan(scores), before[grown], scores)
            for i, scorer_state in zip(grown, step.states or [None] * len(grown), strict=True):
                texts[i] = _TextState(lengths[i], scorer_state, after[i])
        final = batch.done & ~np.isnan(final_scores)
        after[final] = final_scores[final]
        return after - before, _objects(texts, len(batch))


class _IncrementalStep(Scorer):
    """One step of an incremental scorer as a scorer, so that ``on_scorer_error`` applies to it."""

    def __init__(self, scorer: Scorer, before: list[Any] | None) -> None:
        self.scorer = scorer
        self.before = before
        self.states: list[Any] | None = None
        """States after the step; None if the scorer failed."""
        self.name = scorer.name

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, 0 where the scorer does not apply to an unfinished text."""
        states = self.scorer.begin(batch) if self.before is None else self.scorer.advance(self.before, batch)
        values = self.scorer.value(states, batch)
        self.states = states
        return np.where(np.isnan(values), 0.0, values)


def _objects(values: Iterable[_TextState], size: int) -> RewardState:
    return np.fromiter(values, dtype=object, count=size)


def _because(scorer: Scorer) -> str:
    """Return the inner scorer that is not incremental, as the end of a clause."""
    culprit: Scorer = scorer
    inner: Scorer | None = scorer
    while inner is not None:
        culprit = inner
        inner = next((one for one in culprit.scorers if not one.incremental), None)
    if culprit.scorers:
        return f" because of {type(culprit).__name__}"
    return "" if culprit.name == scorer.name else f" because of {culprit.name!r}"


def _is_incremental(name: str) -> bool:
    try:
        factory = scorer_factory(name)
        return isinstance(factory, type) and issubclass(factory, Scorer) and factory.incremental is not False
    except ImportError:
        return False


# Per turn -------------------------------------------------------------------------------------------------------


class PerTurn(Reward):
    """The score increment of each of the agent's turns, given with the token that ends it.

    Without ``turn_scorer``, the environment's scorer scores the dialogue after each turn, the user's reply included::

        r_k = score(dialogue after turn k) - score(dialogue after turn k - 1), with score 0 before the first turn

    so the undiscounted return is the final score. With ``turn_scorer``, each turn is given ``weight`` times the score
    of its own text instead, and the last turn also the final score.

    NaN, where a scorer failed or does not apply, gives 0. Without a user, the only turn ends with the episode.

    Args:
        turn_scorer: Anything that ``textgym.scorers.as_scorer`` accepts. It scores, and observes, single turns as
            completions. Its errors raise ``textgym.errors.ScorerError``.
        weight: Weight of ``turn_scorer``.

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
        """Return the rewards and, as state, the scores so far, or the number of turns scored by ``turn_scorer``."""
        if self.turn_scorer is not None:
            scores, num_scored = _turn_scores(self.turn_scorer, batch, state)
            return np.nan_to_num(final_scores, nan=0.0) + self.weight * scores, num_scored
        due = batch.turn_ended & ~batch.done
        after = np.where(batch.done & ~np.isnan(final_scores), final_scores, state)
        if due.any():
            scores = score(batch.select(due))
            after[due] = np.where(np.isnan(scores), state[due], scores)
        return after - state, after

    def observe(self, batch: TextBatch, seen: set[int]) -> None:
        """Let ``turn_scorer`` observe the agent's turns of the ended episodes, as it scores them."""
        if self.turn_scorer is not None and observes(self.turn_scorer) and any(batch.agent_turns):
            observe_episodes(self.turn_scorer, _single_turns(batch, batch.agent_turns), seen=seen)


def _turn_scores(scorer: Scorer, batch: TextBatch, num_scored: RewardState) -> tuple[FloatArray, RewardState]:
    """Return (B,) scores of the turns that have just ended, else 0, and (B,) numbers of turns scored so far."""
    result, num_scored = np.zeros(len(batch)), num_scored.copy()
    ended = np.flatnonzero(batch.turn_ended)
    part = batch.select(ended)
    num_turns = np.array([len(turns) for turns in part.agent_turns], dtype=np.int64)
    is_new = num_turns > num_scored[ended]  # False if an invalid action wrote nothing after the turn's end
    if is_new.any():
        num_scored[ended] = num_turns
        part = part.select(is_new)
        scores = score_batch(scorer, _single_turns(part, [turns[-1:] for turns in part.agent_turns]))
        result[ended[is_new]] = np.nan_to_num(scores.checked_total(), nan=0.0)
    return result, num_scored


def _single_turns(batch: TextBatch, turns: Sequence[Sequence[str]]) -> TextBatch:
    """Return a batch whose completions are single turns, each with the sample of its episode."""
    owners = batch.select(np.repeat(np.arange(len(batch)), [len(texts) for texts in turns]))
    completions = [text for texts in turns for text in texts]
    return TextBatch.from_texts(completions, owners.prompts, owners.references, owners.metadata, owners.tokenizer)


# Potential ------------------------------------------------------------------------------------------------------


class Potential(Reward):
    """The final score plus potential-based shaping, which preserves the optimal policies.

    Reward of a step from text s to text s'::

        final_score(s') if s' is finished else 0, plus gamma * Phi(s') - Phi(s)

    Phi of an unfinished text is its score so far; Phi of a finished text is 0, whether terminated or truncated. The
    shaping telescopes: the return, discounted by ``gamma``, is that of ``Terminal`` minus Phi of the prompt, which
    no action changes. Do not combine it with ``time_limit="truncated"`` and an agent that bootstraps: its value
    estimates have Phi subtracted from them.

    A potential or final score that is NaN, where the scorer failed or does not apply, counts as 0. Costs one call of
    the scorer per step for all unfinished texts. With ``every=k``, Phi is updated only at the start of an episode and
    when the completion has a multiple of k tokens; the above still holds.

    Sources: Ng, Harada, Russell, Policy invariance under reward transformations, ICML 1999; Grzes, Reward shaping in
    episodic reinforcement learning, AAMAS 2017 (why the last potential must be 0).

    Args:
        gamma: The agent's discount, in (0, 1].
        potential: Scorer for Phi instead of the environment's: anything that ``textgym.scorers.as_scorer``
            accepts. Its errors raise ``textgym.errors.ScorerError``.
        every: k, in tokens.

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
        """Return (B,) float64, Phi of the new episodes."""
        return self._phi(score, batch, None)

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return the rewards and, as state, Phi of the texts."""
        phi = self._phi(score, batch, state)
        base = np.where(np.isnan(final_scores), 0.0, final_scores)
        return base + self.gamma * phi - state, phi

    def _phi(self, score: ScoreFunction, batch: TextBatch, before: RewardState | None) -> FloatArray:
        """Return (B,) float64, Phi of the texts; ``before`` is Phi without their last token."""
        phi = np.zeros(len(batch)) if before is None else np.where(batch.done, 0.0, before)
        due = ~batch.done if before is None else ~batch.done & (batch.num_new_tokens % self.every == 0)
        if due.any():
            texts = batch if due.all() else batch.select(due)
            values = score(texts) if self.potential is None else evaluate(self.potential, texts).total
            phi[due] = np.where(np.isnan(values), 0.0, values)
        return phi
