"""Losses as pure functions, and statistics of them.

Unless noted, tensors are (B, T): B episodes, T steps of the longest; ``mask`` is True at the steps taken. A loss has
one entry per step, over which the agent sums, so that micro-batches add up to the whole.
Shapes that do not fit raise a ValueError: nothing is broadcast.
"""

import math

import torch
import torch.nn.functional as F

from textgym.rewards import kl_estimate
from textgym_agents.episodes import Episodes
from textgym_agents.returns import check_equal_shapes, lambda_returns

__all__ = [
    "clip_metrics",
    "clipped_surrogate_loss",
    "clipped_weight_loss",
    "entropies",
    "estimated_kl",
    "exact_kl",
    "expectile_loss",
    "explained_variance",
    "masked_mean",
    "normalized",
    "path_inconsistency",
    "policy_gradient_loss",
    "sequence_surrogate_loss",
    "td_loss",
    "top_entropy_mask",
    "value_loss",
    "value_metrics",
]


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the scalar mean of ``values`` where ``mask`` is True.

    >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor(2.)
    """
    check_equal_shapes(values=values, mask=mask)
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def normalized(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return ``values`` normalized to mean 0 and standard deviation 1 over the mask; 0 if all are equal."""
    exact = values.double()  # in float32 the rounding of the mean would be scaled up where all values are equal
    centred = exact - masked_mean(exact, mask)
    return (centred / (masked_mean(centred.square(), mask).sqrt() + 1e-8)).to(values.dtype)


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """Return 1 - Var[G - V] / Var[G]: 1 for a perfect V, 0 for a constant one, NaN if G is constant."""
    check_equal_shapes(values=values, returns=returns, mask=mask)
    variance = returns[mask].var(correction=0)
    return float(1 - (returns - values)[mask].var(correction=0) / variance) if variance > 0 else float("nan")


def policy_gradient_loss(log_probs: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """Compute -A_t log pi(a_t|s_t) of each step, whose mean gradient is the negative policy gradient.

    Args:
        log_probs: (B, T) float, log pi(a_t|s_t), with gradients.
        advantages: (B, T) float, A_t; no gradient flows through them.

    Returns:
        (B, T) float.

    Source: Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning.

    >>> policy_gradient_loss(torch.tensor([[-0.5]]), torch.tensor([[2.0]]))
    tensor([[1.]])
    """
    check_equal_shapes(log_probs=log_probs, advantages=advantages)
    return -advantages.detach() * log_probs


def clipped_surrogate_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    clip_range: float,
    clip_range_high: float | None = None,
) -> torch.Tensor:
    """Compute -min(w_t A_t, clip(w_t, 1 - low, 1 + high) A_t) of each step, w_t = pi(a_t|s_t) / pi_old(a_t|s_t).

    Args:
        log_probs: (B, T) float, log pi(a_t|s_t), with gradients.
        old_log_probs: (B, T) float, of the policy that acted.
        advantages: (B, T) float.
        clip_range: Clipping parameter epsilon.
        clip_range_high: Upper clipping parameter, if it differs (Yu et al. 2025, DAPO, arXiv:2503.14476).

    Returns:
        (B, T) float.

    Source: Schulman et al. 2017, Proximal policy optimization algorithms (arXiv:1707.06347), equation 7.

    >>> zero = torch.zeros(1, 1)
    >>> clipped_surrogate_loss(zero + torch.log(torch.tensor(1.5)), zero, zero + 1, 0.2)
    tensor([[-1.2000]])
    """
    check_equal_shapes(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + (clip_range if clip_range_high is None else clip_range_high))
    return -torch.minimum(ratio * advantages, clipped * advantages)


def sequence_surrogate_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_range: float,
    clip_range_high: float | None = None,
) -> torch.Tensor:
    """Compute -min(s A_t, clip(s, 1 - low, 1 + high) A_t) of each step, s being one ratio for the whole episode.

    s = exp(mean over steps of log pi(a_t|s_t) - log pi_old(a_t|s_t)): a text is clipped as a whole, by the geometric
    mean of its tokens' ratios, whose range is far narrower than theirs.

    Args:
        log_probs: (B, T) float, log pi(a_t|s_t), with gradients.
        old_log_probs: (B, T) float, of the policy that acted.
        advantages: (B, T) float.
        mask: (B, T) bool, the steps taken.
        clip_range: Clipping parameter epsilon; the paper takes 3e-4.
        clip_range_high: Upper clipping parameter, if it differs; the paper takes 4e-4.

    Returns:
        (B, T) float.

    Source: Zheng et al. 2025, Group sequence policy optimization (arXiv:2507.18071), equations 5 to 7.

    >>> old = torch.zeros(1, 2)
    >>> new = torch.log(torch.tensor([[1.5, 1 / 1.5]]))  # the ratios cancel
    >>> sequence_surrogate_loss(new, old, old + 1, old == 0, 0.2).round(decimals=4)
    tensor([[-1., -1.]])
    """
    check_equal_shapes(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages, mask=mask)
    differences = torch.where(mask, log_probs - old_log_probs, 0.0)
    means = (differences.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)).expand_as(differences)
    return clipped_surrogate_loss(means, torch.zeros_like(means), advantages, clip_range, clip_range_high)


