"""Returns and advantages of whole episodes of different lengths, as pure functions.

Entries after an episode's end are ignored in the arguments and 0 in the results. Shapes that do not fit raise a
ValueError: nothing is broadcast.
"""

import math

import numpy as np
import numpy.typing as npt
import torch

__all__ = [
    "best_of_groups",
    "check_equal_shapes",
    "decoupled_advantages",
    "discounted_returns",
    "generalized_advantages",
    "group_statistics",
    "lambda_returns",
    "leave_one_out",
    "n_step_returns",
]


def discounted_returns(
    rewards: torch.Tensor, num_steps: torch.Tensor, gamma: float, last_values: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute G_t = r_t + gamma r_{t+1} + ... + gamma^{n-1-t} r_{n-1} + gamma^{n-t} v, n being the episode's length.

    Args:
        rewards: (B, T) float.
        num_steps: (B,) int64, steps of each episode, at least 1.
        gamma: Discount per step.
        last_values: (B,) float, v: V of the state after the last action of truncated episodes, 0 of terminated ones.
            None is 0 for all.

    Returns:
        (B, T) float.

    Source: Sutton and Barto 2018, Reinforcement Learning, section 3.3; for the time limit Pardo et al. 2018
    (arXiv:1712.00378).

    >>> discounted_returns(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([2]), 0.5, torch.tensor([4.0]))
    tensor([[3., 4., 0.]])
    """
    return generalized_advantages(rewards, torch.zeros_like(rewards), num_steps, gamma, 1.0, last_values)


def generalized_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    num_steps: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    last_values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute A_t = delta_t + gamma lambda A_{t+1}, with delta_t = r_t + gamma V(s_{t+1}) - V(s_t).

    With lambda = 1 it is the return minus V(s_t), with lambda = 0 the one-step TD error.

    Args:
        rewards: (B, T) float.
        values: (B, T) float, V(s_t).
        num_steps: (B,) int64, steps of each episode, at least 1.
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
    check_equal_shapes(rewards=rewards, values=values)
    check_equal_shapes(num_steps=num_steps, last_values=last_values)
    _check_num_steps(num_steps, rewards)
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    inside = steps < num_steps[:, None]
    rewards, values = torch.where(inside, rewards, 0.0), torch.where(inside, values, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    if last_values is not None:
        following = following + last_values[:, None] * (steps == num_steps[:, None] - 1)
    errors = torch.where(inside, rewards + gamma * following - values, 0.0)
    advantages = torch.zeros_like(errors)
    last = torch.zeros_like(errors[:, 0])
    for t in reversed(range(errors.shape[1])):
        last = errors[:, t] + gamma * gae_lambda * last
        advantages[:, t] = last
    return advantages


def check_equal_shapes(**tensors: torch.Tensor | None) -> None:
    """Raise a ValueError with all shapes unless those of the given tensors are equal; None is ignored.

    >>> check_equal_shapes(log_probs=torch.zeros(2, 3), advantages=torch.zeros(2))
    Traceback (most recent call last):
        ...
    ValueError: shapes must be equal, got log_probs (2, 3), advantages (2,)
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor is not None}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"shapes must be equal, got {', '.join(f'{name} {s}' for name, s in shapes.items())}")


def _check_num_steps(num_steps: torch.Tensor, rewards: torch.Tensor) -> None:
    size, longest = rewards.shape
    if num_steps.shape != (size,) or (size and int(num_steps.max()) > longest):
        raise ValueError(
            f"num_steps must be the steps of each of {size} episodes, shape ({size},), at most T={longest}, got shape "
            f"{tuple(num_steps.shape)} and a maximum of {int(num_steps.max())}"
        )


