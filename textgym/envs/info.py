"""``info`` as columns over slots, and how columns become a vector environment's ``info`` or one dict per slot."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from textgym.envs.episode_end import Column
from textgym.envs.step import State, Step

__all__ = ["FINAL_INFO", "FinalInfo", "infos", "reset_columns", "row_of", "step_columns", "vector_info"]

FinalInfo = Literal["full", "numbers", "none"]
"""What the last step's ``info`` holds of an episode."""
FINAL_INFO = get_args(FinalInfo)

NUMBERS = ("score", "length", "score_normalised", "group", "kl")
"""Keys of the last step's ``info`` that are one number per episode."""


Columns = dict[str, Column]


def step_columns(step: Step, final_info: FinalInfo) -> tuple[Columns, Columns]:
    """Return the last ``info`` of the episodes whose slots have started anew in this step, and that of all slots now.

    The former is empty in autoreset modes other than ``SAME_STEP``.
    """
    is_plain = step.episode_end is None and step.invalid is None and step.reward_vectors is None
    if is_plain and step.state.action_masks is None and not (step.scorer_errors or step.state.scorer_errors):
        return {}, {}  # as in most steps
    played = np.ones(len(step.rewards), dtype=np.bool_) if step.played is None else step.played
    everyone = np.arange(len(step.rewards))
    ends: Columns = {} if step.episode_end is None else step.episode_end.columns
    if final_info != "full":
        ends = {key: column for key, column in ends.items() if final_info == "numbers" and key in NUMBERS}
    now = reset_columns(step.state, everyone, final_info)
    if step.final is None or step.episode_end is None:
        return {}, _merged(ends | _step_notes(step, played, final_info), now)
    ended = step.terminated | step.truncated
    final = ends | _masks(step.final.action_masks, step.episode_end.slots) | _step_notes(step, ended, final_info)
    return final, _merged(_step_notes(step, played & ~ended, final_info), now)


def reset_columns(state: State, slots: npt.NDArray[np.int64], final_info: FinalInfo) -> Columns:
    """Return the ``info`` of slots that have been reset."""
    return _masks(state.action_masks, slots) | _errors(state.scorer_errors, final_info)


def _step_notes(step: Step, chosen: npt.NDArray[np.bool_], final_info: FinalInfo) -> Columns:
    """Return what ``info`` holds of a step itself in the chosen slots, (N,) bool."""
    notes = _errors({slot: text for slot, text in step.scorer_errors.items() if chosen[slot]}, final_info)
    if step.invalid is not None:
        slots = np.flatnonzero(step.invalid & chosen)
        notes["invalid_action"] = Column(slots, np.ones(slots.size, dtype=np.bool_))
    if step.reward_vectors is not None:
        notes["reward_vector"] = Column(np.flatnonzero(chosen), step.reward_vectors[chosen])
    return notes


def _errors(errors: dict[int, str], final_info: FinalInfo) -> Columns:
    """Return the texts of errors by slot; True where ``info`` is to hold no strings."""
    if not errors:
        return {}
    slots = np.array(list(errors), dtype=np.int64)
    texts = list(errors.values()) if final_info == "full" else np.ones(slots.size, dtype=np.bool_)
    return {"scorer_error": Column(slots, texts)}


def _masks(masks: npt.NDArray[np.bool_] | None, slots: npt.NDArray[np.int64]) -> Columns:
    return {} if masks is None else {"action_mask": Column(slots, masks[slots].astype(np.int8))}


def _merged(first: Columns, second: Columns) -> Columns:
    """Return both; ``scorer_error``, the one key that both may have, is of different slots in each."""
    if (error := second.get("scorer_error")) is not None and (earlier := first.get("scorer_error")) is not None:
        values: Any = [*earlier.values, *error.values]
        values = values if isinstance(error.values, list) else np.array(values)
        second = second | {"scorer_error": Column(np.concatenate([earlier.slots, error.slots]), values)}
    return first | second


def vector_info(columns: Mapping[str, Column], num_envs: int) -> dict[str, Any]:
    """Return (N,) arrays and ``_key`` masks, as Gymnasium's ``SyncVectorEnv`` makes them of N single dicts."""
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
    """Return N dicts; numbers are Python's with ``"full"``, else NumPy's, which know their dtype."""
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
    """Return one of the observations that are batched in an array, or in a dict of arrays."""
    return {key: value[k] for key, value in observation.items()} if isinstance(observation, dict) else observation[k]
