"""Self-imitation: texts that scored more than expected are kept and imitated again."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from textgym_agents.agent import Agent
from textgym_agents.config import AgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import masked_mean, policy_gradient_loss
from textgym_agents.replay import EpisodeReplay
from textgym_agents.returns import best_of_groups

__all__ = ["SelfImitation", "SelfImitationConfig"]


@dataclass(frozen=True, kw_only=True)
class SelfImitationConfig(AgentConfig):
    """Hyper-parameters of self-imitation."""

    imitation_coef: float = 0.0
    """Coefficient of the imitation loss, of which each update then takes a gradient step of its own; 0 imitates
    nothing."""
    imitation_batch_size: int = 64
    """Minibatch size of the imitation, in episodes."""
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


class SelfImitation:
    """A buffer of successes, and one gradient step per update that imitates some of them.

    A success is the best text of its group, of episodes without groups every text, if its return exceeds the baseline.
    The step minimises the mean of -w_t log pi(a_t|s_t), where w_t = max(A_t, 0) of the update that the text is from,
    divided by the mean of the minibatch, so that the scale of the rewards does not matter.

    Source: Oh et al. 2018, Self-imitation learning (arXiv:1806.05635). Differences: advantages are not computed again
    as the baseline rises, V is not trained on old texts, and of a group only the best text is kept.

    Attributes:
        successes: The buffer.
    """

    def __init__(self, config: SelfImitationConfig) -> None:
        self.successes = EpisodeReplay(config.imitation_buffer_size)
        self._config = config

    def update(self, agent: Agent, episodes: Episodes, advantages: torch.Tensor) -> dict[str, float]:
        """Keep the successes among B episodes, take a step on some of all of them, and return metrics.

        Args:
            agent: The agent, whose policy, optimizer and generator are used.
            episodes: The episodes of the update.
            advantages: (B, T) advantages, not normalized: returns minus a baseline.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        if self._config.imitation_coef == 0:
            return {}
        is_grouped = "group" in episodes.infos[0]
        groups = episodes.groups() if is_grouped else torch.arange(len(episodes))
        best = best_of_groups(episodes.returns, groups, 1e-9)  # 1 of each
        best = best[(advantages[best, 0] > 0).numpy()]
        if best.size:
            kept = episodes[best]
            kept.advantages = advantages[best].clamp(min=0.0)
            self.successes.add(kept)
        if not len(self.successes):
            return {"train/imitation_episodes": 0.0}
        minibatch = self.successes.sample(self._config.imitation_batch_size, agent.generator)
        weights = self._config.imitation_coef / masked_mean(minibatch.advantages, minibatch.mask)
        minibatch.advantages = weights * minibatch.advantages

        def loss(part: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return policy_gradient_loss(agent.policy.evaluate(part).log_probs, part.advantages), {}

        metrics = agent.backward(minibatch, loss)
        agent.optimizer_step()
        return {"train/imitation_loss": metrics["train/loss"], "train/imitation_episodes": float(len(self.successes))}

    def save(self, folder: Path) -> None:
        """Write the buffer into the folder."""
        self.successes.save(folder)

    def load(self, folder: Path, state: None = None) -> None:
        """Restore what ``save`` wrote."""
        self.successes.load(folder)
