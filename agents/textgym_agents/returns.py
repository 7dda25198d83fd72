"""Returns from rewards, for whole episodes of different lengths."""

import torch

__all__ = ["discounted_returns"]


def discounted_returns(
    rewards: torch.Tensor, lengths: torch.Tensor, gamma: float, last_values: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute G_t = r_t + gamma r_{t+1} + ... + gamma^{n-1-t} r_{n-1} + gamma^{n-t} v, n being the episode's length.

    Args:
        rewards: (B, T) float, anything after an episode's end is ignored.
        lengths: (B,) int64, steps of each episode, at least 1.
        gamma: Discount per step.
        last_values: (B,) float, v: the value of the last state where a time limit cut the episode off, 0 where it
            ended. None is 0 for all.

    Returns:
        (B, T) float, 0 after an episode's end.

    Source: Sutton and Barto 2018, Reinforcement Learning, section 3.3; for the time limit Pardo et al. 2018
    (arXiv:1712.00378).

    >>> discounted_returns(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([2]), 0.5, torch.tensor([4.0]))
    tensor([[3., 4., 0.]])
    """
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    rewards = torch.where(steps < lengths[:, None], rewards, 0.0)
    if last_values is not None:
        rewards = rewards + gamma * last_values[:, None] * (steps == lengths[:, None] - 1)
    returns = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        following = rewards[:, t] + gamma * following
        returns[:, t] = following
    return returns
