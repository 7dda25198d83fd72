"""Expert iteration: collect several texts, imitate the best, repeat."""

import math
from dataclasses import dataclass

import torch

from textgym_agents.agent import mean_metrics
from textgym_agents.config import OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.online import OnlineAgent
from textgym_agents.returns import best_of_groups

__all__ = ["ExpertIteration", "ExpertIterationConfig"]


@dataclass(frozen=True, kw_only=True)
class ExpertIterationConfig(OnlineAgentConfig):
    """Hyper-parameters of expert iteration."""

    top_fraction: float = 0.25
    """Fraction of each group of episodes to imitate, rounded up; of the whole batch if the environment has no groups.
    With groups of n episodes, 1 / n imitates the best of n."""
    n_epochs: int = 2
    """Number of epochs on the best episodes of each batch."""
    batch_size: int | None = None
    """Minibatch size, in episodes. None takes all of the best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, top_fraction=(0, 1), n_epochs=(1, math.inf), batch_size=(1, math.inf))
        if self.top_fraction == 0:
            raise ValueError("top_fraction must be above 0: with 0 nothing is imitated")


class ExpertIteration(OnlineAgent):
    """Behaviour cloning of the policy's own best texts: best-of-n sampling is the expert.

    Per update: collect B episodes; keep those of the highest return in each group of one prompt (``group_size`` of the
    environment), or in the whole batch; then for each epoch and minibatch of whole episodes one step of Adam on

        loss = mean[-log pi(a_t|s_t)]

    over the tokens of the best. It is called RAFT (Dong et al. 2023, arXiv:2304.06767) with the best of each group and
    ReST (Gulcehre et al. 2023, arXiv:2308.08998) with a threshold over all; the name is from Anthony et al. 2017
    (arXiv:1705.08439), whose expert is a tree search. Differences: one batch of episodes per improvement instead of a
    data set, no KL to the reference. Without groups, the texts of easy prompts prevail.

    Args and errors: see ``OnlineAgent``.
    """

    config_class = ExpertIterationConfig
    config: ExpertIterationConfig

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take the epochs on the best of B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are unchanged by that step.
        """
        best = episodes[best_of_groups(episodes.returns, episodes.groups(), self.config.top_fraction)]
        steps = [
            self.backward(minibatch, self.loss) | self.optimizer_step()
            for minibatch in self.minibatches(best, self.config.batch_size, self.config.n_epochs)
        ]
        return mean_metrics(steps) | {"train/expert_rew_mean": float(best.returns.mean())}

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        evaluation = self.policy.evaluate(episodes)
        return -evaluation.log_probs, {"cross_entropy": -evaluation.log_probs, "entropy_loss": -evaluation.entropies}
