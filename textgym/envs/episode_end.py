"""Episodes that ended in this step and their final ``info``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.envs.parts import ScoreBounds
from textgym.scorers import Scores

__all__ = ["EpisodeEnd"]


@dataclass
class EpisodeEnd:
    """K episodes that have ended, one column per key of ``info``."""

    slots: npt.NDArray[np.int64]
    """(K,) int64."""
    batch: TextBatch
    """The K final texts."""
    scores: Scores
    """Total and components, (K,) each."""
    end_reasons: list[str]
    """``"eos"``, ``"max_new_tokens"``, ``"stop_string"``, ``"illegal_action"`` or a stop function's name."""
    groups: npt.NDArray[np.int64] | None = None
    """(K,) int64, the groups of prompts they belong to, where ``group_size`` exceeds 1."""
    kl: npt.NDArray[np.float64] | None = None
    """(K,) float64 nats, the KL term's sum over the episode before its coefficient, where there is one."""
    bounds: ScoreBounds | None = None
    """The scores that count as 0 and as 1, where they are known."""
    token_rewards: list[npt.NDArray[np.float64]] | None = None
    """K arrays, what each token earned of the score, where the reward says so."""

    def columns(self) -> dict[str, Any]:
        """Return the keys of ``info`` with K values each; ``scores`` is a dict of such columns."""
        columns = {
            "prompt": self.batch.prompts,
            "completion": self.batch.completions,
            "completion_ids": self.batch.completion_ids,
            "score": self.scores.total,
            "scores": self.scores.components,
            "length": self.batch.num_new_tokens,
            "end_reason": self.end_reasons,
        }
        if self.batch.is_action is not None:
            spans = zip(
                self.batch.is_action, self.batch.prompt_lengths.tolist(), self.batch.lengths.tolist(), strict=True
            )
            columns["is_action"] = [row[start:end].tolist() for row, start, end in spans]
            columns["turns"] = self.batch.turns
        if self.bounds is not None:
            columns["score_normalised"] = self._normalised(self.bounds)
        if self.groups is not None:
            columns["group"] = self.groups
        if self.kl is not None:
            columns["kl"] = self.kl
        if self.token_rewards is not None:
            columns["token_rewards"] = [values.tolist() for values in self.token_rewards]
        return columns

    def _normalised(self, bounds: ScoreBounds) -> npt.NDArray[np.float64]:
        """Return (K,) float64, NaN where the bounds of a sample's level are not known."""
        unknown = (np.nan, np.nan)
        by_level = bounds if isinstance(bounds, Mapping) else {}
        levels = [sample.metadata.get("level") for sample in self.batch.samples]
        pairs = [by_level.get(level, unknown) if by_level else bounds for level in levels]
        low, high = np.array(pairs, dtype=np.float64).T
        return (self.scores.total - low) / (high - low)

    def scorer_errors(self) -> dict[int, str]:
        """Return what went wrong in the scorer, by the slot that it affects."""
        if self.scores.error is None or self.scores.failed is None:
            return {}
        return dict.fromkeys(self.slots[self.scores.failed].tolist(), self.scores.error)

    def infos(self) -> list[dict[str, Any]]:
        """Return K ``info`` dicts of Python values, as a single environment gives them."""
        columns = {key: _python_values(column) for key, column in self.columns().items()}
        return [{key: column[k] for key, column in columns.items()} for k in range(len(self.slots))]

    def vector_info(self, num_envs: int) -> dict[str, Any]:
        """Return one ``info`` of (N,) arrays and ``_key`` masks, as Gymnasium's vector environments give them."""
        mask = np.zeros(num_envs, dtype=np.bool_)
        mask[self.slots] = True
        return _spread(self.columns(), self.slots, mask)


def _python_values(column: Any) -> list[Any]:
    if isinstance(column, dict):
        parts = {name: values.tolist() for name, values in column.items()}
        size = len(next(iter(parts.values())))
        return [{name: values[k] for name, values in parts.items()} for k in range(size)]
    return column.tolist() if isinstance(column, np.ndarray) else column


def _spread(columns: dict[str, Any], slots: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    spread: dict[str, Any] = {}
    for key, column in columns.items():
        if isinstance(column, dict):
            spread[key] = _spread(column, slots, mask)
        elif isinstance(column, np.ndarray):
            spread[key] = np.zeros(len(mask), dtype=column.dtype)
            spread[key][slots] = column
        else:
            spread[key] = np.full(len(mask), None, dtype=object)
            for slot, value in zip(slots.tolist(), column, strict=True):
                spread[key][slot] = value
        spread[f"_{key}"] = mask.copy()
    return spread
