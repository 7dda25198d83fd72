"""How the scores of texts become the rewards of steps."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers import as_scorer, evaluate

__all__ = ["Potential", "Reward", "ScoreFunction", "Terminal", "as_reward", "kl_penalty"]

FloatArray = npt.NDArray[np.float64]
ScoreFunction = Callable[[TextBatch], FloatArray]
"""The environment's scorer, checked: (B,) float64, NaN only where the error policy is ``"invalid"``."""


class Reward(Protocol):
    """Turns the scores of B episodes into rewards.

    A reward is a stateless object: what it has to remember of an episode is one float, which the environment keeps,
    snapshots and hands back.
    """

    def start(self, score: ScoreFunction, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the memory of B episodes that begin."""
        ...

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, memory: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the rewards of one step and the new memory.

        Args:
            score: Scores any batch.
            batch: The B episodes after their action.
            final_scores: (B,) float64, the score where ``batch.done``, else 0; NaN where the scorer failed under the
                policy ``"invalid"``, for which the environment pays 0.
            memory: (B,) float64, what the step before returned. It must not be changed in place.

        Returns:
            (B,) float64 rewards and (B,) float64 memory.
        """
        ...


class Terminal:
    """The final score at the end of an episode, 0 before.

    >>> batch = TextBatch.from_texts(["done"])
    >>> Terminal()(lambda batch: np.ones(len(batch)), batch, np.array([0.7]), np.array([0.0]))[0]
    array([0.7])
    """

    def start(self, score: ScoreFunction, batch: TextBatch) -> FloatArray:
        """Return (B,) zeros: nothing is remembered."""
        return np.zeros(len(batch))

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, memory: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return ``final_scores`` and ``memory`` as they are."""
        return final_scores, memory


class Potential:
    """The final score plus potential-based shaping, which pays each step for what it adds to the text's worth.

    Reward of a step from text s to text s'::

        final_score(s') if s' is finished else 0, plus gamma * Phi(s') - Phi(s)

    Phi of an unfinished text is its score so far, Phi of a finished one is 0, whether it was terminated or used up its
    budget. Shaping telescopes: the return, discounted by ``gamma``, is that of :class:`Terminal` minus Phi of the
    prompt alone. No action changes that difference, so policies keep their order and the optimal ones stay optimal,
    which fails where the last text keeps a potential of its own. An agent that bootstraps truncated episodes with
    its value should use ``time_limit="terminated"`` here: its value estimates have Phi subtracted from them.

    A potential that is NaN, where the scorer failed or does not apply, counts as 0, and so does a final score.
    Costs one call of the scorer for all unfinished texts in every step.

    Sources: Ng, Harada, Russell, Policy invariance under reward transformations, ICML 1999; Grzes, Reward shaping in
    episodic reinforcement learning, AAMAS 2017 (why the last potential has to be 0).

    Args:
        gamma: The agent's discount, in (0, 1].
        potential: What gives Phi in place of the environment's scorer: anything that
            :func:`textgym.scorers.as_scorer` accepts. An error in it raises :class:`textgym.errors.ScorerError`.

    Raises:
        ValueError: If gamma is not in (0, 1].

    >>> unfinished = TextBatch.from_texts(["a happy"])
    >>> unfinished.done = np.array([False])
    >>> Potential()(lambda batch: np.array([0.5]), unfinished, np.array([0.0]), np.array([0.2]))
    (array([0.3]), array([0.5]))
    """

    def __init__(self, gamma: float = 1.0, potential: Any = None) -> None:
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {gamma!r}")
        self.gamma = gamma
        self.potential = None if potential is None else as_scorer(potential)

    def start(self, score: ScoreFunction, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, Phi of the prompts alone."""
        return self._phi(score, batch)

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, memory: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the rewards, and Phi of the texts as memory."""
        phi = self._phi(score, batch)
        base = np.where(np.isnan(final_scores), 0.0, final_scores)
        return base + self.gamma * phi - memory, phi

    def _phi(self, score: ScoreFunction, batch: TextBatch) -> FloatArray:
        phi = np.zeros(len(batch))
        unfinished = np.flatnonzero(~batch.done)
        if len(unfinished) > 0:
            texts = batch if len(unfinished) == len(batch) else batch.select(unfinished)
            values = score(texts) if self.potential is None else evaluate(self.potential, texts).total
            phi[unfinished] = np.where(np.isnan(values), 0.0, values)
        return phi


_REWARDS: dict[str, Callable[[], Reward]] = {"potential": Potential, "terminal": Terminal}


def as_reward(spec: Any) -> Reward:
    """Return the reward that ``spec`` describes: ``"terminal"``, ``"potential"``, or a :class:`Reward` object.

    Raises:
        ValueError: If a name is unknown.
        TypeError: If ``spec`` is no reward.
    """
    if isinstance(spec, str):
        if spec not in _REWARDS:
            raise unknown_name("reward", spec, _REWARDS, also="A Reward object is accepted too.")
        return _REWARDS[spec]()
    if isinstance(spec, type):
        raise TypeError(f"reward is the class {spec.__name__}; give an object of it, such as {spec.__name__}()")
    if not callable(spec) or not callable(getattr(spec, "start", None)):
        raise TypeError(
            f"reward is {spec!r} of type {type(spec).__name__}; expected a name ({', '.join(sorted(_REWARDS))}) "
            "or an object with start(score, batch) and __call__(score, batch, final_scores, memory)"
        )
    reward: Reward = spec
    return reward


def kl_penalty(
    coef: float, reference_log_probs: npt.NDArray[np.floating], log_probs: npt.NDArray[np.floating] | None = None
) -> FloatArray:
    """Return what the KL term takes from the reward of each chosen token.

    Formula: ``coef * (log_probs - reference_log_probs)``, an unbiased one-sample estimate of
    ``coef * KL(policy || reference)``.

    An agent that does not report its policy's log-probabilities, such as one of stock Stable-Baselines3, leaves out
    ``log_probs``, which then count as 0. That penalises the cross-entropy ``H(policy, reference) = KL + H(policy)``:
    besides the KL, the policy's entropy. An entropy bonus with the same coefficient cancels the extra part.

    Args:
        coef: Reward per nat.
        reference_log_probs: (N,) natural logarithms of the reference's probabilities; where one is ``-inf``, the
            reference would never write that token, and the penalty is infinite.
        log_probs: (N,) those of the policy.

    Returns:
        (N,) float64, negative where the reference likes the token better than the policy does.

    Raises:
        ValueError: If the shapes differ.

    >>> kl_penalty(0.5, np.log([0.25, 0.5]), np.log([0.5, 0.5])).round(4)
    array([0.3466, 0.    ])
    """
    reference = np.asarray(reference_log_probs, dtype=np.float64)
    if log_probs is None:
        return -coef * reference
    policy = np.asarray(log_probs, dtype=np.float64)
    if policy.shape != reference.shape:
        raise ValueError(f"log_probs has shape {policy.shape}, reference_log_probs {reference.shape}")
    return coef * (policy - reference)
