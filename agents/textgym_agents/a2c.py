"""Advantage actor-critic: the policy gradient with advantages from a learned value."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from textgym_agents.config import check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import normalized, policy_gradient_loss, value_loss
from textgym_agents.metrics import StepMeans, value_metrics
from textgym_agents.policy_gradient import PolicyGradientAgent, PolicyGradientConfig
from textgym_agents.returns import discounted_returns, generalized_advantages

__all__ = ["A2C", "A2CConfig"]


@dataclass(frozen=True, kw_only=True)
class A2CConfig(PolicyGradientConfig):
    """What decides a run of A2C."""

    gae_lambda: float = 0.95
    """GAE lambda: 1 is Monte Carlo, 0 is one-step TD."""
    vf_coef: float = 0.5
    """Weight of the value's loss."""
    normalize_advantage: bool = True
    """Whether advantages are shifted and scaled to mean 0 and standard deviation 1 in each batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, gae_lambda=(0, 1), vf_coef=(0, math.inf))


class A2C(PolicyGradientAgent):
    """Synchronous advantage actor-critic on whole episodes.

    Per update: collect B episodes; subtract the KL penalty from the rewards; A_t = generalized advantage of the values
    that the policy had while it wrote; one step of AdamW on

        loss = -mean[A_t log pi(a_t|s_t)] + vf_coef * mean[(V(s_t) - A_t - V_old(s_t))^2 / 2]
               - ent_coef * mean[H(pi(.|s_t))]

    What differs from Mnih et al. 2016 (Asynchronous methods for deep reinforcement learning, arXiv:1602.01783): whole
    episodes in place of five steps, generalized advantages in place of n-step returns, AdamW in place of RMSprop, one
    process.

    Args and errors: see ``OnlineAgent``.
    """

    config_class = A2CConfig
    config: A2CConfig

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were.
        """
        config, mask = self.config, episodes.mask
        reference = self.reference_log_probs(episodes)
        rewards = self.penalized_rewards(episodes, reference)
        last_values = self.policy.last_values(episodes) if config.bootstrap_truncated else None
        advantages = generalized_advantages(
            rewards, episodes.values, episodes.num_steps, config.gamma, config.gae_lambda, last_values
        )
        returns = advantages + episodes.values
        if config.normalize_advantage:
            advantages = normalized(advantages, mask)
        means = StepMeans(int(mask.sum()))

        def losses() -> Iterator[torch.Tensor]:
            for index in self.micro_batches(np.arange(len(episodes))):
                part = episodes[index]
                now = self.policy.evaluate(part, entropy_gradient=config.ent_coef != 0)
                policy_loss = policy_gradient_loss(now.log_probs, advantages[index])
                error = value_loss(now.values, returns[index])
                means.add(part.mask, policy_gradient_loss=policy_loss, value_loss=error, entropy_loss=-now.entropies)
                loss = policy_loss + config.vf_coef * error
                loss = loss + self.regularization(part, now, None if reference is None else reference[index])
                yield loss[part.mask].sum() / mask.sum()

        metrics = self.descend(losses()) | means.metrics()
        monte_carlo = discounted_returns(rewards, episodes.num_steps, config.gamma, last_values)
        metrics |= value_metrics(episodes, returns, monte_carlo)
        return metrics | self.control_kl(episodes, reference)
