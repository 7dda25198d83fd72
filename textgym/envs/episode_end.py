"""Episodes that ended in this step and their final ``info``."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.envs.components import ScoreBounds
from textgym.scorers import Scores

__all__ = ["Column", "EpisodeEnd"]


class Column(NamedTuple):
    """The values of one key of ``info``."""

    slots: npt.NDArray[np.int64]
    """(n,) int64, the slots whose ``info`` has the key."""
    values: Any
    """An array or a list with n in front, or a dict of columns."""


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
    """``"eos"``, ``"max_new_tokens"``, ``"stop_string"``, ``"invalid_action"`` or a stop function's name."""
    groups: npt.NDArray[np.int64] | None = None
    """(K,) int64, the groups of prompts they belong to, where ``group_size`` exceeds 1."""
    kl: npt.NDArray[np.float64] | None = None
    """(K,) float64 nats, the KL term's sum over the episode before its coefficient, where there is one."""
    bounds: ScoreBounds | None = None
    """The scores that count as 0 and as 1, where they are known."""
    token_rewards: list[npt.NDArray[np.float64]] | None = None
    """K arrays, what each token earned of the score, where the reward says so."""

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Return the keys of ``info``; a score or part of one that does not apply to an episode is left out of it."""
        columns: dict[str, Any] = {
            "prompt": self.batch.prompts,
            "completion": self.batch.completions,
            "completion_ids": self.batch.completion_ids,
            "score": self.scores.total,
            "scores": {name: self._known(values) for name, values in self.scores.components.items()},
            "length": self.batch.num_new_tokens,
            "end_reason": self.end_reasons,
        }
        if self.batch.is_action is not None:
            spans = zip(
                self.batch.is_action, self.batch.prompt_lengths.tolist(), self.batch.lengths.tolist(), strict=True
            )
            columns["is_action"] = [row[start:end].tolist() for row, start, end in spans]
            columns["turns"] = self.batch.turns
        if self.groups is not None:
            columns["group"] = self.groups
        if self.kl is not None:
            columns["kl"] = self.kl
        if self.token_rewards is not None:
            columns["token_rewards"] = [values.tolist() for values in self.token_rewards]
        result = {key: Column(self.slots, values) for key, values in columns.items()}
        if self.bounds is not None:
            result["score_normalised"] = self._known(self._normalised(self.bounds))
        return result

    def _known(self, values: npt.NDArray[np.float64]) -> Column:
        """Return the column of values that are not NaN, and of NaN where the scorer failed."""
        known = ~np.isnan(values) | self.scores.failed
        return Column(self.slots[known], values[known])

    def _normalised(self, bounds: ScoreBounds) -> npt.NDArray[np.float64]:
        """Return (K,) float64, NaN where the bounds of a sample's level are not known."""
        unknown = (np.nan, np.nan)
        by_level = bounds if isinstance(bounds, Mapping) else {}
        levels = [sample.metadata.get("level") for sample in self.batch.samples]
        levels = [level if isinstance(level, Hashable) else None for level in levels]
        pairs = [by_level.get(level, unknown) if by_level else bounds for level in levels]
        low, high = np.array(pairs, dtype=np.float64).T
        return (self.scores.total - low) / (high - low)

    def scorer_errors(self) -> dict[int, str]:
        """Return the scorer's error message for each slot whose episode it failed for."""
        return {int(self.slots[row]): error for row, error in self.scores.errors.items()}
