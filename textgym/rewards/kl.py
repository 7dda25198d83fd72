"""The KL penalty to a reference language model, its estimators and its adaptive coefficient."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray

__all__ = ["KL_ESTIMATORS", "AdaptiveCoefficient", "Reference", "kl_estimate", "kl_penalty"]

KL_ESTIMATORS = ("k1", "k3")
"""The single-token estimators of KL(policy || reference) that a reward can use."""


class Reference(Protocol):
    """The reference language model of the KL penalty.

    An optional method ``clear()`` is called whenever all episodes of a vector environment are reset, so that a run
    resumed from a checkpoint is bit-equal to an uninterrupted one.
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
            token_masks: (N, V) bool, the valid tokens, over which probabilities are renormalised as those of the policy
                are. None if all are valid.
            active: (N,) bool, the texts whose results are used; None for all.

        Returns:
            (N,) float64 in nats; ``-inf`` for a token of probability 0, never NaN or ``inf``.
        """
        ...


def kl_estimate(estimator: str, log_ratios: Any, expm1: Callable[[Any], Any] = np.expm1) -> Any:
    """Return an elementwise estimate of KL(policy || reference) in nats from tokens sampled by the policy.

    With ``d = log(policy / reference)`` of the token: k1 = d is unbiased; k2 = d^2 / 2 is biased and never negative;
    k3 = exp(-d) - 1 + d is both unbiased and never negative.

    Source: Schulman 2020, Approximating KL divergence (http://joschu.net/blog/kl-approx.html).

    Args:
        estimator: ``"k1"``, ``"k2"`` or ``"k3"``.
        log_ratios: d, an array or a tensor.
        expm1: The array library's exp(x) - 1.

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
    """Return the KL penalty of each chosen token, to be subtracted from its reward.

    Formula: ``coef * kl_estimate(estimator, log_probs - reference_log_probs)``. The k1 penalty is negative where the
    reference prefers the token; k3 has a lower variance near the reference.

    A policy gradient with k1 as reward minimises the KL; with k3 it does not in general, since the score function alone
    does not give the gradient of its expectation: k3 and the exact KL belong in an agent's loss (``kl_estimator`` of
    the agents' configs). As a reward, k3 serves value-based agents and diagnostics.

    Without ``log_probs``, as with stock Stable-Baselines3 agents, k1 penalises the cross-entropy ``H(policy, reference)
    = KL + H(policy)``. An entropy bonus of the same size cancels the extra term.

    Args:
        coef: Coefficient, in reward per nat.
        reference_log_probs: (N,) log-probabilities of the reference, in nats; ``-inf`` gives an infinite penalty.
        log_probs: (N,) log-probabilities of the policy.
        estimator: ``"k1"`` or ``"k3"``.

    Returns:
        (N,) float64.

    Raises:
        ValueError: If the shapes differ, the estimator is unknown, or k3 is given without ``log_probs``.

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
    """Adaptive KL coefficient, a proportional controller towards a target KL.

    Rule: ``coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * min(num_steps / horizon, 1)``, at most a fifth per update.

    Source: Ziegler et al. 2019, Fine-tuning language models from human preferences (arXiv:1909.08593), section 2.2.

    Args:
        coef: Initial coefficient, in reward per nat; above 0 if there is a target.
        target: Target KL per token, in nats; None keeps the coefficient fixed.
        horizon: Steps over which the coefficient changes by a factor of about 1.2 at most.

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
            raise ValueError("coef must be above 0 with a KL target, got 0")
        if not horizon > 0:
            raise ValueError(f"horizon must be above 0, got {horizon!r}")
        self.coef = coef
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, num_steps: int = 1) -> None:
        """Update the coefficient after ``num_steps`` steps with a mean KL of ``kl`` nats per token."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + error * min(num_steps / self.horizon, 1.0)