def clipped_weight_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    clip_range: float,
    clip_range_high: float | None = None,
) -> torch.Tensor:
    """Compute -clip(w_t, 1 - low, 1 + high) A_t log pi(a_t|s_t) of each step, with no gradient through the weight.

    w_t = pi(a_t|s_t) / pi_old(a_t|s_t). Unlike in ``clipped_surrogate_loss`` no token loses its gradient: that of a
    token beyond the range only stops growing.

    Args:
        log_probs: (B, T) float, log pi(a_t|s_t), with gradients.
        old_log_probs: (B, T) float, of the policy that acted.
        advantages: (B, T) float.
        clip_range: Clipping parameter epsilon; 1 sets no lower limit, as the paper.
        clip_range_high: Upper clipping parameter, if it differs.

    Returns:
        (B, T) float.

    Source: MiniMax 2025, MiniMax-M1 (arXiv:2506.13585), CISPO, equation 4.

    >>> new = torch.log(torch.tensor([[1.5]])).requires_grad_()
    >>> clipped_weight_loss(new, torch.zeros(1, 1), torch.ones(1, 1), 0.2).sum().backward()
    >>> new.grad
    tensor([[-1.2000]])
    """
    check_equal_shapes(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    ratio = (log_probs.detach() - old_log_probs).exp()
    weights = ratio.clamp(1 - clip_range, 1 + (clip_range if clip_range_high is None else clip_range_high))
    return policy_gradient_loss(log_probs, weights * advantages)


def value_loss(
    values: torch.Tensor,
    returns: torch.Tensor,
    old_values: torch.Tensor | None = None,
    clip_range: float | None = None,
) -> torch.Tensor:
    """Compute (V(s_t) - G_t)^2 / 2 of each step, or its maximum with the loss of V clipped around V_old.

    Args:
        values: (B, T) float, with gradients.
        returns: (B, T) float.
        old_values: (B, T) float, of the policy that acted; required for clipping.
        clip_range: Clipping parameter for the value function. None does not clip.

    Returns:
        (B, T) float.

    Raises:
        ValueError: If shapes differ, or ``clip_range`` is given without ``old_values``.

    Source: Engstrom et al. 2020, Implementation matters in deep policy gradients (arXiv:2005.12729).

    >>> one = torch.ones(1, 1)
    >>> value_loss(2 * one, 4 * one, one, 0.5)
    tensor([[3.1250]])
    """
    check_equal_shapes(values=values, returns=returns, old_values=old_values)
    losses = (values - returns).square()
    if clip_range is not None:
        if old_values is None:
            raise ValueError("clip_range needs old_values, the values of the policy that acted")
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        losses = torch.maximum(losses, (clipped - returns).square())
    return losses / 2


def estimated_kl(estimator: str, log_probs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Estimate KL(pi || reference) in nats from one token's log-probability under both; see ``kl_estimate``.

    >>> estimated_kl("k2", torch.tensor([-1.0]), torch.tensor([-3.0]))
    tensor([2.])
    """
    check_equal_shapes(log_probs=log_probs, reference=reference)
    kl: torch.Tensor = kl_estimate(estimator, log_probs - reference, torch.expm1)
    return kl


def exact_kl(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    """Compute KL(pi || reference) = sum_a pi(a) log(pi(a) / reference(a)) in nats, for (M, V) logits: (M,).

    Tokens with logit -inf, which are invalid, contribute 0.

    >>> exact_kl(torch.zeros(1, 2), torch.log(torch.tensor([[0.25, 0.75]])))
    tensor([0.1438])
    """
    check_equal_shapes(logits=logits, reference_logits=reference_logits)
    log_probs = F.log_softmax(logits, dim=-1)
    difference = log_probs - F.log_softmax(reference_logits, dim=-1)
    return (log_probs.exp() * difference.masked_fill(log_probs == -torch.inf, 0.0)).sum(dim=-1)


def entropies(log_probs: torch.Tensor) -> torch.Tensor:
    """Compute H = -sum_a pi(a) log pi(a) in nats, for (M, V) log pi(a|s): (M,).

    Tokens of log-probability -inf contribute 0, to the gradient too.

    >>> entropies(torch.log(torch.tensor([[0.5, 0.5, 0.0]])))
    tensor([0.6931])
    """
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(dim=-1)


def top_entropy_mask(entropies: torch.Tensor, mask: torch.Tensor, share: float) -> torch.Tensor:
    """Return the steps whose entropy is among the highest ``share`` of those in the mask, ties at the end included.

    Args:
        entropies: (B, T) float, entropy of pi(.|s_t).
        mask: (B, T) bool, the steps to choose from.
        share: Above 0, at most 1; the number of steps is rounded up.

    Returns:
        (B, T) bool.

    Source: Wang et al. 2025, Beyond the 80/20 rule (arXiv:2506.01939).

    >>> top_entropy_mask(torch.tensor([[0.1, 0.9, 0.5, 7.0]]), torch.tensor([[True, True, True, False]]), 0.5)
    tensor([[False,  True,  True, False]])
    """
    check_equal_shapes(entropies=entropies, mask=mask)
    chosen = entropies[mask]
    if not len(chosen):
        return torch.zeros_like(mask)
    threshold = chosen.topk(math.ceil(share * len(chosen))).values[-1]
    return mask & (entropies >= threshold)


def td_loss(q: torch.Tensor, targets: torch.Tensor, kind: str = "huber") -> torch.Tensor:
    """Compute (Q(s_t, a_t) - G_t)^2 / 2 of each step, or the Huber loss with threshold 1.

    Args:
        q: (B, T) float, with gradients.
        targets: (B, T) float, G_t; no gradient flows through them.
        kind: ``"squared"`` or ``"huber"``.

    Returns:
        (B, T) float.

    Source: Mnih et al. 2015, Human-level control through deep reinforcement learning.

    >>> td_loss(torch.tensor([[3.0]]), torch.tensor([[1.0]])), td_loss(torch.ones(1, 1), torch.zeros(1, 1), "squared")
    (tensor([[1.5000]]), tensor([[0.5000]]))
    """
    check_equal_shapes(q=q, targets=targets)
    if kind == "squared":
        return (q - targets.detach()).square() / 2
    return F.huber_loss(q, targets.detach(), reduction="none")


def expectile_loss(errors: torch.Tensor, expectile: float) -> torch.Tensor:
    """Compute |expectile - [u < 0]| u^2 of each error u = Q - V: V goes to the mean of Q at 1/2, its maximum toward 1.

    Args:
        errors: Float, any shape.
        expectile: From 0 to 1.

    Returns:
        Float, of the same shape.

    Source: Kostrikov et al. 2022, Offline reinforcement learning with implicit Q-learning (arXiv:2110.06169), eq. 5.

    >>> expectile_loss(torch.tensor([2.0, -2.0]), 0.75)
    tensor([3., 1.])
    """
    return torch.where(errors < 0, 1 - expectile, expectile) * errors.square()


def path_inconsistency(
    values: torch.Tensor,
    log_ratios: torch.Tensor,
    rewards: torch.Tensor,
    target_values: torch.Tensor,
    num_steps: torch.Tensor,
    *,
    temperature: float,
    gamma: float,
    lambda_: float,
    last_values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute V(s_t) - G_t, G_t being the lambda-return of r - T log[pi(a|s) / pi_ref(a|s)]: 0 where pi is optimal.

    lambda = 0 is the one-step error, lambda = 1 the error over the rest of the text.

    Args:
        values: (B, T) float, V(s_t), with gradients.
        log_ratios: (B, T) float, log pi(a_t|s_t) - log pi_ref(a_t|s_t) in nats, with gradients; log pi(a_t|s_t) alone
            for entropy regularization.
        rewards: (B, T) float.
        target_values: (B, T) float, V(s_t) of the target network.
        num_steps: (B,) int64, steps of each episode, at least 1.
        temperature: T, in units of return per nat.
        gamma: Discount per step.
        lambda_: From 0 to 1.
        last_values: (B,) float, V of the state after the last action, 0 where the episode ended. None is 0 for all.

    Returns:
        (B, T) float, 0 after the end.

    Source: Nachum et al. 2017, Bridging the gap between value and policy based RL (arXiv:1702.08892), equation 14.

    >>> one = torch.ones(1, 1)
    >>> path_inconsistency(one, 2 * one, 5 * one, one, torch.tensor([1]), temperature=0.5, gamma=1.0, lambda_=1.0)
    tensor([[-3.]])
    """
    check_equal_shapes(values=values, log_ratios=log_ratios, rewards=rewards, target_values=target_values)
    penalized = rewards - temperature * log_ratios
    returns = lambda_returns(penalized, target_values, num_steps, gamma, lambda_, last_values)
    inside = torch.arange(rewards.shape[1], device=rewards.device) < num_steps[:, None]
    return torch.where(inside, values, 0.0) - returns


def clip_metrics(log_probs: torch.Tensor, old_log_probs: torch.Tensor, clip_range: float) -> dict[str, torch.Tensor]:
    """Return (B, T) ``approx_kl`` (k3 against the behaviour policy, in nats) and ``clip_fraction``, as in SB3."""
    check_equal_shapes(log_probs=log_probs, old_log_probs=old_log_probs)
    log_probs = log_probs.detach()
    ratio = (log_probs - old_log_probs).exp()
    return {
        "approx_kl": estimated_kl("k3", old_log_probs, log_probs),
        "clip_fraction": ((ratio - 1).abs() > clip_range).float(),
    }


def value_metrics(episodes: Episodes, returns: torch.Tensor) -> dict[str, float]:
    """Return the explained variance by V before the update: of its targets, as SB3's, and of Monte-Carlo returns."""
    return {
        "train/explained_variance": explained_variance(episodes.values, episodes.value_targets, episodes.mask),
        "train/explained_variance_mc": explained_variance(episodes.values, returns, episodes.mask),
    }
