"""What the imitating agents share: which episodes are worth imitating, and the loss of writing them."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.agent import Agent
from textgym_agents.episodes import Episodes
from textgym_agents.metrics import StepMeans

__all__ = ["best_of_groups", "imitation_losses"]


def best_of_groups(returns: torch.Tensor, groups: torch.Tensor, top_fraction: float) -> npt.NDArray[np.int64]:
    """Return which episodes are the best of their groups: so large a share of each, rounded up.

    Args:
        returns: (B,) float.
        groups: (B,) int64, any numbers.
        top_fraction: Above 0, at most 1.

    Returns:
        (K,) int64, rising; of equal returns the earlier.

    >>> best_of_groups(torch.tensor([1.0, 3.0, 2.0, 0.0]), torch.tensor([7, 7, 9, 9]), 0.5)
    array([1, 2])
    """
    order = torch.argsort(returns, descending=True, stable=True)
    kept = []
    for group in groups.unique():
        members = order[groups[order] == group]
        kept.append(members[: math.ceil(top_fraction * len(members))])
    return torch.cat(kept).sort().values.numpy()


def imitation_losses(
    agent: Agent, episodes: Episodes, index: npt.NDArray[np.int64], means: StepMeans
) -> Iterator[torch.Tensor]:
    """Yield mean[-log pi(a_t|s_t)] of a minibatch, a micro-batch at a time; prompts and padding do not count.

    Args:
        agent: Its policy is evaluated.
        episodes: B episodes.
        index: (K,) int64, those of the minibatch.
        means: Gathers what the steps say; it knows how many there are.
    """
    for i in agent.micro_batches(index):
        part = episodes[i]
        now = agent.policy.evaluate(part)
        means.add(part.mask, cross_entropy=-now.log_probs, entropy_loss=-now.entropies)
        yield -now.log_probs[part.mask].sum() / means.num_steps
