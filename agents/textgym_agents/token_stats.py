"""Entropy of the distribution that a token was sampled from, rank of the token, and its likeliest alternatives."""

import inspect
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.config import check_count

__all__ = ["EpisodeStats", "TokenStats", "check_records", "checked_stats", "token_stats"]


class TokenStats(NamedTuple):
    """The distributions that a policy sampled N tokens from, after mask and temperature.

    Tokens of probability 0 are no alternatives: where fewer than K tokens are left, -1 and -inf fill the rest.
    """

    entropies: npt.NDArray[np.float32]
    """(N,) nats."""
    ranks: npt.NDArray[np.int64]
    """(N,), 1 + the number of tokens more probable than the chosen one."""
    alternative_ids: npt.NDArray[np.int64]
    """(N, K) the K most probable tokens, the most probable first, the chosen one included; K may be 0."""
    alternative_log_probs: npt.NDArray[np.float32]
    """(N, K) nats."""


class EpisodeStats(NamedTuple):
    """``TokenStats`` of the steps of B episodes, 0 after the end.

    Of a step without records, as in a file that has them for some of its episodes, the entropy is NaN, rank and mask
    size are 0, and there are no alternatives.
    """

    entropies: torch.Tensor
    """(B, T) float32, entropy of the distribution that sampled, in nats."""
    ranks: torch.Tensor
    """(B, T) int64, 1 + the number of tokens more probable than the chosen one."""
    mask_sizes: torch.Tensor
    """(B, T) int64, number of valid tokens."""
    alternative_ids: torch.Tensor
    """(B, T, K) int64, the K most probable tokens, the chosen one included; -1 where fewer have a probability."""
    alternative_log_probs: torch.Tensor
    """(B, T, K) float32, in nats; -inf where fewer than K tokens have a probability."""

    @classmethod
    def empty(cls, num_episodes: int, num_steps: int, num_alternatives: int) -> "EpisodeStats":
        """Return arrays of zeros."""
        steps = (num_episodes, num_steps)
        return cls(
            torch.zeros(steps),
            torch.zeros(steps, dtype=torch.int64),
            torch.zeros(steps, dtype=torch.int64),
            torch.zeros((*steps, num_alternatives), dtype=torch.int64),
            torch.zeros((*steps, num_alternatives)),
        )


def token_stats(
    logits: torch.Tensor,
    probabilities: torch.Tensor,
    actions: torch.Tensor,
    log_probs: torch.Tensor,
    num_alternatives: int,
) -> TokenStats:
    """Return the statistics of N tokens.

    Args:
        logits: (N, V) float32, -inf where invalid.
        probabilities: (N, V) float32, their softmax.
        actions: (N,) int64, the tokens; they have a probability above 0.
        log_probs: (N,) float32, log-probabilities of the tokens.
        num_alternatives: K; all V tokens if it is larger.

    >>> logits = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
    >>> stats = token_stats(logits, logits.exp(), torch.tensor([1]), logits[:, 1], 4)
    >>> stats.ranks, stats.alternative_log_probs.round(2)
    (array([2]), array([[-0.69, -1.39, -1.39,  -inf]], dtype=float32))
    >>> bool(np.isclose(stats.entropies[0], 1.5 * np.log(2)))
    True
    """
    chosen = logits.gather(1, actions[:, None])
    differences = logits - chosen
    # H = -log p_a - sum_v p_v (l_v - l_a), without another pass of exponentials or logarithms.
    sums = (differences * probabilities).sum(dim=1)
    if sums.isnan().any():  # -inf times 0 at the invalid tokens
        sums = (differences * probabilities).nansum(dim=1)
    entropies = (-log_probs - sums).clamp_(min=0)
    ranks = 1 + differences.gt_(0).sum(dim=1).long()  # in float32, whose comparisons are vectorised on CPUs
    best, ids = logits.topk(min(num_alternatives, logits.shape[1]), dim=1)
    alternatives = best - chosen + log_probs[:, None]
    ids = ids.masked_fill(best == -torch.inf, -1)
    return TokenStats(
        entropies.float().cpu().numpy(), ranks.cpu().numpy(), ids.cpu().numpy(), alternatives.float().cpu().numpy()
    )


def check_records(policy: Any, num_alternatives: Any) -> None:
    """Check that ``num_alternatives`` is an integer of at least 0, or None, and the policy records with it.

    Raises:
        TypeError: If ``num_alternatives`` is not an integer.
        ValueError: If it is negative, or the policy's ``act`` does not take it.
    """
    if num_alternatives is None:
        return
    check_count("num_alternatives", num_alternatives, least=0)
    parameters = inspect.signature(policy.act).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "num_alternatives" not in parameters and not takes_any:
        raise _without_records(policy, num_alternatives)


def checked_stats(policy: Any, stats: TokenStats | None, num_alternatives: int) -> TokenStats:
    """Return the statistics that a policy gave; raise a ValueError if there are none."""
    if stats is None:
        raise _without_records(policy, num_alternatives)
    return stats


def _without_records(policy: Any, num_alternatives: int) -> ValueError:
    return ValueError(
        f"num_alternatives={num_alternatives} records the distribution of each token, which "
        f"{type(policy).__name__}.act does not give; leave it None, or use a policy that samples from a known "
        "distribution, such as LMPolicy, QPolicy or Sampling"
    )
