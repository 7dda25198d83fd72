"""Returns and advantages from rewards, for whole episodes of different lengths.

Everything after an episode's end is ignored in the arguments and 0 in the results.
"""

import torch

__all__ = ["discounted_returns", "generalized_advantages", "group_statistics", "leave_one_out"]


def discounted_returns(
    rewards: torch.Tensor, lengths: torch.Tensor, gamma: float, last_values: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute G_t = r_t + gamma r_{t+1} + ... + gamma^{n-1-t} r_{n-1} + gamma^{n-t} v, n being the episode's length.

    Args:
        rewards: (B, T) float.
        lengths: (B,) int64, steps of each episode, at least 1.
        gamma: Discount per step.
        last_values: (B,) float, v: the value of the last state where a time limit cut the episode off, 0 where it
            ended. None is 0 for all.

    Returns:
        (B, T) float.

    Source: Sutton and Barto 2018, Reinforcement Learning, section 3.3; for the time limit Pardo et al. 2018
    (arXiv:1712.00378).

    >>> discounted_returns(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([2]), 0.5, torch.tensor([4.0]))
    tensor([[3., 4., 0.]])
    """
    return generalized_advantages(rewards, torch.zeros_like(rewards), lengths, gamma, 1.0, last_values)


def generalized_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    lengths: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    last_values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute A_t = delta_t + gamma lambda A_{t+1}, with delta_t = r_t + gamma V(s_{t+1}) - V(s_t).

    With lambda = 1 it is the return minus V(s_t), with lambda = 0 the one-step TD error.

    Args:
        rewards: (B, T) float.
        values: (B, T) float, V(s_t).
        lengths: (B,) int64, steps of each episode, at least 1.
        gamma: Discount per step.
        gae_lambda: From 0 to 1.
        last_values: (B,) float, V of the state after the last action, 0 where the episode ended. None is 0 for all.

    Returns:
        (B, T) float.

    Source: Schulman et al. 2016, High-dimensional continuous control using generalized advantage estimation
    (arXiv:1506.02438), equation 16.

    >>> ones = torch.ones(1, 2)
    >>> generalized_advantages(ones, 2 * ones, torch.tensor([2]), 1.0, 0.5)
    tensor([[ 0.5000, -1.0000]])
    """
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    inside = steps < lengths[:, None]
    rewards, values = torch.where(inside, rewards, 0.0), torch.where(inside, values, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    if last_values is not None:
        following = following + last_values[:, None] * (steps == lengths[:, None] - 1)
    errors = torch.where(inside, rewards + gamma * following - values, 0.0)
    advantages = torch.zeros_like(errors)
    last = torch.zeros_like(errors[:, 0])
    for t in reversed(range(errors.shape[1])):
        last = errors[:, t] + gamma * gae_lambda * last
        advantages[:, t] = last
    return advantages


def group_statistics(
    values: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, standard deviation and number of what each entry's group holds in its column.

    Args:
        values: (B,) or (B, T) float.
        groups: (B,) int64, the group of each row, any numbers.
        mask: Of the shape of ``values``, bool, entries that count; by default all.

    Returns:
        Three tensors of the shape of ``values``; the standard deviation is the population's, 0 where nothing counts.

    >>> group_statistics(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([4, 4, 9]))[0]
    tensor([2., 2., 5.])
    """
    counted = torch.ones_like(values) if mask is None else mask.to(values.dtype)
    _, number = groups.unique(return_inverse=True)

    def total(entries: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(int(number.max()) + 1, *entries.shape[1:], dtype=entries.dtype)
        return sums.index_add_(0, number, entries)[number]

    count = total(counted)
    mean = total(values * counted) / count.clamp(min=1)
    deviation = (total((values - mean).square() * counted) / count.clamp(min=1)).sqrt()
    return mean, deviation, count


def leave_one_out(values: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of the others in each entry's group and column, 0 where it is alone: an unbiased baseline.

    Arguments as in ``group_statistics``.

    Source: Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free.

    >>> leave_one_out(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 0]))
    tensor([4., 3., 2.])
    """
    mean, _, count = group_statistics(values, groups, mask)
    return torch.where(count > 1, (mean * count - values) / (count - 1).clamp(min=1), 0.0)
