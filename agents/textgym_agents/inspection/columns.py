"""Columns of token tables that need no rollouts: of distributions, values and rewards.

M states, V tokens, K alternatives; B episodes of at most T steps, with A actions in all. Log-probabilities are in nats,
-inf where a token was invalid; nothing has gradients.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from textgym.lm import log_prob
from textgym_agents.episodes import Episodes
from textgym_agents.inspection.subject import StateOutputs, Subject, as_policy, as_subject
from textgym_agents.inspection.table import TokenTable
from textgym_agents.losses import entropies, exact_kl, normalized
from textgym_agents.returns import discounted_returns, generalized_advantages

__all__ = ["biography", "policy_columns", "put_returns"]

Columns = dict[str, torch.Tensor]

_LOGITS = 2**22
"""Logits of one micro-batch: 16 MB in float32, of which a few copies are made."""


def policy_columns(
    subject: Subject,
    before: Callable[[Episodes, bool], StateOutputs] | None,
    episodes: Episodes,
    num_alternatives: int,
) -> Columns:
    """Return (A,) and (A, K) columns of all actions, computed in micro-batches of episodes.

    Besides, ``V`` of the policy and ``log pi_ref`` of the reference of its KL penalty, where there are such.
    """
    whole: Columns = {}
    start, total = 0, int(episodes.num_steps.sum())
    for part in _micro_batches(episodes, subject.vocab_size):
        own, actions = subject.outputs(part, False), part.actions()
        columns = distribution_columns(own.logits, actions, num_alternatives)
        if part.action_masks is not None:
            columns["mask_size"] = (own.logits > -torch.inf).sum(dim=1).float()
        reference = initial = None
        if before is not None:
            reference = before(part, False)
            if reference.logits.shape != own.logits.shape:
                raise ValueError(
                    f"the reference has a vocabulary of {reference.logits.shape[1]}, the policy one of "
                    f"{own.logits.shape[1]}; give a reference of the policy's vocabulary"
                )
            columns |= before_columns(own.logits, reference.logits, actions, columns.get("top_ids"))
        if subject.penalty and subject.reference is not None:
            if before is not subject.reference or reference is None:
                initial = subject.reference(part, False)
            else:
                initial = reference
            columns["log pi_ref"] = log_prob(initial.logits, actions)
        if own.values is not None:
            columns["V"] = own.values
        columns |= _q_columns(subject, own, initial, actions)
        # Written into one array at once: small tensors kept between the large ones would fragment the memory.
        for name, values in columns.items():
            if name not in whole:
                whole[name] = torch.empty((total, *values.shape[1:]), dtype=values.dtype)
            whole[name][start : start + len(values)] = values
        start += len(actions)
    return whole


def biography(checkpoints: Collection[Any], episodes: Episodes) -> torch.Tensor:
    """Return (A, C) log-probabilities of the actions under C checkpoints, loaded one after the other."""
    columns = torch.empty(int(episodes.num_steps.sum()), len(checkpoints))
    for k, checkpoint in enumerate(checkpoints):
        subject, start = as_subject(as_policy(checkpoint)), 0
        for part in _micro_batches(episodes, subject.vocab_size):
            actions = part.actions()
            columns[start : start + len(actions), k] = log_prob(subject.outputs(part, False).logits, actions)
            start += len(actions)
    return columns


def put_returns(
    table: TokenTable,
    episodes: Episodes,
    subject: Subject,
    computed: Columns,
    *,
    gamma: float,
    gae_lambda: float | None,
) -> None:
    """Put the columns of returns, values and ratios."""
    spread = episodes.spread
    after, old = spread(computed["log_prob_after"]), episodes.log_probs
    is_known = not bool(old[episodes.mask].isnan().any())
    rewards = episodes.rewards
    if subject.penalty:
        initial = spread(computed["log pi_ref"]) if "log pi_ref" in computed else torch.zeros_like(after)
        rewards = rewards - subject.penalty * ((old if is_known else after) - initial)
    values: torch.Tensor | None = episodes.values
    if not bool(episodes.values.any()):
        values = spread(computed["V"]) if "V" in computed and bool(computed["V"].any()) else None
    last_values = None if values is None else subject.last_values(episodes)
    # V of the Q-function that is inspected, which may have changed since it acted.
    current = spread(computed["V"]) if "q_value" in computed and "V" in computed else values
    columns = return_columns(
        rewards, current, episodes.num_steps, gamma=gamma, gae_lambda=gae_lambda, last_values=last_values,
        q_values=spread(computed["q_value"]) if "q_value" in computed else None,
    )  # fmt: skip
    if values is None:
        table.columns.pop("value")
    else:
        table.put("value", values)
    if is_known:
        used = episodes.advantages
        if used is None and (used := columns.get("gae_advantage")) is not None and subject.normalizes_advantage:
            used = normalized(used, episodes.mask)
        columns |= ratio_columns(after, old, subject.clip_range, used)
    for name, column in columns.items():
        table.put(name, column)


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
        "rank": _ranks(logits, actions),
        "entropy": entropies(log_probs),
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
        "rank_before": _ranks(reference_logits, actions),
        "entropy_before": entropies(log_probs),
        "kl": exact_kl(logits, reference_logits),
        "kl_k1": log_prob(logits, actions) - chosen,
    }
    if top_ids is not None:
        top = log_probs.gather(1, top_ids.clamp(min=0))
        columns["top_log_probs_before"] = top.masked_fill(top_ids < 0, -torch.inf)
    return columns


def _q_columns(subject: Subject, own: StateOutputs, initial: StateOutputs | None, actions: torch.Tensor) -> Columns:
    """Return the columns of Q, if there is a Q."""
    q, soft = own.q, own.soft_values
    if subject.soft_temperature is not None and own.values is not None:
        ratios = torch.log_softmax(own.logits, dim=1)
        if initial is not None:
            ratios = ratios - torch.log_softmax(initial.logits, dim=1)
        ratios = ratios.masked_fill(own.logits == -torch.inf, -torch.inf)
        q, soft = own.values[:, None] + subject.soft_temperature * ratios, own.values
    columns = {} if q is None else {"q_value": q.gather(1, actions[:, None])[:, 0], "max_q": q.amax(dim=1)}
    return columns if soft is None else columns | {"soft_value": soft}


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


def _ranks(logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return (M,) float32 ranks of (M,) actions by (M, V) logits: 1 is the likeliest, ties share the better rank.

    >>> _ranks(torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([2]))
    tensor([2.])
    """
    return (logits > logits.gather(1, actions[:, None])).sum(dim=1).float() + 1


def _micro_batches(episodes: Episodes, vocab_size: int) -> Iterator[Episodes]:
    """Yield the episodes in parts of about ``_LOGITS`` logits."""
    ends = episodes.num_steps.cumsum(0)
    start = 0
    while start < len(episodes):
        limit = int(ends[start] - episodes.num_steps[start]) + max(1, _LOGITS // vocab_size)
        stop = max(start + 1, int(torch.searchsorted(ends, limit, right=True)))
        yield episodes[start:stop]
        start = stop
