"""Results of the core's ``reset`` and ``step``, and the ``info`` that the interfaces make of them.

The step itself is ``Core.step`` in ``core.py``; the keys of ``info`` are documented in ``TextGenEnv`` (``single.py``).
``info`` is kept as columns, one per key, each with the slots that have it: ``vector_info`` makes a vector environment's
arrays and masks of them, ``infos`` one dict per slot.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import Scores

__all__ = [
    "FINAL_INFO",
    "Column",
    "Columns",
    "EpisodeEnd",
    "FinalInfo",
    "FinalState",
    "ScoreBounds",
    "State",
    "Step",
    "infos",
    "reset_columns",
    "row_of",
    "step_columns",
    "vector_info",
]

ScoreBounds = tuple[float, float] | Mapping[Any, tuple[float, float]]
"""The scores normalised to 0 and 1, for all samples or by their metadata's ``level``."""

FinalInfo = Literal["full", "numbers", "none"]
"""Which keys that describe the episode the last step's ``info`` has."""
FINAL_INFO = get_args(FinalInfo)

NUMBERS = ("score", "length", "score_normalised", "group", "kl")
"""Keys of the last step's ``info`` that are one number per episode."""


class Column(NamedTuple):
    """The values of one key of ``info``."""

    slots: npt.NDArray[np.int64]
    """(n,) int64, the slots whose ``info`` has the key."""
    values: Any
    """An array or a list with n in front, or a dict of columns."""


Columns = dict[str, Column]


class State(NamedTuple):
    """The next observation of all slots."""

    observation: Any
    """Fresh observations with N in front."""
    action_masks: npt.NDArray[np.bool_] | None
    """(N, num_actions) bool; None if ``step_info`` does not include them."""
    scorer_errors: dict[int, str]
    """Errors of a reward that scores the prompts of new episodes, by slot, if ``on_scorer_error`` is not to raise."""


class FinalState(NamedTuple):
    """The last observation of the K episodes that ended, whose slots have started new ones."""

    observation: Any
    """Observations with K in front."""
    action_masks: npt.NDArray[np.bool_] | None
    """(N, num_actions) bool, meant for the K slots only; None if ``step_info`` does not include them."""


