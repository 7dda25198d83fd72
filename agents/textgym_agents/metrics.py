"""What an update tells about itself, under Stable-Baselines3's names."""

import math

import numpy as np
import torch

from textgym_agents.episodes import Episodes

__all__ = ["StepMeans", "clip_metrics", "rollout_metrics"]


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


def clip_metrics(log_probs: torch.Tensor, old_log_probs: torch.Tensor, clip_range: float) -> dict[str, torch.Tensor]:
    """Return (B, T) terms of SB3's ``approx_kl`` (k3 to the policy that acted, in nats) and ``clip_fraction``."""
    ratio = (log_probs - old_log_probs).detach().exp()
    return {"approx_kl": ratio - 1 - ratio.log(), "clip_fraction": ((ratio - 1).abs() > clip_range).float()}