def group_statistics(
    values: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, standard deviation and number of the entries in each entry's group and column.

    Args:
        values: (B,) or (B, T) float.
        groups: (B,) int64, the group of each row, any numbers.
        mask: Bool, of the shape of ``values``, True for the entries to include; by default all.

    Returns:
        Three tensors of the shape of ``values``; the standard deviation is the population's, 0 without entries.

    >>> group_statistics(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([4, 4, 9]))[0]
    tensor([2., 2., 5.])
    """
    check_equal_shapes(values=values, mask=mask)
    exact = values.double()  # in float32 the rounding of the mean would make equal values differ from it
    counted = torch.ones_like(exact) if mask is None else mask.double()
    _, number = groups.unique(return_inverse=True)

    def total(entries: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(int(number.max()) + 1, *entries.shape[1:], dtype=entries.dtype)
        return sums.index_add_(0, number, entries)[number]

    count = total(counted)
    mean = total(exact * counted) / count.clamp(min=1)
    deviation = (total((exact - mean).square() * counted) / count.clamp(min=1)).sqrt()
    return mean.to(values.dtype), deviation.to(values.dtype), count.to(values.dtype)


def leave_one_out(values: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of the other entries in each entry's group and column, 0 if there are none: an unbiased baseline.

    Arguments as in ``group_statistics``.

    Source: Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free.

    >>> leave_one_out(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 0]))
    tensor([4., 3., 2.])
    """
    mean, _, count = group_statistics(values, groups, mask)
    return torch.where(count > 1, (mean * count - values) / (count - 1).clamp(min=1), 0.0)


def best_of_groups(returns: torch.Tensor, groups: torch.Tensor, top_fraction: float) -> npt.NDArray[np.int64]:
    """Return the indices of the ``top_fraction`` of each group with the highest returns, rounded up.

    Args:
        returns: (B,) float.
        groups: (B,) int64, any numbers.
        top_fraction: Above 0, at most 1.

    Returns:
        (K,) int64, ascending; ties go to the earlier episode.

    >>> best_of_groups(torch.tensor([1.0, 3.0, 2.0, 0.0]), torch.tensor([7, 7, 9, 9]), 0.5)
    array([1, 2])
    """
    order = torch.argsort(returns, descending=True, stable=True)
    kept = []
    for group in groups.unique():
        members = order[groups[order] == group]
        kept.append(members[: math.ceil(top_fraction * len(members))])
    return torch.cat(kept).sort().values.numpy()


def decoupled_advantages(components: torch.Tensor, weights: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Compute sum_k w_k (c_k - mean) / (deviation + 1e-4), with mean and deviation of component k over the group.

    Each component of a score counts by its weight, whatever its spread. Divided by the deviation of their sum, one that
    varies little in the group would hardly count, and different scores of equal sums would have equal advantages.

    Args:
        components: (B, K) float, the unweighted components; NaN where one does not apply, which then adds 0.
        weights: (K,) float.
        groups: (B,) int64, any numbers.

    Returns:
        (B,) float, of mean 0 in each group.

    Source: Liu et al. 2026, GDPO (arXiv:2601.05242), before its normalization over the batch.

    >>> components = torch.tensor([[0.0, 1.0], [0.0, 3.0], [9.0, 2.0]])
    >>> decoupled_advantages(components, torch.tensor([1.0, 2.0]), torch.tensor([0, 0, 0])).round(decimals=2)
    tensor([-3.1600,  1.7400,  1.4100])
    """
    if components.ndim != 2 or weights.shape != components.shape[1:] or groups.shape != components.shape[:1]:
        raise ValueError(
            f"components must be (B, K), weights (K,) and groups (B,), got {tuple(components.shape)}, "
            f"{tuple(weights.shape)} and {tuple(groups.shape)}"
        )
    applies = ~components.isnan()
    values = components.nan_to_num()
    mean, deviation, _ = group_statistics(values, groups, applies)
    return (torch.where(applies, (values - mean) / (deviation + 1e-4), 0.0) * weights).sum(dim=1)


def lambda_returns(
    rewards: torch.Tensor,
    values: torch.Tensor,
    num_steps: torch.Tensor,
    gamma: float,
    lambda_: float,
    last_values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute G_t = r_t + gamma [(1 - lambda) V(s_{t+1}) + lambda G_{t+1}], and of the last step r + gamma v.

    With V(s) = max_a Q(s, a) this is Peng's Q(lambda), which does not cut traces at off-policy actions.

    Args:
        rewards: (B, T) float.
        values: (B, T) float, V(s_t).
        num_steps: (B,) int64, steps of each episode, at least 1.
        gamma: Discount per step.
        lambda_: From 0, the one-step target, to 1, the discounted return.
        last_values: (B,) float, v: V of the state after the last action, 0 where the episode ended. None is 0 for all.

    Returns:
        (B, T) float.

    Source: Peng and Williams 1996, Incremental multi-step Q-learning; Kozuno et al. 2021, Revisiting Peng's Q(lambda)
    for modern reinforcement learning (arXiv:2103.00107).

    >>> lambda_returns(torch.tensor([[0.0, 1.0]]), torch.tensor([[9.0, 3.0]]), torch.tensor([2]), 1.0, 0.5)
    tensor([[2., 1.]])
    """
    advantages = generalized_advantages(rewards, values, num_steps, gamma, lambda_, last_values)
    inside = torch.arange(rewards.shape[1], device=rewards.device) < num_steps[:, None]
    return torch.where(inside, advantages + values, 0.0)


def n_step_returns(
    rewards: torch.Tensor,
    values: torch.Tensor,
    num_steps: torch.Tensor,
    gamma: float,
    n: int,
    last_values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute G_t = r_t + ... + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n}), up to the last state.

    Args:
        rewards: (B, T) float.
        values: (B, T) float, V(s_t).
        num_steps: (B,) int64, steps of each episode, at least 1.
        gamma: Discount per step.
        n: At least 1.
        last_values: (B,) float, V of the state after the last action, 0 where the episode ended. None is 0 for all.

    Returns:
        (B, T) float.

    Source: Sutton and Barto 2018, Reinforcement Learning, section 7.1.

    >>> n_step_returns(torch.ones(1, 3), torch.full((1, 3), 5.0), torch.tensor([3]), 1.0, 2)
    tensor([[7., 2., 1.]])
    """
    check_equal_shapes(rewards=rewards, values=values)
    check_equal_shapes(num_steps=num_steps, last_values=last_values)
    _check_num_steps(num_steps, rewards)
    steps = torch.arange(rewards.shape[1] + 1, device=rewards.device)
    inside = steps < num_steps[:, None]
    last = torch.zeros_like(rewards[:, 0]) if last_values is None else last_values
    padded = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
    ends = last[:, None] * (steps == num_steps[:, None])
    targets = torch.where(inside, padded, ends)
    for _ in range(n):
        targets = torch.where(inside[:, :-1], rewards + gamma * targets[:, 1:], ends[:, :-1])
        targets = torch.cat([targets, ends[:, -1:]], dim=1)
    return torch.where(inside[:, :-1], targets[:, :-1], 0.0)
