"""Behaviour cloning: maximum likelihood on recorded episodes, or the best of them."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from textgym_agents.config import OfflineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.offline import OfflineAgent
from textgym_agents.returns import best_of_groups

__all__ = ["BehaviourCloning", "BehaviourCloningConfig"]


@dataclass(frozen=True, kw_only=True)
class BehaviourCloningConfig(OfflineAgentConfig):
    """Hyper-parameters of behaviour cloning."""

    top_fraction: float = 1.0
    """Fraction of the data to imitate, those of the highest return; above 0, at most 1."""
    min_return: float = -math.inf
    """Minimum return of the episodes to imitate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, top_fraction=(0, 1))
        if self.top_fraction == 0:
            raise ValueError("top_fraction must be above 0: with 0 nothing is imitated")
        if math.isnan(self.min_return):
            raise ValueError("min_return must be a number, got nan")


class BehaviourCloning(OfflineAgent):
    """Maximum likelihood on recorded episodes.

    Per update: draw B episodes; one step of Adam on

        loss = mean[-log pi(a_t|s_t)]

    over the tokens of their completions, with pi over the valid tokens. With a filter it is percentage behaviour
    cloning (Chen et al. 2021, Decision transformer, arXiv:2106.01345, section 5.1), which can exceed the policy that
    generated the data. One forward and backward over the (B, W) ids serve all T steps. A value head is not trained.

    Source: Pomerleau 1991, Efficient training of artificial neural networks for autonomous navigation.

    Args and errors: see ``OfflineAgent``; besides, a ValueError if no episode has a return of ``min_return``.
    """

    config_class = BehaviourCloningConfig
    config: BehaviourCloningConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        returns, one_group = self.data.returns, self.data.num_steps.new_zeros(len(self.data))
        best = best_of_groups(returns, one_group, self.config.top_fraction)
        best = best[(returns[best] >= self.config.min_return).numpy()]
        if best.size == 0:
            raise ValueError(
                f"no episode of the data has a return of at least min_return={self.config.min_return}; the best has "
                f"{float(returns.max()):.4g}"
            )
        self.data = self.data[best]

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        return self.backward(episodes, self.loss) | self.optimizer_step()

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        evaluation = self.policy.evaluate(episodes)
        return -evaluation.log_probs, {"cross_entropy": -evaluation.log_probs, "entropy_loss": -evaluation.entropies}
