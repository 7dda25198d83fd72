"""The KL penalty: a coefficient times the per-token KL to a reference language model."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from textgym.errors import unknown_name
from textgym.rewards.base import FloatArray

__all__ = ["KL_ESTIMATORS", "AdaptiveCoefficient", "Reference", "kl_estimate", "kl_penalty"]

KL_ESTIMATORS = ("k1", "k3")
"""The estimates of KL(policy || reference) from one chosen token that a reward can be made of."""


class Reference(Protocol):
    """The language model that the KL penalty compares the policy with.

    A method ``clear()``, where there is one, is called whenever all slots of a vector environment are reset: a run that
    continues from a checkpoint then computes to the last bit what an uninterrupted one does.
    """

    def log_probs(
        self,
        ids: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        actions: npt.NDArray[np.int64],
        *,
        token_masks: npt.NDArray[np.bool_] | None = None,
        active: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return the log-probability of each of N next tokens.

        Args:
            ids: (N, L) int64, each text left-aligned.
            lengths: (N,) int64 tokens of each text, at least 1.
            actions: (N,) int64, the next tokens.
            token_masks: (N, V) bool, True where a token is legal: the probabilities are renormalised over these, as
                those of the policy are. None if all are.
            active: (N,) bool, texts that are asked about; what is returned for the others is ignored. None means all.

        Returns:
            (N,) float64 in nats; ``-inf`` for a token that the reference never writes, never NaN or ``inf``.
        """
        ...


def kl_estimate(estimator: str, log_ratios: Any, expm1: Callable[[Any], Any] = np.expm1) -> Any:
    """Return an estimate of KL(policy || reference) in nats from the token that the policy chose, elementwise.

    With ``d = log(policy / reference)`` of the token: k1 = d is unbiased; k2 = d^2 / 2 is biased and never negative;
    k3 = exp(-d) - 1 + d is both unbiased and never negative.

    Source: Schulman 2020, Approximating KL divergence (http://joschu.net/blog/kl-approx.html).

    Args:
        estimator: ``"k1"``, ``"k2"`` or ``"k3"``.
        log_ratios: d, an array or, with its own ``expm1``, a tensor.
        expm1: exp(x) - 1 of the library that ``log_ratios`` are of.

    Raises:
        ValueError: If the estimator is unknown.

    >>> [round(float(kl_estimate(name, np.log(2.0))), 4) for name in ("k1", "k2", "k3")]
    [0.6931, 0.2402, 0.1931]
    """
    if estimator == "k1":
        return log_ratios
    if estimator == "k2":
        return log_ratios * log_ratios / 2
    if estimator == "k3":
        return expm1(-log_ratios) + log_ratios
    raise unknown_name("KL estimator", estimator, ("k1", "k2", "k3"))


def kl_penalty(
    coef: float,
    reference_log_probs: npt.NDArray[np.floating],
    log_probs: npt.NDArray[np.floating] | None = None,
    estimator: Literal["k1", "k3"] = "k1",
) -> FloatArray:
    """Return what the KL term takes from the reward of each chosen token.

    Formula, with ``d = log_probs - reference_log_probs``::

        k1: coef * d                      unbiased; negative where the reference likes the token better
        k3: coef * (exp(-d) - 1 + d)      unbiased too, never negative, and of less variance near the reference

    A policy gradient on k1 lowers the KL. On k3 as a reward it does not in general, since the gradient of its
    expectation does not come from the score function alone: k3, and the exact KL of two distributions, belong into an
    agent's loss (``kl_estimator`` of the agents' configs). As a reward k3 serves value-based agents and reports.

    An agent that does not report its policy's log-probabilities, such as one of stock Stable-Baselines3, leaves out
    ``log_probs``, which then count as 0 for k1. That penalises the cross-entropy ``H(policy, reference) = KL +
    H(policy)``: besides the KL, the policy's entropy. An entropy bonus of the same size cancels the extra part.

    Source: Schulman 2020, Approximating KL divergence (http://joschu.net/blog/kl-approx.html).

    Args:
        coef: Reward per nat.
        reference_log_probs: (N,) natural logarithms of the reference's probabilities; where one is ``-inf``, the
            reference would never write that token, and the penalty is infinite.
        log_probs: (N,) those of the policy.
        estimator: ``"k1"`` or ``"k3"``.

    Returns:
        (N,) float64.

    Raises:
        ValueError: If the shapes differ, the estimator is unknown, or it is k3 and ``log_probs`` are missing.

    >>> kl_penalty(0.5, np.log([0.25, 0.5]), np.log([0.5, 0.5])).round(4)
    array([0.3466, 0.    ])
    >>> kl_penalty(0.5, np.log([0.25, 0.5]), np.log([0.5, 0.5]), "k3").round(4)
    array([0.0966, 0.    ])
    """
    if estimator not in KL_ESTIMATORS:
        raise unknown_name("KL estimator", estimator, KL_ESTIMATORS)
    reference = np.asarray(reference_log_probs, dtype=np.float64)
    if log_probs is None:
        if estimator != "k1":
            raise ValueError(f"the KL estimator {estimator!r} needs the policy's log-probabilities: call set_log_probs")
        return -coef * reference
    policy = np.asarray(log_probs, dtype=np.float64)
    if policy.shape != reference.shape:
        raise ValueError(f"log_probs has shape {policy.shape}, reference_log_probs {reference.shape}")
    penalty: FloatArray = coef * kl_estimate(estimator, policy - reference)
    return penalty


class AdaptiveCoefficient:
    """A KL coefficient that rises while the policy is farther from the reference than wanted, and falls else.

    Rule: ``coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * min(num_steps / horizon, 1)``, so that no update, of however
    many steps, moves it by more than a fifth.

    Source: Ziegler et al. 2019, Fine-tuning language models from human preferences (arXiv:1909.08593), section 2.2.

    Args:
        coef: The coefficient at the start, in reward per nat.
        target: The wanted KL per token, in nats; None keeps the coefficient fixed.
        horizon: Steps over which the coefficient changes by a factor of about 1.2 at most.

    Raises:
        ValueError: If ``coef`` is negative, or ``target`` or ``horizon`` not above 0, or ``coef`` is 0 and has to move.

    >>> coefficient = AdaptiveCoefficient(0.1, target=0.05, horizon=10)
    >>> coefficient.update(kl=0.5)
    >>> round(coefficient.coef, 4)
    0.102
    """

    def __init__(self, coef: float, target: float | None = None, horizon: float = 10_000) -> None:
        if not coef >= 0:
            raise ValueError(f"coef must be at least 0, got {coef!r}")
        if target is not None and not target > 0:
            raise ValueError(f"the KL target must be above 0, got {target!r}")
        if target is not None and coef == 0:
            raise ValueError("a KL target moves the coefficient from where it starts, which must be above 0")
        if not horizon > 0:
            raise ValueError(f"horizon must be above 0, got {horizon!r}")
        self.coef = coef
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, num_steps: int = 1) -> None:
        """Move the coefficient after ``num_steps`` more steps, whose mean KL per token was ``kl`` nats."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + error * min(num_steps / self.horizon, 1.0)
