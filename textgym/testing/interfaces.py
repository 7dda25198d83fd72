"""Check that the vector and the Stable-Baselines3 interface give the episodes of single environments."""

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
from textgym.testing.traces import RandomActor, Trace, check_same

__all__ = ["check_sb3_interface", "check_vector_interface"]

TOLERANCE = 1e-4
"""Batched and single network calls differ in the last float32 digits."""


def check_vector_interface(
    make: Any, new: Callable[[], TextGenEnv], kwargs: Mapping[str, Any], num_envs: int, seed: int
) -> None:
    """Compare the vector environment with ``SyncVectorEnv``, or check its episode groups if ``group_size > 1``."""
    for mode in AutoresetMode:
        vector = _vector(make, new, kwargs, num_envs, mode)
        try:
            vector.step(np.zeros(num_envs, dtype=np.int64))
        except ResetNeeded:
            pass
        else:
            raise AssertionError(f"a step of the vector environment ({mode.value}) before a reset does not raise")
        trace = _play_vector(vector, vector, seed)
        _check_spaces(vector, trace, mode)
        if vector.core.components.group_size > 1:
            _check_groups(vector.core.components.group_size, trace)
            continue
        # The masks come from a second vector environment, which receives the same actions.
        twin = _vector(make, new, kwargs, num_envs, mode)
        single = SyncVectorEnv([new] * num_envs, autoreset_mode=mode)
        check_same(
            _play_vector(single, twin, seed), trace, f"vector and single environments differ ({mode.value})", TOLERANCE
        )


def _vector(
    make: Any, new: Callable[[], TextGenEnv], kwargs: Mapping[str, Any], num_envs: int, mode: AutoresetMode
) -> TextGenVectorEnv:
    if isinstance(make, str) and gym.spec(make.rpartition(":")[2]).vector_entry_point is not None:
        mode_kwargs: dict[str, Any] = {"vectorization_mode": "vector_entry_point", "autoreset_mode": mode}
        vector: Any = gym.make_vec(make, num_envs=num_envs, **mode_kwargs, **kwargs).unwrapped
        if not isinstance(vector, TextGenVectorEnv):
            raise AssertionError(f"the vector entry point of {make!r} does not make a TextGenVectorEnv")
        return vector
    config = new().config
    keywords = {field.name: getattr(config, field.name) for field in fields(config)}
    return TextGenVectorEnv(num_envs, autoreset_mode=mode, **keywords)


def _play_vector(env: VectorEnv[Any, Any, Any], guide: TextGenVectorEnv, seed: int) -> Trace:
    """Step ``env`` and ``guide``, which may be the same, with actions that are valid in ``guide``."""
    actor = RandomActor(guide.core, seed)
    envs = [env] if env is guide else [env, guide]
    trace: Trace = []

    def reset(**kwargs: Any) -> None:
        for each in envs:
            options = kwargs.get("options")
            observation, info = each.reset(**kwargs | {"options": None if options is None else dict(options)})
            if each is env:
                trace.append({"observation": observation, "info": info})

    reset(seed=seed)
    for _ in range(3 * min(guide.max_new_tokens, 16) + 2):
        actions = actor(guide.action_masks())
        for each in envs:
            observation, rewards, terminated, truncated, info = each.step(actions)
            if each is env:
                outcome = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
                trace.append({"observation": observation, **outcome, "info": info})
        ended = terminated | truncated
        if guide.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            reset(options={"reset_mask": ended})
    return trace


def _check_spaces(vector: TextGenVectorEnv, trace: Trace, mode: AutoresetMode) -> None:
    for i, entry in enumerate(trace):
        if not vector.observation_space.contains(entry["observation"]):
            raise AssertionError(f"vector observation {i} ({mode.value}) is outside {vector.observation_space}")
        final: Any = entry["info"].get("final_obs", ())
        for observation in final:
            if observation is not None and not vector.single_observation_space.contains(observation):
                raise AssertionError(f"final_obs of step {i} is outside {vector.single_observation_space}")


def _check_groups(group_size: int, trace: Trace) -> None:
    """Check that a group has one prompt and at most ``group_size`` episodes."""
    prompts: dict[int, list[str]] = {}
    for entry in trace:
        info = entry["info"].get("final_info", entry["info"])
        for index in np.flatnonzero(info.get("_group", False)).tolist():
            prompts.setdefault(int(info["group"][index]), []).append(info["prompt"][index])
    for group, found in prompts.items():
        if len(found) > group_size or len(set(found)) > 1:
            raise AssertionError(f"group {group} has {len(found)} episodes with the prompts {sorted(set(found))}")


def check_sb3_interface(keywords: Mapping[str, Any], num_envs: int, seed: int) -> None:
    """Compare the Stable-Baselines3 interface, if installed, with the vector environment in ``SAME_STEP`` mode."""
    if importlib.util.find_spec("stable_baselines3") is None:
        return
    from textgym.envs.sb3 import TextGenVecEnv

    interface = TextGenVecEnv(num_envs, **keywords)
    vector = TextGenVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **keywords)
    actor = RandomActor(vector.core, seed)
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
    for index, single in enumerate(got):
        ended = "final_obs" in info and info["_final_obs"][index]
        if not ended:
            if "terminal_observation" in single:
                raise AssertionError(f"{what}: env {index} has a terminal_observation, but has not ended")
            continue
        check_same(info["final_obs"][index], single["terminal_observation"], f"{what}: env {index}", TOLERANCE)
        check_same(bool(truncated[index]), single["TimeLimit.truncated"], f"{what}: env {index}")
        last = info["final_info"]
        for key in ("prompt", "completion", "completion_ids", "end_reason"):
            if key in last:
                check_same(last[key][index], single[key], f"{what}: env {index}[{key!r}]")
        for key in ("score", "length"):
            if key in last:
                check_same(float(last[key][index]), float(single[key]), f"{what}: env {index}[{key!r}]", TOLERANCE)
