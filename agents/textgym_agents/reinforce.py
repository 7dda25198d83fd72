"""REINFORCE with a choice of baselines and a KL penalty to the language model that training started from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from textgym_agents.config import check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import masked_mean, normalized, policy_gradient_loss, value_loss
from textgym_agents.metrics import StepMeans, value_metrics
from textgym_agents.policy_gradient import PolicyGradientAgent, PolicyGradientConfig
from textgym_agents.returns import discounted_returns, leave_one_out

__all__ = ["Reinforce", "ReinforceConfig"]


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(PolicyGradientConfig):
    """What decides a run of Reinforce."""

    baseline: Literal["value", "leave_one_out", "moving_average", "none"] = "value"
    """What is subtracted from the return: a learned V(s_t); the mean return of the other episodes of the group, or of
    the batch where episodes come in no groups; an average over past updates, 0 in the first; nothing."""
    baseline_decay: float = 0.9
    """How much of the moving average an update keeps."""
    vf_coef: float = 0.5
    """Weight of the learned baseline's loss."""
    normalize_advantage: bool = True
    """Whether advantages are shifted and scaled to mean 0 and standard deviation 1 in each batch. The shift is a
    baseline too: switch it off to compare baselines."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, baseline_decay=(0, 1), vf_coef=(0, math.inf))
        if self.bootstrap_truncated and self.baseline != "value":
            raise ValueError(f"bootstrap_truncated needs a learned value: baseline='value', got {self.baseline!r}")


class Reinforce(PolicyGradientAgent):
    """Monte-Carlo policy gradient on whole episodes.

    Per update: collect B episodes; subtract ``kl_coef * (log pi(a_t|s_t) - log pi_ref(a_t|s_t))`` from each reward;
    G_t = discounted return; A_t = G_t - b_t with the baseline b_t, V(s_t) by default; one step of AdamW on

        loss = -mean[A_t log pi(a_t|s_t)] + vf_coef * mean[(V(s_t) - G_t)^2 / 2] - ent_coef * mean[H(pi(.|s_t))]

    What differs from Williams 1992: normalised advantages, the KL penalty (Ziegler et al. 2019, arXiv:1909.08593), and
    AdamW. One forward and backward over the (B, W) ids serve all T steps.

    Args and errors: see ``OnlineAgent``.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> agent = Reinforce("tiny", env, ReinforceConfig(num_episodes=4)).learn(16)
    >>> agent.num_timesteps >= 16
    True
    """

    config_class = ReinforceConfig
    config: ReinforceConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moving_average: float | None = None

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were.
        """
        config, mask = self.config, episodes.mask
        reference = self.reference_log_probs(episodes)
        rewards = self.penalized_rewards(episodes, reference)
        last_values = self.policy.last_values(episodes) if config.bootstrap_truncated else None
        returns = discounted_returns(rewards, episodes.num_steps, config.gamma, last_values)
        advantages = returns - self._baseline(episodes, returns)
        if config.normalize_advantage:
            advantages = normalized(advantages, mask)
        means = StepMeans(int(mask.sum()))

        def losses() -> Iterator[torch.Tensor]:
            for index in self.micro_batches(np.arange(len(episodes))):
                part = episodes[index]
                now = self.policy.evaluate(part, entropy_gradient=config.ent_coef != 0)
                policy_loss = policy_gradient_loss(now.log_probs, advantages[index])
                loss = policy_loss + self.regularization(part, now, None if reference is None else reference[index])
                if config.baseline == "value":
                    error = value_loss(now.values, returns[index])
                    loss = loss + config.vf_coef * error
                    means.add(part.mask, value_loss=error)
                means.add(part.mask, policy_gradient_loss=policy_loss, entropy_loss=-now.entropies)
                yield loss[part.mask].sum() / mask.sum()

        metrics = self.descend(losses()) | means.metrics()
        if config.baseline == "value":
            metrics |= value_metrics(episodes, returns, returns)
        return metrics | self.control_kl(episodes, reference)

    def _baseline(self, episodes: Episodes, returns: torch.Tensor) -> torch.Tensor:
        """Return (B, T), or what broadcasts to it: a guess of the return that no action of the step changes."""
        if self.config.baseline == "value":
            return episodes.values
        if self.config.baseline == "leave_one_out":
            return leave_one_out(returns, episodes.groups(), episodes.mask)
        if self.config.baseline == "none":
            return torch.zeros(())
        mean = float(masked_mean(returns, episodes.mask))
        before, decay = self.moving_average, self.config.baseline_decay
        self.moving_average = mean if before is None else decay * before + (1 - decay) * mean
        return torch.tensor(0.0 if before is None else before)

    def _state(self, folder: Path) -> dict[str, Any]:
        return super()._state(folder) | {"moving_average": self.moving_average}

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:
        super()._set_state(state, folder)
        self.moving_average = state["moving_average"]
