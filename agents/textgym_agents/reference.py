"""The initial policy, and the KL penalty that keeps the trained one near it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from gymnasium.vector import VectorEnv

from textgym.rewards import AdaptiveCoefficient
from textgym_agents.config import AgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import estimated_kl, exact_kl, masked_mean
from textgym_agents.policy import Evaluation, LMPolicy
from textgym_agents.rollout import text_env

__all__ = ["KLConfig", "ReferenceKL", "ReferencePolicy"]

_DEFAULT_COEF = 0.05
"""KL penalty coefficient where neither the agent nor the environment has one."""


@dataclass(frozen=True, kw_only=True)
class KLConfig(AgentConfig):
    """Hyper-parameters of the KL penalty against the initial policy."""

    kl_coef: float | None = None
    """KL penalty coefficient (per token), against the initial policy; with 0 the KL is not computed. None takes 0 if
    the environment has a ``kl_penalty``, else its ``suggested_kl_coef``, which tasks set, else 0.05."""
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    """Estimator of the KL. k1, the log-ratio of the chosen token, is subtracted from its reward, so that returns
    contain the KL of later tokens: it penalises the KL of whole texts. k2, k3 (Schulman 2020) and ``"exact"``, the sum
    over the vocabulary, are added to the loss of each token. On-policy, the expected gradient of k2 is that of
    ``"exact"``, of k3 that of the reverse KL(pi_ref || pi); k1's would be 0 (Tang and Munos 2025, arXiv:2506.09477)."""
    kl_target: float | None = None
    """Target KL per token, in nats, to which ``kl_coef`` is adapted. None keeps ``kl_coef`` fixed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, kl_coef=(0, math.inf))
        coef = _DEFAULT_COEF if self.kl_coef is None else self.kl_coef
        AdaptiveCoefficient(coef, self.kl_target)  # raises if they are incompatible


class ReferencePolicy:
    """The current policy, frozen in the cheapest way.

    With low-rank adapters that are still zero it is the policy with its adapters disabled, which takes no memory;
    otherwise a frozen copy, which shares the frozen weights.

    Attributes:
        copy: The frozen copy, or None.
    """

    def __init__(self, policy: LMPolicy) -> None:
        self._policy = policy
        self.copy = None if policy.backbone.has_idle_adapters else policy.frozen_copy()

    @contextmanager
    def policy(self) -> Iterator[LMPolicy]:
        """Context manager that yields the reference policy; do not act inside."""
        if self.copy is not None:
            yield self.copy
            return
        with self._policy.backbone.without_adapters():
            yield self._policy

    @torch.no_grad()
    def evaluate(self, episodes: Episodes) -> Evaluation:
        """Evaluate episodes under the reference policy, without gradients."""
        with self.policy() as policy:
            return policy.evaluate(episodes)

    def save(self, folder: Path) -> None:
        """Write the frozen copy, if there is one."""
        if self.copy is not None:
            self.copy.save_pretrained(folder / "reference")

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote; without a copy the reference is the policy with its adapters disabled."""
        if not (folder / "reference").is_dir():
            self.copy = None
        elif self.copy is not None:
            self.copy.restore(folder / "reference")


class ReferenceKL:
    """KL penalty against the initial policy, with a fixed or an adaptive coefficient.

    Args:
        policy: The policy, which is the reference as it is evaluation.
        config: The settings.
        env: The environment.

    Attributes:
        reference: The initial policy.
        coef: The current coefficient.

    Raises:
        ValueError: If both the environment and the config have a KL penalty, or there is a target but no penalty.
    """

    def __init__(self, policy: LMPolicy, config: KLConfig, env: VectorEnv[Any, Any, Any]) -> None:
        of_env, coef = text_env(env).config, config.kl_coef
        if of_env.kl_penalty > 0 and coef:
            raise ValueError(
                f"the KL penalty would be applied twice: kl_penalty is {of_env.kl_penalty} in the environment and "
                f"kl_coef {coef} in the {type(config).__name__}; set one of them to 0"
            )
        if coef is None:
            suggested = _DEFAULT_COEF if of_env.suggested_kl_coef is None else of_env.suggested_kl_coef
            coef = 0.0 if of_env.kl_penalty > 0 else suggested
        AdaptiveCoefficient(coef, config.kl_target)
        self.reference = ReferencePolicy(policy)
        self.coef: float = coef
        self._config = config

    def log_probs(self, episodes: Episodes) -> torch.Tensor | None:
        """Return (B, T) log pi_ref(a_t|s_t) in nats, or None if the coefficient is 0."""
        if self.coef == 0:
            return None
        size = self._config.micro_batch or len(episodes)
        parts = [episodes[start : start + size] for start in range(0, len(episodes), size)]
        return torch.cat([self.reference.evaluate(part).log_probs for part in parts])

    def penalized_rewards(self, episodes: Episodes) -> torch.Tensor:
        """Return (B, T) rewards, minus the KL penalty if the estimator is k1."""
        if episodes.reference_log_probs is None or self._config.kl_estimator != "k1":
            return episodes.rewards
        return episodes.rewards - self.coef * estimated_kl("k1", episodes.log_probs, episodes.reference_log_probs)

    def loss(self, episodes: Episodes, evaluation: Evaluation) -> torch.Tensor:
        """Return the (B, T) KL penalty in the loss, 0 if the estimator is k1."""
        if episodes.reference_log_probs is None or self._config.kl_estimator == "k1":
            return torch.zeros(())
        if self._config.kl_estimator == "exact":
            return self.coef * episodes.spread(exact_kl(evaluation.logits, self.reference.evaluate(episodes).logits))
        return self.coef * estimated_kl(self._config.kl_estimator, evaluation.log_probs, episodes.reference_log_probs)

    def adapt(self, episodes: Episodes) -> dict[str, float]:
        """Adapt the coefficient to the target KL, by 2 % at most, and return the metrics of the KL."""
        if episodes.reference_log_probs is None:
            return {}
        kl = float(masked_mean(episodes.log_probs - episodes.reference_log_probs, episodes.mask))
        metrics = {"train/kl_reference": kl, "train/kl_coef": self.coef}
        coefficient = AdaptiveCoefficient(self.coef, self._config.kl_target, horizon=10)
        coefficient.update(kl)
        self.coef = coefficient.coef
        return metrics

    def save(self, folder: Path) -> dict[str, float]:
        """Write the reference into the folder and return the rest, as JSON."""
        self.reference.save(folder)
        return {"coef": self.coef}

    def load(self, folder: Path, state: dict[str, float]) -> None:
        """Restore what ``save`` wrote and returned."""
        self.reference.load(folder)
        self.coef = state["coef"]