@dataclass
class EpisodeEnd:
    """K episodes that ended in a step, with their scores."""

    slots: npt.NDArray[np.int64]
    """(K,) int64."""
    batch: TextBatch
    """The K final texts."""
    scores: Scores
    """Total and components, (K,) each."""
    end_reasons: list[str]
    """``"eos"``, ``"max_new_tokens"``, ``"stop_string"``, ``"sentence_end"``, ``"invalid_action"``, ``"max_turns"``,
    the outcome of a user's reply, or a stop function's name."""
    groups: npt.NDArray[np.int64] | None = None
    """(K,) int64, the groups of prompts they belong to, where ``group_size`` exceeds 1."""
    kl: npt.NDArray[np.float64] | None = None
    """(K,) float64 nats, the KL term's sum over the episode before its coefficient, where there is one."""
    bounds: ScoreBounds | None = None
    """The scores normalised to 0 and 1, where they are given."""
    token_rewards: list[npt.NDArray[np.float64]] | None = None
    """K arrays, the share of each token in the score, from rewards that give one."""

    columns: Columns = field(init=False)
    """Final ``info`` by key, set by ``build_info``."""

    def build_info(self) -> None:
        """Set ``columns``; a score or component that does not apply to an episode is left out of its ``info``."""
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
        self.columns = result

    def _known(self, values: npt.NDArray[np.float64]) -> Column:
        """Return the column of values that are not NaN, and of NaN where the scorer failed."""
        known = ~np.isnan(values)
        if self.scores.errors:
            known |= self.scores.failed
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

    def reward_vectors(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (K, len(names)) float64, the score's components before their weights."""
        # A scorer without components is its own; a component that failed may be missing.
        missing = self.scores.total if len(names) == 1 else np.full(len(self.batch), np.nan)
        return np.stack([self.scores.components.get(name, missing) for name in names], axis=1)

    def scorer_errors(self) -> dict[int, str]:
        """Return the scorer's error message for each slot whose episode it failed for."""
        return {int(self.slots[row]): error for row, error in self.scores.errors.items()}


class Step(NamedTuple):
    """Result of one step of N slots; rewards and flags are 0 and False in slots that did not step."""

    rewards: npt.NDArray[np.float64]
    """(N,) float64."""
    terminated: npt.NDArray[np.bool_]
    """(N,) bool."""
    truncated: npt.NDArray[np.bool_]
    """(N,) bool."""
    state: State
    """After the step, and after the resets that belong to it."""
    invalid: npt.NDArray[np.bool_] | None = None
    """(N,) bool where some action was invalid and ``on_invalid_action`` is not to raise, else None."""
    episode_end: EpisodeEnd | None = None
    """The episodes that ended in this step, or None."""
    final: FinalState | None = None
    """Last observation of ended episodes whose slots were reset in the same step, or None."""
    reward_vectors: npt.NDArray[np.float64] | None = None
    """(N, K) float64, final scores of the scorer's K components, 0 where no episode ended; None if not reported."""
    played: npt.NDArray[np.bool_] | None = None
    """(N,) bool, the slots that stepped; None where all did."""
    scorer_errors: dict[int, str] = {}  # noqa: RUF012 (never changed)
    """Errors of the scorer by slot, if ``on_scorer_error`` is not to raise."""


def step_columns(step: Step, final_info: FinalInfo) -> tuple[Columns, Columns]:
    """Return the final ``info`` of episodes whose slots were reset in the same step, and the current ``info`` of all.

    The first is empty in autoreset modes other than ``SAME_STEP``.
    """
    is_plain = step.episode_end is None and step.invalid is None and step.reward_vectors is None
    if is_plain and step.state.action_masks is None and not (step.scorer_errors or step.state.scorer_errors):
        return {}, {}  # as in most steps
    played = np.ones(len(step.rewards), dtype=np.bool_) if step.played is None else step.played
    all_slots = np.arange(len(step.rewards))
    ends: Columns = {} if step.episode_end is None else step.episode_end.columns
    if final_info != "full":
        ends = {key: column for key, column in ends.items() if final_info == "numbers" and key in NUMBERS}
    now = reset_columns(step.state, all_slots, final_info)
    if step.final is None or step.episode_end is None:
        return {}, _merged(ends | _step_info(step, played, final_info), now)
    ended = step.terminated | step.truncated
    final = ends | _masks(step.final.action_masks, step.episode_end.slots) | _step_info(step, ended, final_info)
    return final, _merged(_step_info(step, played & ~ended, final_info), now)


def reset_columns(state: State, slots: npt.NDArray[np.int64], final_info: FinalInfo) -> Columns:
    """Return the ``info`` of slots that have been reset."""
    return _masks(state.action_masks, slots) | _errors(state.scorer_errors, final_info)


def _step_info(step: Step, chosen: npt.NDArray[np.bool_], final_info: FinalInfo) -> Columns:
    """Return the keys that describe the step, in the chosen slots, (N,) bool."""
    columns = _errors({slot: text for slot, text in step.scorer_errors.items() if chosen[slot]}, final_info)
    if step.invalid is not None:
        slots = np.flatnonzero(step.invalid & chosen)
        columns["invalid_action"] = Column(slots, np.ones(slots.size, dtype=np.bool_))
    if step.reward_vectors is not None:
        columns["reward_vector"] = Column(np.flatnonzero(chosen), step.reward_vectors[chosen])
    return columns


def _errors(errors: dict[int, str], final_info: FinalInfo) -> Columns:
    """Return the error messages; True instead where ``info`` is to hold no strings."""
    if not errors:
        return {}
    slots = np.array(list(errors), dtype=np.int64)
    texts = list(errors.values()) if final_info == "full" else np.ones(slots.size, dtype=np.bool_)
    return {"scorer_error": Column(slots, texts)}


def _masks(masks: npt.NDArray[np.bool_] | None, slots: npt.NDArray[np.int64]) -> Columns:
    return {} if masks is None else {"action_mask": Column(slots, masks[slots].astype(np.int8))}


def _merged(first: Columns, second: Columns) -> Columns:
    """Return both; the one key that both may have, ``scorer_error``, has different slots in each."""
    if (error := second.get("scorer_error")) is not None and (earlier := first.get("scorer_error")) is not None:
        values: Any = [*earlier.values, *error.values]
        values = values if isinstance(error.values, list) else np.array(values)
        second = second | {"scorer_error": Column(np.concatenate([earlier.slots, error.slots]), values)}
    return first | second


def vector_info(columns: Mapping[str, Column], num_envs: int) -> dict[str, Any]:
    """Return (N,) arrays and ``_key`` masks, the format of Gymnasium's ``SyncVectorEnv``."""
    info: dict[str, Any] = {}
    for key, (slots, values) in columns.items():
        if not slots.size:
            continue
        if isinstance(values, dict):
            info[key] = vector_info(values, num_envs)
        elif isinstance(values, np.ndarray):
            info[key] = np.zeros((num_envs, *values.shape[1:]), dtype=values.dtype)
            info[key][slots] = values
        else:
            info[key] = np.full(num_envs, None, dtype=object)
            for slot, value in zip(slots.tolist(), values, strict=True):
                info[key][slot] = value
        info[f"_{key}"] = np.zeros(num_envs, dtype=np.bool_)
        info[f"_{key}"][slots] = True
    return info


def infos(columns: Mapping[str, Column], num_envs: int, final_info: FinalInfo) -> list[dict[str, Any]]:
    """Return N dicts; numbers are Python's with ``final_info="full"``, else NumPy scalars."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, (slots, values) in columns.items():
        if isinstance(values, dict):
            nested = infos(values, num_envs, final_info)
            entries: Any = [nested[slot] for slot in slots.tolist()]
        elif isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype == np.bool_:
            entries = [np.array(value) for value in values]  # SyncVectorEnv makes objects of np.bool_
        elif isinstance(values, np.ndarray) and values.ndim == 1 and final_info == "full":
            entries = values.tolist()
        else:
            entries = values
        for slot, value in zip(slots.tolist(), entries, strict=True):
            rows[slot][key] = value
    return rows


def row_of(observation: Any, k: int) -> Any:
    """Return observation k of a batch, which is an array or a dict of arrays."""
    return {key: value[k] for key, value in observation.items()} if isinstance(observation, dict) else observation[k]
