"""Columns of token tables that need no rollouts, as pure functions of distributions, values and rewards.

M states, V tokens, K alternatives, B episodes of at most T steps. Log-probabilities are in nats, -inf where a token was
invalid; nothing has gradients.
"""

import torch

from textgym.lm import log_prob
from textgym_agents.losses import exact_kl
from textgym_agents.returns import discounted_returns, generalized_advantages

__all__ = ["before_columns", "distribution_columns", "q_columns", "ratio_columns", "return_columns", "token_ranks"]

Columns = dict[str, torch.Tensor]


def token_ranks(logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return (M,) float32 ranks of (M,) actions by (M, V) logits: 1 is the likeliest, ties share the better rank.

    >>> token_ranks(torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([2]))
    tensor([2.])
    """
    return (logits > logits.gather(1, actions[:, None])).sum(dim=1).float() + 1


def distribution_columns(logits: torch.Tensor, actions: torch.Tensor, num_alternatives: int) -> Columns:
    """Return the columns of the distribution pi(.|s_t) by which a policy acts.

    Args:
        logits: (M, V) float, -inf where invalid.
        actions: (M,) int64.
        num_alternatives: K; 0 leaves the alternatives out.

    Returns:
        (M,) ``log_prob_after``, ``rank``, ``entropy``, and (M, K) ``top_ids``, int64, -1 where fewer than K tokens were
        valid, with their ``top_log_probs``.

    >>> columns = distribution_columns(torch.log(torch.tensor([[0.25, 0.75]])), torch.tensor([0]), 1)
    >>> columns["rank"], columns["entropy"], columns["top_ids"], columns["top_log_probs"].exp()
    (tensor([2.]), tensor([0.5623]), tensor([[1]]), tensor([[0.7500]]))
    """
    log_probs = torch.log_softmax(logits, dim=1)
    columns = {
        "log_prob_after": log_prob(logits, actions),
        "rank": token_ranks(logits, actions),
        "entropy": _entropies(log_probs),
    }
    if num_alternatives:
        best = log_probs.topk(min(num_alternatives, logits.shape[1]), dim=1)
        columns["top_ids"] = best.indices.masked_fill(best.values == -torch.inf, -1)
        columns["top_log_probs"] = best.values
    return columns


def before_columns(
    logits: torch.Tensor, reference_logits: torch.Tensor, actions: torch.Tensor, top_ids: torch.Tensor | None = None
) -> Columns:
    """Return the columns that compare a policy with a reference in the same states.

    Args:
        logits: (M, V) float of the policy, -inf where invalid.
        reference_logits: (M, V) float of the reference, -inf in the same places.
        actions: (M,) int64.
        top_ids: (M, K) int64, ``top_ids`` of the policy, if there are any.

    Returns:
        (M,) ``log_prob_before``, ``rank_before``, ``entropy_before``; ``kl``, which is KL(pi || pi_ref) summed over the
        vocabulary; ``kl_k1``, log pi(a_t|s_t) - log pi_ref(a_t|s_t); and (M, K) ``top_log_probs_before``, -inf where
        there is no token.

    >>> after, before = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.25, 0.75]]))
    >>> before_columns(after, before, torch.tensor([0]))["kl"]
    tensor([0.1438])
    """
    log_probs = torch.log_softmax(reference_logits, dim=1)
    chosen = log_prob(reference_logits, actions)
    columns = {
        "log_prob_before": chosen,
        "rank_before": token_ranks(reference_logits, actions),
        "entropy_before": _entropies(log_probs),
        "kl": exact_kl(logits, reference_logits),
        "kl_k1": log_prob(logits, actions) - chosen,
    }
    if top_ids is not None:
        top = log_probs.gather(1, top_ids.clamp(min=0))
        columns["top_log_probs_before"] = top.masked_fill(top_ids < 0, -torch.inf)
    return columns


def q_columns(q: torch.Tensor, actions: torch.Tensor) -> Columns:
    """Return ``q_value`` and ``max_q``, both (M,), of (M, V) Q-values, -inf where invalid, and (M,) int64 actions."""
    return {"q_value": q.gather(1, actions[:, None])[:, 0], "max_q": q.amax(dim=1)}


def ratio_columns(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    clip_range: tuple[float, float] | None = None,
    advantages: torch.Tensor | None = None,
) -> Columns:
    """Return the ratio w_t = pi(a_t|s_t) / pi_old(a_t|s_t), and whether PPO's clip removes the gradient there.

    Args:
        log_probs: (B, T) or (M,) float, log pi(a_t|s_t).
        old_log_probs: Float of the same shape, of the policy that acted.
        clip_range: Epsilon below and above 1; None leaves ``clipped`` out.
        advantages: Float of the same shape, A_t of the loss. With them an action is clipped where w_t > 1 + epsilon and
            A_t > 0, or w_t < 1 - epsilon and A_t < 0; without, beyond the range on any side, as ``train/clip_fraction``
            counts them.

    Returns:
        ``ratio``, and ``clipped``, 1 or 0.

    >>> one = torch.ones(1)
    >>> ratio_columns(torch.log(1.5 * one), 0 * one, (0.2, 0.2), -one)
    {'ratio': tensor([1.5000]), 'clipped': tensor([0.])}
    """
    ratio = (log_probs - old_log_probs).exp()
    if clip_range is None:
        return {"ratio": ratio}
    above, below = ratio > 1 + clip_range[1], ratio < 1 - clip_range[0]
    clipped = above | below if advantages is None else (above & (advantages > 0)) | (below & (advantages < 0))
    return {"ratio": ratio, "clipped": clipped.float()}


def return_columns(
    rewards: torch.Tensor,
    values: torch.Tensor | None,
    num_steps: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float | None = None,
    last_values: torch.Tensor | None = None,
    q_values: torch.Tensor | None = None,
) -> Columns:
    """Return the columns of returns and of what V predicts of them.

    Args:
        rewards: (B, T) float, the rewards that V is to predict: a KL penalty that it was trained on is subtracted.
        values: (B, T) float, V(s_t); None leaves out what needs it.
        num_steps: (B,) int64, steps of each episode.
        gamma: Discount per step.
        gae_lambda: From 0 to 1; None leaves the advantage out.
        last_values: (B,) float, V of the state after the last action, 0 where the episode ended. None is 0 for all.
        q_values: (B, T) float, Q(s_t, a_t), of which the TD error then is; by default V(s_t).

    Returns:
        (B, T) ``return_to_go``, and with V ``td_error`` and ``gae_advantage``; 0 after the end.

    >>> columns = return_columns(
    ...     torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.tensor([2]), gamma=1.0, gae_lambda=0.5
    ... )
    >>> columns["return_to_go"], columns["td_error"], columns["gae_advantage"]
    (tensor([[1., 1.]]), tensor([[-0.2500,  0.7500]]), tensor([[0.1250, 0.7500]]))
    """
    columns = {"return_to_go": discounted_returns(rewards, num_steps, gamma, last_values)}
    if values is None:
        return columns
    columns["td_error"] = generalized_advantages(rewards, values, num_steps, gamma, 0.0, last_values)
    if gae_lambda is not None:
        columns["gae_advantage"] = generalized_advantages(rewards, values, num_steps, gamma, gae_lambda, last_values)
    if q_values is not None:
        columns["td_error"] = columns["td_error"] + values - q_values
    return columns


def _entropies(log_probs: torch.Tensor) -> torch.Tensor:
    """Return (M,) entropies of (M, V) log-probabilities, where -inf counts as probability 0."""
    return -torch.xlogy(log_probs.exp(), log_probs.exp()).sum(dim=1)
