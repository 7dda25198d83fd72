"""Advantage actor-critic."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from textgym_agents.config import ActorCriticConfig, DiscountConfig, OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import normalized, policy_gradient_loss, value_loss, value_metrics
from textgym_agents.online import OnlineAgent
from textgym_agents.reference import KLConfig, ReferenceKL
from textgym_agents.returns import discounted_returns, generalized_advantages
from textgym_agents.value_function import ValueRegression

__all__ = ["A2C", "A2CConfig"]


@dataclass(frozen=True, kw_only=True)
class A2CConfig(OnlineAgentConfig, DiscountConfig, ActorCriticConfig, KLConfig):
    """Hyper-parameters of A2C."""

    gae_lambda: float = 0.95
    """Factor for trade-off of bias vs variance for Generalized Advantage Estimator: 1 is Monte Carlo, 0 one-step TD."""
    normalize_advantage: bool = True
    """Whether to normalize the advantages to mean 0 and standard deviation 1 over the collected episodes."""
    ent_coef: float = 0.0
    """Entropy coefficient for the loss calculation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, gae_lambda=(0, 1), ent_coef=(0, math.inf))


class A2C(OnlineAgent):
    """Synchronous advantage actor-critic on whole episodes.

    Per update: collect B episodes; with ``kl_estimator="k1"`` subtract ``kl_coef * log[pi(a_t|s_t) / pi_ref(a_t|s_t)]``
    from each reward; A_t = generalized advantage, G_t = A_t + V(s_t); normalize A_t over the B episodes; one step of
    Adam on

        loss = -mean[A_t log pi(a_t|s_t)] + vf_coef * mean[(V(s_t) - G_t)^2 / 2] - ent_coef * mean[H(pi(.|s_t))]
               + kl_coef * mean[KL_t]

    where A_t and G_t are constants, and KL_t is the estimate of ``kl_estimator``, absent with k1.

    V is fitted to the Monte-Carlo returns of past episodes after each update (``PrefixValue.fit``) where the policy's
    ``value_function`` is ``"prefix"``; the value term of the loss then is that of the V that acted, without a gradient.
    ``train/loss`` is the mean of the loss over the gradient steps of the update.

    Differences from Mnih et al. 2016 (Asynchronous methods for deep reinforcement learning, arXiv:1602.01783): whole
    episodes in place of five steps, generalized advantages in place of n-step returns, Adam in place of RMSprop, one
    process. Differences from Stable-Baselines3: the value loss has the factor 1/2, so ``vf_coef=0.5`` weighs it half as
    much; advantages are normalized and ``gae_lambda`` is 0.95 by default; Adam in place of RMSprop.

    Args and errors: see ``OnlineAgent``; besides, a ValueError if the environment has a KL penalty too.

    Attributes:
        kl: The KL penalty against the initial policy.
        critic: The past episodes that V is fitted on.
    """

    config_class = A2CConfig
    checkpointed = ("kl", "critic")
    config: A2CConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kl = ReferenceKL(self.policy, self.config, self.env)
        self.critic = ValueRegression(self.policy.value_head, self.config.value_buffer_size)

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        config = self.config
        episodes.reference_log_probs = self.kl.log_probs(episodes)
        rewards = self.kl.penalized_rewards(episodes)
        last_values = self.policy.last_values(episodes) if config.bootstrap_truncated else None
        advantages = generalized_advantages(
            rewards, episodes.values, episodes.num_steps, config.gamma, config.gae_lambda, last_values
        )
        episodes.value_targets = advantages + episodes.values
        episodes.advantages = normalized(advantages, episodes.mask) if config.normalize_advantage else advantages
        metrics = self.backward(episodes, self.loss) | self.optimizer_step()
        returns = discounted_returns(rewards, episodes.num_steps, config.gamma, last_values)
        self.critic.update(episodes, returns, config.gamma)
        return metrics | value_metrics(episodes, returns) | self.kl.adapt(episodes)

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        config = self.config
        evaluation = self.policy.evaluate(episodes, entropy_gradient=config.ent_coef != 0)
        policy_loss = policy_gradient_loss(evaluation.log_probs, episodes.advantages)
        values = episodes.values if self.critic.is_fitted else evaluation.values
        critic_loss = value_loss(values, episodes.value_targets)
        entropy_loss = -evaluation.entropies
        loss = (
            policy_loss
            + config.vf_coef * critic_loss
            + config.ent_coef * entropy_loss
            + self.kl.loss(episodes, evaluation)
        )
        return loss, {"policy_gradient_loss": policy_loss, "value_loss": critic_loss, "entropy_loss": entropy_loss}
