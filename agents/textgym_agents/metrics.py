"""Metrics of an update, under Stable-Baselines3's names where it has them.

| key | meaning |
| --- | --- |
| ``rollout/ep_rew_mean``, ``ep_len_mean`` | mean return (undiscounted, without the agent's own KL term) and steps |
| ``rollout/score_mean``, ``score/<part>`` | mean of the scores, and of each part of a scorer made of several |
| ``rollout/scorer_failures`` | episodes that the update leaves out because their scorer failed |
| ``rollout/exploration_rate``, ``temperature`` | epsilon and T of the exploration (DQN) |
| ``train/loss``, ``grad_norm`` | the loss as the class's docstring gives it, and the gradient's norm before clipping |
| ``train/policy_gradient_loss``, ``value_loss``, ``entropy_loss`` | its terms before their coefficients, by token |
| ``train/approx_kl``, ``clip_fraction`` | k3 to the policy that wrote, in nats; share of tokens beyond ``clip_range`` |
| ``train/explained_variance`` | of V + A, the value's target, by V before the update: as SB3's |
| ``train/explained_variance_mc`` | of the new episodes' Monte-Carlo returns by the same V |
| ``train/kl_reference``, ``kl_coef`` | KL per token to the reference, in nats, and its coefficient in this update |
| ``train/q_value``, ``td_error`` | Q of the tokens taken, and its distance from the target (DQN) |
| ``train/value``, ``log_ratio`` | V, and log(pi / pi_ref) of the tokens taken, or log pi without a reference (SoftQ) |
| ``train/q_loss``, ``cql_loss``, ``cross_entropy`` | terms of the offline and imitating agents' losses |
| ``train/expert_rew_mean`` | mean return of the episodes imitated (ExpertIteration) |
| ``train/n_updates`` | gradient steps so far |
| ``time/total_timesteps`` | tokens so far |
| ``time/time_elapsed``, ``fps`` | seconds and tokens per second since ``learn`` began |

What is a mean is one over all gradient steps of the update, those of every epoch and minibatch. Explained variance is 1
for a perfect V, 0 for a constant and below 0 where V is worse than that. Measured against V + A it can be high where
V is noise, since V stands on both sides; ``explained_variance_mc`` tells whether V predicts what comes.
"""

import math
from statistics import fmean

import numpy as np
import torch

from textgym_agents.episodes import Episodes
from textgym_agents.losses import estimated_kl, explained_variance

__all__ = ["StepMeans", "clip_metrics", "rollout_metrics", "update_means", "value_metrics"]


def rollout_metrics(episodes: Episodes) -> dict[str, float]:
    """Return what the episodes say about themselves; a score that is NaN, where the scorer failed, does not count.

    Of a scorer that is made of others, each part has its mean, ``"rollout/score/<part>"``.
    """
    metrics = {
        "rollout/ep_rew_mean": float(episodes.returns.mean()),
        "rollout/ep_len_mean": float(episodes.num_steps.float().mean()),
        "rollout/score_mean": _mean([info["score"] for info in episodes.infos]),
    }
    parts = [info.get("scores", {}) for info in episodes.infos]
    names = dict.fromkeys(name for scores in parts for name in scores)
    if len(names) > 1:
        for name in names:
            metrics[f"rollout/score/{name}"] = _mean([scores.get(name, math.nan) for scores in parts])
    return metrics


def _mean(scores: list[float]) -> float:
    known = np.array(scores, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan


class StepMeans:
    """Means of what each step says, gathered over the micro-batches of a gradient step.

    Args:
        num_steps: Steps in all of them.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._sums: dict[str, float] = {}

    def add(self, mask: torch.Tensor, **terms: torch.Tensor) -> None:
        """Add (B, T) terms where the mask is True."""
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(term.detach()[mask].sum())

    def metrics(self) -> dict[str, float]:
        """Return the means under SB3's names."""
        return {f"train/{name}": total / self.num_steps for name, total in self._sums.items()}


def update_means(steps: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the gradient steps that have it.

    >>> update_means([{"train/loss": 1.0, "train/grad_norm": 4.0}, {"train/loss": 2.0}])
    {'train/loss': 1.5, 'train/grad_norm': 4.0}
    """
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: fmean(step[name] for step in steps if name in step) for name in names}


def value_metrics(episodes: Episodes, targets: torch.Tensor, returns: torch.Tensor) -> dict[str, float]:
    """Return how much of the variance V explains that the policy had while it wrote.

    Args:
        episodes: B episodes.
        targets: (B, T) V + A.
        returns: (B, T) Monte-Carlo returns.
    """
    return {
        "train/explained_variance": explained_variance(episodes.values, targets, episodes.mask),
        "train/explained_variance_mc": explained_variance(episodes.values, returns, episodes.mask),
    }


def clip_metrics(log_probs: torch.Tensor, old_log_probs: torch.Tensor, clip_range: float) -> dict[str, torch.Tensor]:
    """Return (B, T) terms of SB3's ``approx_kl`` (k3 to the policy that acted, in nats) and ``clip_fraction``."""
    log_probs = log_probs.detach()
    ratio = (log_probs - old_log_probs).exp()
    return {
        "approx_kl": estimated_kl("k3", old_log_probs, log_probs),
        "clip_fraction": ((ratio - 1).abs() > clip_range).float(),
    }
