"""Expert iteration: write several texts, imitate the best, repeat."""

import math
from dataclasses import dataclass

from textgym_agents.agent import OnlineAgent
from textgym_agents.config import OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.imitation import best_of_groups, imitation_losses
from textgym_agents.metrics import StepMeans, update_means

__all__ = ["ExpertIteration", "ExpertIterationConfig"]


@dataclass(frozen=True, kw_only=True)
class ExpertIterationConfig(OnlineAgentConfig):
    """What decides a run of ExpertIteration."""

    top_fraction: float = 0.25
    """Share of each group of episodes that is imitated, rounded up; of the whole batch where the environment deals no
    groups. With groups of n episodes, 1 / n imitates the best of n."""
    n_epochs: int = 2
    """Passes over the best episodes of each batch."""
    batch_size: int | None = None
    """Episodes per gradient step. None takes all of the best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, top_fraction=(0, 1), n_epochs=(1, math.inf), batch_size=(1, math.inf))
        if self.top_fraction == 0:
            raise ValueError("top_fraction must be above 0: with 0 nothing is imitated")


class ExpertIteration(OnlineAgent):
    """Behaviour cloning of the policy's own best texts: the policy improved by choosing is the expert.

    Per update: collect B episodes; keep those of the highest return in each group of one prompt (``group_size`` of the
    environment), or in the whole batch; then for each epoch and minibatch of whole episodes one step of AdamW on

        loss = mean[-log pi(a_t|s_t)]

    over the tokens of the best. It is called RAFT (Dong et al. 2023, arXiv:2304.06767) with the best of each group and
    ReST (Gulcehre et al. 2023, arXiv:2308.08998) with a threshold over all; the name is from Anthony et al. 2017
    (arXiv:1705.08439), whose expert is a tree search. What differs: one batch of episodes per improvement instead of a
    data set, no KL to the reference, AdamW. Without groups, easy prompts crowd out the hard ones.

    Args and errors: see ``OnlineAgent``.
    """

    config_class = ExpertIterationConfig
    config: ExpertIterationConfig

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take the epochs on the best of B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were before that step.
        """
        best = episodes[best_of_groups(episodes.returns, episodes.groups(), self.config.top_fraction)]
        steps: list[dict[str, float]] = []
        for index in self.minibatches(len(best), self.config.batch_size, self.config.n_epochs):
            means = StepMeans(int(best.num_steps[index].sum()))
            steps.append(self.descend(imitation_losses(self, best, index, means)) | means.metrics())
        return update_means(steps) | {"train/expert_rew_mean": float(best.returns.mean())}
