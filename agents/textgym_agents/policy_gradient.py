"""What the policy-gradient agents share: the KL to the language model that training started from, and metrics."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from textgym.rewards import AdaptiveCoefficient
from textgym_agents.agent import OnlineAgent
from textgym_agents.config import OnlineAgentConfig, ReturnConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import estimated_kl, exact_kl, masked_mean
from textgym_agents.policy import Evaluation
from textgym_agents.reference import ReferencePolicy
from textgym_agents.rollout import text_env

__all__ = ["PolicyGradientAgent", "PolicyGradientConfig"]


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(OnlineAgentConfig, ReturnConfig):
    """What decides a run of any policy-gradient agent."""

    kl_coef: float = 0.05
    """KL penalty coefficient (per token), against the initial policy. With 0 the KL is not computed. The environment's
    own ``kl_penalty`` serves agents without this one; set only one of them."""
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    """How the KL enters. k1, the log-ratio of the token that was written, is subtracted from its reward, which lowers
    the KL of whole texts: the return of a token contains the KL of those after it. k2 and k3, Schulman's other
    estimates, and ``"exact"``, the sum over the vocabulary, are added to the loss token by token. While the
    policy is still the one that wrote, k2's gradient there is on average that of ``"exact"``, k3's that of the KL the
    other way round, KL(pi_ref || pi), and k1's would be 0 (Tang and Munos 2025, arXiv:2506.09477)."""
    kl_target: float | None = None
    """KL per token, in nats, to which ``kl_coef`` is steered. None keeps ``kl_coef`` as it is."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, kl_coef=(0, math.inf), ent_coef=(0, math.inf))
        AdaptiveCoefficient(self.kl_coef, self.kl_target)  # raises where they do not fit together


class PolicyGradientAgent(OnlineAgent):
    """An online agent with a reference.

    Args and errors: see ``OnlineAgent``; besides, a ValueError if both the environment and the settings charge for KL.

    Attributes:
        reference: The policy as it was when the agent was made.
        kl_coef: The current KL coefficient, which ``kl_target`` adapts.
    """

    config: PolicyGradientConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (charged := text_env(self.env).config.kl_penalty) > 0 and self.config.kl_coef > 0:
            raise ValueError(
                f"the KL would be charged twice: kl_penalty is {charged} in the environment and kl_coef "
                f"{self.config.kl_coef} in the {type(self.config).__name__}; set one of them to 0"
            )
        self.reference = ReferencePolicy(self.policy)
        self.kl_coef = self.config.kl_coef

    def reference_log_probs(self, episodes: Episodes) -> torch.Tensor | None:
        """Return (B, T) log pi_ref(a_t|s_t) in nats, or None where the KL costs nothing."""
        if self.kl_coef == 0:
            return None
        parts = self.micro_batches(np.arange(len(episodes)))
        return torch.cat([self.reference.evaluate(episodes[index]).log_probs for index in parts])

    def penalized_rewards(self, episodes: Episodes, reference: torch.Tensor | None) -> torch.Tensor:
        """Return (B, T) rewards, from which the KL is subtracted if it belongs there."""
        if reference is None or self.config.kl_estimator != "k1":
            return episodes.rewards
        return episodes.rewards - self.kl_coef * estimated_kl("k1", episodes.log_probs, reference)

    def regularization(self, part: Episodes, now: Evaluation, reference: torch.Tensor | None) -> torch.Tensor:
        """Return (B, T), what entropy bonus and KL add to the loss of each step; 0 where they do not."""
        cost = -self.config.ent_coef * now.entropies
        if reference is None or self.config.kl_estimator == "k1":
            return cost
        if self.config.kl_estimator == "exact":
            kl = part.spread(exact_kl(now.logits, self.reference.evaluate(part).logits))
        else:
            kl = estimated_kl(self.config.kl_estimator, now.log_probs, reference)
        return cost + self.kl_coef * kl

    def control_kl(self, episodes: Episodes, reference: torch.Tensor | None) -> dict[str, float]:
        """Tell the KL per token and move ``kl_coef`` toward its target, by 2 % in an update at most."""
        if reference is None:
            return {}
        kl = float(masked_mean(episodes.log_probs - reference, episodes.mask))
        metrics = {"train/kl_reference": kl, "train/kl_coef": self.kl_coef}
        coefficient = AdaptiveCoefficient(self.kl_coef, self.config.kl_target, horizon=10)
        coefficient.update(kl)
        self.kl_coef = coefficient.coef
        return metrics

    def _networks(self) -> dict[str, Any]:
        reference = {} if self.reference.copy is None else {"reference": self.reference.copy}
        return super()._networks() | reference

    def _state(self, folder: Path) -> dict[str, Any]:
        return super()._state(folder) | {"kl_coef": self.kl_coef}

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:
        super()._set_state(state, folder)
        self.reference.forget_copy_unless_in(folder)
        self.kl_coef = state["kl_coef"]
