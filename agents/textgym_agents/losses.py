"""The losses, as pure functions of what one forward over whole episodes gives.

Every tensor is (B, T): B episodes, T steps of the longest; ``mask`` is True at the steps that were taken.
"""

import torch

__all__ = ["baseline_loss", "explained_variance", "masked_mean", "normalized", "policy_gradient_loss"]


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``values`` where ``mask`` is True, as a scalar.

    >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor(2.)
    """
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def normalized(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return ``values`` shifted and scaled to mean 0 and standard deviation 1 over the mask; 0 where all are equal."""
    exact = values.double()  # in float32 the rounding of the mean would be scaled up where all values are equal
    centred = exact - masked_mean(exact, mask)
    return (centred / (masked_mean(centred.square(), mask).sqrt() + 1e-8)).to(values.dtype)


def policy_gradient_loss(log_probs: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute -mean_t [ A_t log pi(a_t|s_t) ], whose gradient is the policy gradient's negative.

    Args:
        log_probs: (B, T) float, log pi(a_t|s_t), carrying gradients.
        advantages: (B, T) float, A_t; no gradient flows through them.
        mask: (B, T) bool.

    Returns:
        Scalar.

    Source: Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    return -masked_mean(advantages.detach() * log_probs, mask)


def baseline_loss(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute mean_t [ (V(s_t) - G_t)^2 / 2 ], a scalar; no gradient flows through the returns.

    >>> baseline_loss(torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[True]]))
    tensor(2.)
    """
    return masked_mean((values - returns.detach()).square(), mask) / 2


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """Return 1 - Var[G - V] / Var[G]: 1 for a perfect baseline, 0 for a constant one, NaN where G does not vary."""
    variance = returns[mask].var(correction=0)
    return float(1 - (returns - values)[mask].var(correction=0) / variance) if variance > 0 else float("nan")
