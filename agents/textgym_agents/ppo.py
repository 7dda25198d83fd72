"""Proximal policy optimization: several epochs on one batch, held near the policy that wrote it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.config import check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import clipped_surrogate_loss, normalized, value_loss
from textgym_agents.metrics import StepMeans, clip_metrics, update_means, value_metrics
from textgym_agents.policy_gradient import PolicyGradientAgent, PolicyGradientConfig
from textgym_agents.returns import discounted_returns, generalized_advantages

__all__ = ["PPO", "PPOConfig"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyGradientConfig):
    """What decides a run of PPO."""

    n_epochs: int = 4
    """Passes over each batch of episodes."""
    batch_size: int | None = 32
    """Episodes per gradient step. None takes all."""
    clip_range: float = 0.2
    """PPO clipping parameter epsilon."""
    clip_range_vf: float | None = None
    """Clipping parameter of the value function. None does not clip."""
    gae_lambda: float = 0.95
    """GAE lambda: 1 is Monte Carlo, 0 is one-step TD."""
    vf_coef: float = 0.5
    """Weight of the value's loss."""
    normalize_advantage: bool = True
    """Whether advantages are shifted and scaled to mean 0 and standard deviation 1 in each batch."""
    target_kl: float | None = None
    """Stop the epochs, before the gradient step, at the first minibatch whose approximate KL to the policy that wrote
    it exceeds 1.5 x ``target_kl``, in nats per token. Clipping alone does not bound it. None never stops early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            n_epochs=(1, math.inf),
            batch_size=(1, math.inf),
            clip_range=(0, math.inf),
            clip_range_vf=(0, math.inf),
            gae_lambda=(0, 1),
            vf_coef=(0, math.inf),
            target_kl=(0, math.inf),
        )


class PPO(PolicyGradientAgent):
    """Clipped policy gradient on whole episodes.

    Per update: collect B episodes; subtract the KL penalty from the rewards; A_t = generalized advantage; then for
    each epoch and minibatch of whole episodes one step of AdamW on

        loss = mean[-min(w_t A_t, clip(w_t, 1 - clip_range, 1 + clip_range) A_t)]
               + vf_coef * mean[(V(s_t) - A_t - V_old(s_t))^2 / 2] - ent_coef * mean[H(pi(.|s_t))]

    where w_t = pi(a_t|s_t) / pi_old(a_t|s_t). What differs from Schulman et al. 2017 (arXiv:1707.06347): minibatches of
    whole episodes, since one forward serves all steps of an episode; the KL penalty to the reference; AdamW.

    Args and errors: see ``OnlineAgent``.
    """

    config_class = PPOConfig
    config: PPOConfig

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take the epochs on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were before that step.
        """
        config = self.config
        reference = self.reference_log_probs(episodes)
        rewards = self.penalized_rewards(episodes, reference)
        last_values = self.policy.last_values(episodes) if config.bootstrap_truncated else None
        advantages = generalized_advantages(
            rewards, episodes.values, episodes.num_steps, config.gamma, config.gae_lambda, last_values
        )
        returns = advantages + episodes.values
        if config.normalize_advantage:
            advantages = normalized(advantages, episodes.mask)
        steps: list[dict[str, float]] = []
        for index in self.minibatches(len(episodes), config.batch_size, config.n_epochs):
            means = StepMeans(int(episodes.num_steps[index].sum()))
            metrics = self._backward(self._losses(episodes, index, advantages, returns, reference, means))
            steps.append(metrics | means.metrics())
            if config.target_kl is not None and steps[-1]["train/approx_kl"] > 1.5 * config.target_kl:
                break
            steps[-1] |= self._step()
        monte_carlo = discounted_returns(rewards, episodes.num_steps, config.gamma, last_values)
        metrics = update_means(steps) | value_metrics(episodes, returns, monte_carlo)
        return metrics | self.control_kl(episodes, reference)

    def _losses(
        self,
        episodes: Episodes,
        index: npt.NDArray[np.int64],
        advantages: torch.Tensor,
        returns: torch.Tensor,
        reference: torch.Tensor | None,
        means: StepMeans,
    ) -> Iterator[torch.Tensor]:
        """Yield the loss of a minibatch, a micro-batch at a time."""
        config = self.config
        for i in self.micro_batches(index):
            part = episodes[i]
            now = self.policy.evaluate(part, entropy_gradient=config.ent_coef != 0)
            policy_loss = clipped_surrogate_loss(now.log_probs, part.log_probs, advantages[i], config.clip_range)
            error = value_loss(now.values, returns[i], part.values, config.clip_range_vf)
            loss = policy_loss + config.vf_coef * error
            loss = loss + self.regularization(part, now, None if reference is None else reference[i])
            means.add(
                part.mask,
                policy_gradient_loss=policy_loss,
                value_loss=error,
                entropy_loss=-now.entropies,
                **clip_metrics(now.log_probs, part.log_probs, config.clip_range),
            )
            yield loss[part.mask].sum() / means.num_steps
