"""Proximal policy optimization."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from textgym_agents.agent import mean_metrics
from textgym_agents.config import ActorCriticConfig, DiscountConfig, OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import clip_metrics, clipped_surrogate_loss, normalized, value_loss, value_metrics
from textgym_agents.online import OnlineAgent
from textgym_agents.reference import KLConfig, ReferenceKL
from textgym_agents.returns import discounted_returns, generalized_advantages
from textgym_agents.self_imitation import SelfImitation, SelfImitationConfig
from textgym_agents.token_credit import TokenCredit, TokenCreditConfig
from textgym_agents.value_function import ValueRegression

__all__ = ["PPO", "PPOConfig"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig(OnlineAgentConfig, DiscountConfig, ActorCriticConfig, KLConfig, SelfImitationConfig, TokenCreditConfig):
    """Hyper-parameters of PPO."""

    learning_rate: float = 5e-4
    n_epochs: int = 2
    """Number of epochs when optimizing the surrogate loss."""
    batch_size: int | None = 32
    """Minibatch size, in episodes. None takes all."""
    gae_lambda: float = 0.95
    """Factor for trade-off of bias vs variance for Generalized Advantage Estimator: 1 is Monte Carlo, 0 one-step TD."""
    clip_range: float = 0.2
    """Clipping parameter epsilon."""
    clip_range_vf: float | None = None
    """Clipping parameter for the value function; the loss is the maximum of the clipped and the unclipped one (SB3: the
    clipped one). None does not clip. It does not affect a V that is fitted, such as ``"prefix"``."""
    normalize_advantage: bool = True
    """Whether to normalize the advantages to mean 0 and standard deviation 1 over the collected episodes."""
    ent_coef: float = 0.0
    """Entropy coefficient for the loss calculation."""
    target_kl: float | None = None
    """Limit the KL divergence between updates: stop before the gradient step of the first minibatch whose approximate
    KL per token, in nats, exceeds 1.5 x ``target_kl``, because the clipping is not enough. None sets no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            n_epochs=(1, math.inf),
            batch_size=(1, math.inf),
            gae_lambda=(0, 1),
            clip_range=(0, math.inf),
            clip_range_vf=(0, math.inf),
            ent_coef=(0, math.inf),
            target_kl=(0, math.inf),
        )


class PPO(OnlineAgent):
    """Clipped policy gradient on whole episodes.

    Per update: collect B episodes; with ``kl_estimator="k1"`` subtract ``kl_coef * log[pi_old(a_t|s_t) /
    pi_ref(a_t|s_t)]`` from each reward; A_t = generalized advantage, G_t = A_t + V_old(s_t); normalize A_t over the B
    episodes; then for each epoch and minibatch of whole episodes one step of Adam on

        loss = mean[-min(w_t A_t, clip(w_t, 1 - clip_range, 1 + clip_range) A_t)] + vf_coef * mean[(V(s_t) - G_t)^2 / 2]
               - ent_coef * mean[H(pi(.|s_t))] + kl_coef * mean[KL_t]

    where w_t = pi(a_t|s_t) / pi_old(a_t|s_t), and KL_t is the estimate of ``kl_estimator``, absent with k1.

    V is fitted to the Monte-Carlo returns of past episodes after each update (``PrefixValue.fit``) where the policy's
    ``value_function`` is ``"prefix"``; the value term of the loss then is that of the V that acted, without a gradient.
    ``train/loss`` is the mean of the loss over the gradient steps of the update.

    Then, with ``imitation_coef`` above 0, one more step imitates past texts that scored better than those of now; see
    ``SelfImitation``. ``imitation_coef=0.0`` is plain PPO.

    Differences from Schulman et al. 2017 (arXiv:1707.06347): the imitation; minibatches of whole episodes, since one
    forward serves all steps of an episode; the KL penalty to the reference. Differences from Stable-Baselines3: the
    value loss has the factor 1/2, so ``vf_coef=0.5`` weighs it half as much; advantages are normalized over all
    collected episodes, not per minibatch; ``train/n_updates`` counts gradient steps, not epochs.

    Args and errors: see ``OnlineAgent``; besides, a ValueError if the environment has a KL penalty too.

    Attributes:
        kl: The KL penalty against the initial policy.
        imitation: The past successes that are imitated with ``imitation_coef`` above 0; see ``SelfImitation``.
        critic: The past episodes that V is fitted on.
        credit: The options on the advantages of single tokens; see ``TokenCredit``.
    """

    config_class = PPOConfig
    checkpointed = ("kl", "critic", "imitation")
    config: PPOConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kl = ReferenceKL(self.policy, self.config, self.env)
        self.imitation = SelfImitation(self.config)
        self.credit = TokenCredit(self)
        self.critic = ValueRegression(self.policy.value_head, self.config.value_buffer_size)

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take the epochs on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are unchanged by that step.
        """
        config = self.config
        episodes.reference_log_probs = self.kl.log_probs(episodes)
        rewards = self.kl.penalized_rewards(episodes)
        last_values = self.policy.last_values(episodes) if config.bootstrap_truncated else None
        advantages = generalized_advantages(
            rewards, episodes.values, episodes.num_steps, config.gamma, config.gae_lambda, last_values
        )
        episodes.value_targets = advantages + episodes.values
        branched = self.credit.branched(episodes, episodes.mask, config.gamma)
        advantages = torch.where(branched.chosen, branched.advantages, advantages)
        advantages = normalized(advantages, episodes.mask) if config.normalize_advantage else advantages
        episodes.advantages = self.credit.only_uncertain(episodes, advantages, episodes.mask)

        steps = []
        for minibatch in self.minibatches(episodes, config.batch_size, config.n_epochs):
            metrics = self.backward(minibatch, self.loss)
            is_too_far = config.target_kl is not None and metrics["train/approx_kl"] > 1.5 * config.target_kl
            steps.append(metrics if is_too_far else metrics | self.optimizer_step())
            if is_too_far:
                break

        returns = discounted_returns(rewards, episodes.num_steps, config.gamma, last_values)
        imitation = self.imitation.update(self, episodes)
        self.critic.update(episodes, returns, config.gamma)
        metrics = mean_metrics(steps) | imitation | branched.metrics(episodes)
        return metrics | value_metrics(episodes, returns) | self.kl.adapt(episodes)

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        config = self.config
        evaluation = self.policy.evaluate(episodes, entropy_gradient=config.ent_coef != 0)
        policy_loss = clipped_surrogate_loss(
            evaluation.log_probs, episodes.log_probs, episodes.advantages, config.clip_range
        )
        values = episodes.values if self.critic.is_fitted else evaluation.values
        critic_loss = value_loss(values, episodes.value_targets, episodes.values, config.clip_range_vf)
        entropy_loss = -evaluation.entropies
        loss = (
            policy_loss
            + config.vf_coef * critic_loss
            + config.ent_coef * entropy_loss
            + self.kl.loss(episodes, evaluation)
        )
        return loss, {
            "policy_gradient_loss": policy_loss,
            "value_loss": critic_loss,
            "entropy_loss": entropy_loss,
            **clip_metrics(evaluation.log_probs, episodes.log_probs, config.clip_range),
        }
