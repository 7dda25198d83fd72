"""Self-imitation: texts that scored more than expected are kept and imitated again."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from textgym_agents.agent import Agent
from textgym_agents.config import AgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import policy_gradient_loss
from textgym_agents.replay import EpisodeReplay
from textgym_agents.returns import best_of_groups, group_statistics

__all__ = ["SelfImitation", "SelfImitationConfig", "imitation_weights"]


@dataclass(frozen=True, kw_only=True)
class SelfImitationConfig(AgentConfig):
    """Hyper-parameters of self-imitation."""

    imitation_coef: float = 1.0
    """Coefficient of the imitation loss, of which each update then takes a gradient step of its own; 0 imitates
    nothing."""
    imitation_batch_size: int = 64
    """Minibatch size of the imitation, in episodes; at most as many as the update has."""
    imitation_buffer_size: int = 2_048
    """Size of the buffer of successes, in episodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            imitation_coef=(0, math.inf),
            imitation_batch_size=(1, math.inf),
            imitation_buffer_size=(1, math.inf),
        )


def imitation_weights(returns: torch.Tensor, new_returns: torch.Tensor) -> torch.Tensor:
    """Return max(R - mean, 0) / deviation of old returns, with mean and deviation of those of the newest batch.

    Args:
        returns: (B,) float, R of old texts.
        new_returns: (K,) float, of what the policy writes by now.

    Returns:
        (B,) float, 0 where the new returns are all equal.

    >>> imitation_weights(torch.tensor([4.0, 2.0, 1.0]), torch.tensor([1.0, 3.0]))
    tensor([2., 0., 0.])
    """
    deviation = new_returns.double().std(correction=0)
    excess = (returns - new_returns.mean()).clamp(min=0)
    return excess / deviation.to(returns.dtype) if deviation > 0 else torch.zeros_like(returns)


class SelfImitation:
    """A buffer of successes, and one gradient step per update that imitates some of them.

    A success is the best text of its group if it scored above the group's mean, of episodes without groups every text
    above the mean of the batch. The step minimises the mean over steps of -w log pi(a_t|s_t) with
    w = max(R - mean, 0) / deviation, where R is the return of the old text, mean and deviation those of the returns of
    the newest batch: a text is imitated only as long as it is better than what the policy writes by now.

    Source: Oh et al. 2018, Self-imitation learning (arXiv:1806.05635). Differences: the mean return of the newest batch
    stands for V(s_t), V is not trained on old texts, and of a group only the best text is kept.

    Attributes:
        successes: The buffer.
    """

    def __init__(self, config: SelfImitationConfig) -> None:
        self.successes = EpisodeReplay(config.imitation_buffer_size)
        self._config = config

    def update(self, agent: Agent, episodes: Episodes) -> dict[str, float]:
        """Keep the successes among B episodes, take a step on some of all of them, and return metrics.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        if self._config.imitation_coef == 0:
            return {}
        returns = episodes.returns
        is_grouped = "group" in episodes.infos[0]
        best = best_of_groups(returns, episodes.groups() if is_grouped else torch.arange(len(episodes)), 1e-9)
        means = group_statistics(returns, episodes.groups())[0]
        best = best[(returns > means)[best].numpy()]
        if best.size:
            self.successes.add(episodes[best])
        metrics = {"train/imitation_episodes": float(len(self.successes))}
        if not len(self.successes):
            return metrics
        minibatch = self.successes.sample(min(self._config.imitation_batch_size, len(episodes)), agent.generator)
        weights = self._config.imitation_coef * imitation_weights(minibatch.returns, returns)
        if not weights.any():
            return metrics

        def loss(part: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            log_probs = agent.policy.evaluate(part).log_probs
            return policy_gradient_loss(log_probs, part.advantages), {}

        minibatch.advantages = weights[:, None].expand_as(minibatch.rewards)
        metrics["train/imitation_loss"] = agent.backward(minibatch, loss)["train/loss"]
        agent.optimizer_step()
        return metrics

    def save(self, folder: Path) -> None:
        """Write the buffer into the folder."""
        self.successes.save(folder)

    def load(self, folder: Path, state: None = None) -> None:
        """Restore what ``save`` wrote."""
        self.successes.load(folder)
