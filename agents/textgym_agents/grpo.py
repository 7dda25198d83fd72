"""Group-relative policy optimization: the other texts to the same prompt are the baseline."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.config import check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import clipped_surrogate_loss
from textgym_agents.metrics import StepMeans, clip_metrics, update_means
from textgym_agents.policy_gradient import PolicyGradientAgent, PolicyGradientConfig
from textgym_agents.returns import discounted_returns, group_statistics, leave_one_out
from textgym_agents.rollout import text_env

__all__ = ["GRPO", "GRPOConfig"]


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(PolicyGradientConfig):
    """What decides a run of GRPO."""

    kl_coef: float = 0.1
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k3"
    variant: Literal["grpo", "rloo", "dr_grpo"] = "grpo"
    """``"grpo"`` divides advantages by the group's standard deviation and averages the loss within each text first;
    ``"rloo"`` subtracts the mean of the others and averages over tokens; ``"dr_grpo"`` subtracts the group's mean and
    divides the sum by the budget, so that neither a text's length nor a group's spread weighs."""
    return_to_go: bool = False
    """Whether a token's advantage comes from the rewards after it (reward-to-go) instead of the whole text's. The
    baseline is the group's reward-to-go at the same step, of texts that have ended that of their last step. Makes a
    difference only with a reward per token or a discount."""
    n_epochs: int = 1
    """Passes over each batch of episodes."""
    batch_size: int | None = None
    """Episodes per gradient step. None takes all."""
    clip_range: float = 0.2
    """PPO clipping parameter epsilon."""
    clip_range_high: float | None = None
    """Clipping parameter above, if another than ``clip_range`` (DAPO's clip-higher)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            n_epochs=(1, math.inf),
            batch_size=(1, math.inf),
            clip_range=(0, math.inf),
            clip_range_high=(0, math.inf),
        )
        if self.bootstrap_truncated:
            raise ValueError("bootstrap_truncated needs a learned value, which GRPO does without")


class GRPO(PolicyGradientAgent):
    """Policy gradient whose baseline is the group: no value head.

    Per update: collect B episodes in groups of one prompt, which the environment deals (``group_size``); with R the
    return of a text, A_t = (R - mean of the group) / standard deviation of the group; one step of AdamW on

        loss = mean over texts of the mean over tokens of
               -min(w_t A_t, clip(w_t, 1 - clip_range, 1 + clip_range) A_t) + kl_coef * KL_t

    with KL_t = k3, where w_t = pi(a_t|s_t) / pi_old(a_t|s_t). What differs from Shao et al. 2024 (DeepSeekMath,
    arXiv:2402.03300): one gradient step per batch by default, so that w_t = 1; texts of one group may be written at
    different times. ``variant="rloo"`` is Ahmadian et al. 2024 (Back to basics, arXiv:2402.14740) token by token,
    ``"dr_grpo"`` Liu et al. 2025 (Understanding R1-Zero-like training, arXiv:2503.20783).

    The expected steps of ``"rloo"``, summed over tokens, and of ``"dr_grpo"`` are the policy gradient up to a constant.
    That of ``"grpo"`` is the gradient of E[f(y) / |y|] with f held constant, f(y) being the mean of (R(y) - mean) /
    deviation over the groups that hold y: on the MDP of two letters, EOS and three tokens that
    ``tests/agents/test_exact_gradients.py`` enumerates, in groups of three, it is 15.6 degrees off the gradient.

    Args and errors: see ``OnlineAgent``; besides, a ValueError if the environment's groups have less than two episodes
    or do not divide ``num_episodes``. One that is made of an id has groups of 8, or of the next smaller divisor.
    """

    config_class = GRPOConfig
    config: GRPOConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        group_size = text_env(self.env).config.group_size
        if group_size < 2 or self.config.num_episodes % group_size:
            raise ValueError(
                f"GRPO compares texts of one prompt: the environment needs a group_size of at least 2 that divides "
                f"num_episodes={self.config.num_episodes}, got group_size={group_size}"
            )

    def _env_defaults(self) -> dict[str, Any]:
        divisors = [n for n in range(2, 9) if self.config.num_episodes % n == 0]
        return {"group_size": max(divisors, default=self.config.num_episodes)}

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take the epochs on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were before that step.
        """
        config = self.config
        reference = self.reference_log_probs(episodes)
        advantages = self._advantages(episodes, self.penalized_rewards(episodes, reference))
        steps: list[dict[str, float]] = []
        for index in self.minibatches(len(episodes), config.batch_size, config.n_epochs):
            means = StepMeans(int(episodes.num_steps[index].sum()))
            metrics = self.descend(self._losses(episodes, index, advantages, reference, means))
            steps.append(metrics | means.metrics())
        return update_means(steps) | self.control_kl(episodes, reference)

    def _advantages(self, episodes: Episodes, rewards: torch.Tensor) -> torch.Tensor:
        """Return (B, T) what each token is worth beside those of its group."""
        returns = discounted_returns(rewards, episodes.num_steps, self.config.gamma)
        if self.config.return_to_go:
            # A text that has ended stays in its group, with the return of its last step: a mean over the others alone
            # would shrink late gradients, and of the last text it would leave nothing.
            last = returns.gather(1, episodes.num_steps[:, None] - 1)
            returns = torch.where(episodes.mask, returns, last)
        else:
            returns = returns[:, :1].expand_as(returns)
        if self.config.variant == "rloo":
            return returns - leave_one_out(returns, episodes.groups())
        mean, deviation, _ = group_statistics(returns, episodes.groups())
        return (returns - mean) / (deviation + 1e-4 if self.config.variant == "grpo" else 1.0)

    def _losses(
        self,
        episodes: Episodes,
        index: npt.NDArray[np.int64],
        advantages: torch.Tensor,
        reference: torch.Tensor | None,
        means: StepMeans,
    ) -> Iterator[torch.Tensor]:
        """Yield the loss of a minibatch, a micro-batch at a time."""
        config = self.config
        for i in self.micro_batches(index):
            part = episodes[i]
            now = self.policy.evaluate(part, entropy_gradient=config.ent_coef != 0)
            policy_loss = clipped_surrogate_loss(
                now.log_probs, part.log_probs, advantages[i], config.clip_range, config.clip_range_high
            )
            loss = policy_loss + self.regularization(part, now, None if reference is None else reference[i])
            means.add(
                part.mask,
                policy_gradient_loss=policy_loss,
                entropy_loss=-now.entropies,
                **clip_metrics(now.log_probs, part.log_probs, config.clip_range),
            )
            yield (loss * part.mask * self._weights(part, len(index), means.num_steps)).sum()

    def _weights(self, part: Episodes, num_episodes: int, num_steps: int) -> torch.Tensor:
        """Return (B, 1), what each text's steps weigh in a minibatch."""
        if self.config.variant == "grpo":
            return 1 / (num_episodes * part.num_steps[:, None])
        if self.config.variant == "rloo":
            return torch.full((len(part), 1), 1 / num_steps)
        return torch.full((len(part), 1), 1 / (num_episodes * text_env(self.env).max_new_tokens))
