"""REINFORCE with a choice of baselines."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from textgym_agents.config import ActorCriticConfig, DiscountConfig, OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import masked_mean, normalized, policy_gradient_loss, value_loss, value_metrics
from textgym_agents.online import OnlineAgent
from textgym_agents.reference import KLConfig, ReferenceKL
from textgym_agents.returns import discounted_returns, leave_one_out
from textgym_agents.value_function import ValueRegression

__all__ = ["Reinforce", "ReinforceConfig"]


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(OnlineAgentConfig, DiscountConfig, ActorCriticConfig, KLConfig):
    """Hyper-parameters of REINFORCE."""

    baseline: Literal["value", "leave_one_out", "moving_average", "none"] = "value"
    """Baseline subtracted from the return: a learned V(s_t); the mean return of the other episodes of the group, or of
    the batch without groups; a moving average over past updates, 0 in the first; nothing."""
    baseline_decay: float = 0.9
    """Decay of the moving average, per update."""
    normalize_advantage: bool = True
    """Whether to normalize the advantages to mean 0 and standard deviation 1 over the collected episodes. The shift is
    a baseline too: disable it to compare baselines."""
    ent_coef: float = 0.0
    """Entropy coefficient for the loss calculation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, baseline_decay=(0, 1), ent_coef=(0, math.inf))
        if self.bootstrap_truncated and self.baseline != "value":
            raise ValueError(f"bootstrap_truncated needs a learned value: baseline='value', got {self.baseline!r}")


class Reinforce(OnlineAgent):
    """Monte-Carlo policy gradient on whole episodes.

    Per update: collect B episodes; with ``kl_estimator="k1"`` subtract ``kl_coef * log[pi(a_t|s_t) / pi_ref(a_t|s_t)]``
    from each reward; G_t = discounted return; A_t = G_t - b_t with the baseline b_t, V(s_t) by default; normalize A_t
    over the B episodes; one step of Adam on

        loss = -mean[A_t log pi(a_t|s_t)] + vf_coef * mean[(V(s_t) - G_t)^2 / 2] - ent_coef * mean[H(pi(.|s_t))]
               + kl_coef * mean[KL_t]

    where A_t and G_t are constants, and KL_t is the estimate of ``kl_estimator``, absent with k1; the second term only
    with ``baseline="value"``. Differences from Williams 1992: normalized advantages and the KL penalty (Ziegler et al.
    2019, arXiv:1909.08593). One forward and backward over the (B, W) ids serve all T steps.

    V is fitted to the Monte-Carlo returns of past episodes after each update (``PrefixValue.fit``) where the policy's
    ``value_function`` is ``"prefix"``; the value term of the loss then is that of the V that acted, without a gradient.
    ``train/loss`` is the mean of the loss over the gradient steps of the update.

    Args and errors: see ``OnlineAgent``; besides, a ValueError if the environment has a KL penalty too.

    Attributes:
        kl: The KL penalty against the initial policy.
        critic: The past episodes that V is fitted on.
        moving_average: Moving average of the returns, or None before the first update and with other baselines.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> agent = Reinforce("tiny", env, ReinforceConfig(num_episodes=4)).learn(16)
    >>> agent.num_timesteps >= 16
    True
    """

    config_class = ReinforceConfig
    checkpointed = ("kl", "critic", "moving_average")
    config: ReinforceConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kl = ReferenceKL(self.policy, self.config, self.env)
        self.critic = ValueRegression(self.policy.value_head, self.config.value_buffer_size)
        self.moving_average: float | None = None

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        config = self.config
        episodes.reference_log_probs = self.kl.log_probs(episodes)
        rewards = self.kl.penalized_rewards(episodes)
        last_values = self.policy.last_values(episodes) if config.bootstrap_truncated else None
        returns = discounted_returns(rewards, episodes.num_steps, config.gamma, last_values)
        advantages = returns - self._baseline(episodes, returns)
        if config.baseline == "moving_average":
            self._update_moving_average(float(masked_mean(returns, episodes.mask)))
        episodes.value_targets = returns
        episodes.advantages = normalized(advantages, episodes.mask) if config.normalize_advantage else advantages
        metrics = self.backward(episodes, self.loss) | self.optimizer_step()
        if config.baseline == "value":
            self.critic.update(episodes, returns, config.gamma)
            metrics |= value_metrics(episodes, returns)
        return metrics | self.kl.adapt(episodes)

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        config = self.config
        evaluation = self.policy.evaluate(episodes, entropy_gradient=config.ent_coef != 0)
        policy_loss = policy_gradient_loss(evaluation.log_probs, episodes.advantages)
        entropy_loss = -evaluation.entropies
        loss = policy_loss + config.ent_coef * entropy_loss + self.kl.loss(episodes, evaluation)
        terms = {"policy_gradient_loss": policy_loss, "entropy_loss": entropy_loss}
        if config.baseline == "value":
            values = episodes.values if self.critic.is_fitted else evaluation.values
            terms["value_loss"] = value_loss(values, episodes.value_targets)
            loss = loss + config.vf_coef * terms["value_loss"]
        return loss, terms

    def _baseline(self, episodes: Episodes, returns: torch.Tensor) -> torch.Tensor:
        """Return the baseline b_t, independent of a_t, as (B, T) or a scalar."""
        if self.config.baseline == "value":
            return episodes.values
        if self.config.baseline == "leave_one_out":
            return leave_one_out(returns, episodes.groups(), episodes.mask)
        if self.config.baseline == "none" or self.moving_average is None:
            return torch.zeros(())
        return torch.tensor(self.moving_average)

    def _update_moving_average(self, mean: float) -> None:
        before, decay = self.moving_average, self.config.baseline_decay
        self.moving_average = mean if before is None else decay * before + (1 - decay) * mean
