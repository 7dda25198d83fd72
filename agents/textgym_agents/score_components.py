"""The components of a score that is a weighted sum: their weights, and their values in episodes."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from textgym.scorers import WeightedSum
from textgym.scorers.combine.base import Wrapper
from textgym_agents.episodes import Episodes
from textgym_agents.rollout import text_env

__all__ = ["component_scores", "component_weights"]


def component_weights(env: VectorEnv[Any, Any, Any]) -> dict[str, float]:
    """Return the weight of each component of the environment's scorer, by its name in ``info["scores"]``.

    Components of weight 0, which are only reported, are left out.

    Raises:
        ValueError: If the scorer is not a ``WeightedSum`` with at least two weights other than 0, or such a sum in
            wrappers that keep the score, such as ``Cached``.
    """
    scorer = text_env(env).core.components.scorer
    while isinstance(scorer, Wrapper) and type(scorer).combined is Wrapper.combined:
        scorer = scorer.scorer
    weights = scorer.weights if isinstance(scorer, WeightedSum) else {}
    weights = {name: weight for name, weight in weights.items() if weight != 0}
    if len(weights) < 2:
        raise ValueError(
            "normalize_components needs a scorer that is a weighted sum of at least two, such as "
            f"scorer={{'sentiment': 1.0, 'repetition': 0.5}}, got {type(scorer).__name__} {scorer.name!r}"
        )
    return weights


def component_scores(episodes: Episodes, names: Iterable[str]) -> torch.Tensor:
    """Return (B, K) float64 unweighted components of the final scores, NaN where one does not apply.

    Raises:
        ValueError: If no episode has any of the components.
    """
    names = list(names)
    rows = [info.get("scores", {}) for info in episodes.infos]
    if not any(name in row for row in rows for name in names):
        known = ", ".join(dict.fromkeys(each for row in rows for each in row)) or "no components"
        raise ValueError(
            f"normalize_components needs episodes with the components {', '.join(names)} in info['scores'], got {known}"
        )
    return torch.tensor([[row.get(name, math.nan) for name in names] for row in rows], dtype=torch.float64)
