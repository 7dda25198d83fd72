"""The vector and the Stable-Baselines3 interface give the episodes that single environments give."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from textgym.envs import TextGenEnv, TextGenVectorEnv
from textgym.testing.transcripts import LegalActor, Record, check_same

__all__ = ["check_sb3_interface", "check_vector_interface"]

TOLERANCE = 1e-4
"""Batched and single calls of a network differ in the last float32 digits."""


def check_vector_interface(
    make: Any, new: Callable[[], TextGenEnv], kwargs: Mapping[str, Any], num_envs: int, seed: int
) -> None:
    """Compare the vector environment with Gymnasium's ``SyncVectorEnv``, or check its groups of episodes.

    Raises:
        AssertionError: For the first difference.
    """
    for mode in AutoresetMode:
        vector = _vector(make, new, kwargs, num_envs, mode)
        try:
            vector.step(np.zeros(num_envs, dtype=np.int64))
        except ResetNeeded:
            pass
        else:
            raise AssertionError(f"a step of the vector environment ({mode.value}) before a reset does not raise")
        record = play_vector(vector, vector, seed)
        _check_spaces(vector, record, mode)
        if vector.core.components.group_size > 1:
            _check_groups(vector.core.components.group_size, record)
            continue
        # The masks come from a vector environment, the actions that follow from them go to both.
        twin = _vector(make, new, kwargs, num_envs, mode)
        single = SyncVectorEnv([new] * num_envs, autoreset_mode=mode)
        check_same(
            play_vector(single, twin, seed), record, f"vector and single environments differ ({mode.value})", TOLERANCE
        )


def _vector(
    make: Any, new: Callable[[], TextGenEnv], kwargs: Mapping[str, Any], num_envs: int, mode: AutoresetMode
) -> TextGenVectorEnv:
    if isinstance(make, str) and gym.spec(make.rpartition(":")[2]).vector_entry_point is not None:
        mode_kwargs: dict[str, Any] = {"vectorization_mode": "vector_entry_point", "autoreset_mode": mode}
        vector: Any = gym.make_vec(make, num_envs=num_envs, **mode_kwargs, **kwargs).unwrapped
        if not isinstance(vector, TextGenVectorEnv):
            raise AssertionError(f"the vector entry point of {make!r} makes no TextGenVectorEnv")
        return vector
    config = new().config
    keywords = {field.name: getattr(config, field.name) for field in fields(config)}
    return TextGenVectorEnv(num_envs, autoreset_mode=mode, **keywords)


def play_vector(env: VectorEnv[Any, Any, Any], guide: TextGenVectorEnv, seed: int) -> Record:
    """Play ``env`` and ``guide``, which may be the same, with actions that are legal in ``guide``."""
    actor = LegalActor(guide.core, seed)
    both = [env] if env is guide else [env, guide]
    record: Record = []

    def reset(**kwargs: Any) -> None:
        for part in both:
            options = kwargs.get("options")
            observation, info = part.reset(**kwargs | {"options": None if options is None else dict(options)})
            if part is env:
                record.append({"observation": observation, "info": info})

    reset(seed=seed)
    for _ in range(3 * min(guide.max_new_tokens, 16) + 2):
        actions = actor(guide.action_masks())
        for part in both:
            observation, rewards, terminated, truncated, info = part.step(actions)
            if part is env:
                outcome = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
                record.append({"observation": observation, **outcome, "info": info})
        ended = terminated | truncated
        if guide.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            reset(options={"reset_mask": ended})
    return record


def _check_spaces(vector: TextGenVectorEnv, record: Record, mode: AutoresetMode) -> None:
    for i, entry in enumerate(record):
        if not vector.observation_space.contains(entry["observation"]):
            raise AssertionError(f"vector observation {i} ({mode.value}) is outside {vector.observation_space}")
        final: Any = entry["info"].get("final_obs", ())
        for observation in final:
            if observation is not None and not vector.single_observation_space.contains(observation):
                raise AssertionError(f"final_obs of step {i} is outside {vector.single_observation_space}")


def _check_groups(group_size: int, record: Record) -> None:
    """Check that a group has one prompt and no more episodes than it may have."""
    prompts: dict[int, list[str]] = {}
    for entry in record:
        info = entry["info"].get("final_info", entry["info"])
        for slot in np.flatnonzero(info.get("_group", False)).tolist():
            prompts.setdefault(int(info["group"][slot]), []).append(info["prompt"][slot])
    for group, dealt in prompts.items():
        if len(dealt) > group_size or len(set(dealt)) > 1:
            raise AssertionError(f"group {group} has {len(dealt)} episodes with the prompts {sorted(set(dealt))}")


def check_sb3_interface(keywords: Mapping[str, Any], num_envs: int, seed: int) -> None:
    """Compare the Stable-Baselines3 interface, where that is installed, with the vector environment in ``SAME_STEP``.

    Raises:
        AssertionError: For the first difference.
    """
    if importlib.util.find_spec("stable_baselines3") is None:
        return
    from textgym.envs.sb3 import TextGenVecEnv

    interface = TextGenVecEnv(num_envs, **keywords)
    vector = TextGenVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **keywords)
    actor = LegalActor(vector.core, seed)
    interface.seed(seed)
    what = "the Stable-Baselines3 interface differs from the vector environment"
    check_same(vector.reset(seed=seed)[0], interface.reset(), what, TOLERANCE)
    for i in range(3 * min(vector.max_new_tokens, 16) + 2):
        actions = actor(vector.action_masks())
        observation, rewards, terminated, truncated, info = vector.step(actions)
        got = interface.step(actions)
        expected = (observation, rewards.astype(np.float32), terminated | truncated)
        check_same(expected, tuple(got[:3]), f"{what} at step {i}", TOLERANCE)
        _check_ends(info, truncated, got[3], f"{what} at step {i}")


def _check_ends(
    info: Mapping[str, Any], truncated: npt.NDArray[np.bool_], got: list[dict[str, Any]], what: str
) -> None:
    for slot, single in enumerate(got):
        ended = "final_obs" in info and info["_final_obs"][slot]
        if not ended:
            if "terminal_observation" in single:
                raise AssertionError(f"{what}: slot {slot} has a terminal_observation, but has not ended")
            continue
        check_same(info["final_obs"][slot], single["terminal_observation"], f"{what}: slot {slot}", TOLERANCE)
        check_same(bool(truncated[slot]), single["TimeLimit.truncated"], f"{what}: slot {slot}")
        last = info["final_info"]
        for key in ("prompt", "completion", "completion_ids", "end_reason"):
            if key in last:
                check_same(last[key][slot], single[key], f"{what}: slot {slot}[{key!r}]")
        for key in ("score", "length"):
            if key in last:
                check_same(float(last[key][slot]), float(single[key]), f"{what}: slot {slot}[{key!r}]", TOLERANCE)
