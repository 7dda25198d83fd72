"""Contract test of environments."""

import contextlib
import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as check_gymnasium

from textgym.envs import TextGenEnv
from textgym.errors import InvalidActionError
from textgym.testing.interfaces import check_sb3_interface, check_vector_interface
from textgym.testing.traces import RandomActor, Trace, check_same, play

__all__ = ["check_text_env"]

LAST_INFO: dict[str, type] = {
    "prompt": str,
    "completion": str,
    "completion_ids": list,
    "score": float,
    "scores": dict,
    "length": int,
    "end_reason": str,
}
"""Keys that ``info`` always has at the last step."""
LAST_INFO_SOMETIMES: dict[str, type] = {
    "group": int, "kl": float, "is_action": list, "turns": list, "score_normalised": float, "token_rewards": list
}  # fmt: skip
NUMBERS: dict[str, type] = {
    "score": np.float64, "length": np.int64, "group": np.int64, "kl": np.float64, "score_normalised": np.float64
}  # fmt: skip
"""Keys that ``info`` may have at the last step with ``final_info="numbers"``."""
STEP_INFO: dict[str, type] = {
    "scorer_error": str, "invalid_action": np.ndarray, "action_mask": np.ndarray, "reward_vector": np.ndarray
}  # fmt: skip
"""Keys that ``info`` may have at any step."""


def check_text_env(
    make: str | Callable[..., gym.Env[Any, Any]], *, num_envs: int = 4, seed: int = 0, **kwargs: Any
) -> None:
    """Check that an environment fulfils the contract of ``textgym.TextGenEnv``.

    * Gymnasium's ``check_env`` passes and, if Stable-Baselines3 is installed, that one's too, with warnings as errors.
    * Equal seeds give equal episodes; pickled, cloned and restored copies continue as the original.
    * The vector environment equals ``SyncVectorEnv`` over single environments in all three autoreset modes, including
      ``info``, and the Stable-Baselines3 interface gives the same episodes.
    * Returned values are in the spaces, ``info`` has the documented keys, masks are correct, and a step before a reset
      or after an episode end raises.

    Args:
        make: A registered id, or a function ``make(**kwargs)`` that returns the environment.
        num_envs: Number of environments in the vector environments.
        seed: Seed of the actions and the episodes.
        **kwargs: Passed to every environment. The copies share objects, so prompts must not come from an iterator.

    Raises:
        TypeError: If ``make`` is neither, such as an environment: the checks need several equal ones.
        AssertionError: If a check fails; the message names the check and the position.

    >>> check_text_env("TextGen-v0", tokenizer="char", prompts=["Hello"], max_new_tokens=6)
    >>> keywords = {"tokenizer": "char", "prompts": ["Hello"], "scorer": lambda text: len(text)}
    >>> check_text_env("TextGen-v0", **keywords)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the environment cannot be pickled: ...
    """
    if isinstance(make, gym.Env) or not (isinstance(make, str) or callable(make)):
        raise TypeError(
            f"check_text_env makes several equal environments, so it needs a registered id or a function that returns "
            f"an environment, got {type(make).__name__}: pass 'TextGen-v0' with the environment's keywords, or "
            "lambda: gym.make(...)"
        )

    def new() -> TextGenEnv:
        env = (gym.make(make, **kwargs) if isinstance(make, str) else make(**kwargs)).unwrapped
        if not isinstance(env, TextGenEnv):
            raise AssertionError(f"{make!r} makes a {type(env).__name__}, expected a TextGenEnv")
        return env

    with _failing_as("the environment cannot be made"):
        config = new().config
    _check_frameworks(new)
    with _failing_as("running some episodes fails"):
        _check_needs_reset(new(), seed)
        trace = _check_determinism(new, seed)
        _check_trace(new(), trace)
        _check_copies_continue(new, seed)
        _check_masks(new(), seed)
        check_vector_interface(make, new, kwargs, num_envs, seed)
        check_sb3_interface({field.name: getattr(config, field.name) for field in fields(config)}, num_envs, seed)


class _ValidActionSpace(gym.spaces.Discrete):
    """The environment's action space, whose ``sample`` returns valid actions only."""

    def __init__(self, env: TextGenEnv) -> None:
        super().__init__(env.num_actions)
        self._env = env

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        valid = self._env.action_masks().astype(np.int8)
        return super().sample(mask=valid if mask is None else mask)


def _check_frameworks(new: Callable[[], TextGenEnv]) -> None:
    """Run the frameworks' own checkers, which step with ``action_space.sample()`` and ignore masks."""
    checkers: dict[str, Callable[..., None]] = {"Gymnasium's check_env": check_gymnasium}
    with contextlib.suppress(ImportError):
        from stable_baselines3.common.env_checker import check_env as check_sb3

        checkers["Stable-Baselines3's check_env"] = check_sb3
    for name, checker in checkers.items():
        env = new()
        if env.has_invalid_actions:
            env.action_space = _ValidActionSpace(env)
        with _failing_as(f"{name} fails"), warnings.catch_warnings():
            warnings.simplefilter("error")
            # The render check needs a spec, which an environment made by a function lacks.
            checker(env, skip_render_check=env.spec is None)


@contextlib.contextmanager
def _failing_as(what: str) -> Iterator[None]:
    """Turn exceptions into ``AssertionError`` and suppress rendered output."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def _check_needs_reset(env: TextGenEnv, seed: int) -> None:
    actor = RandomActor(env.core, seed)
    _check_step_raises(env, "before the first reset")
    env.reset(seed=seed)
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(actor(env.action_masks()[None])[0])
        done = terminated or truncated
    before = env.get_state()
    _check_step_raises(env, "after an episode end")
    check_same(before, env.get_state(), "the state after a step that raised")


def _check_step_raises(env: TextGenEnv, when: str) -> None:
    try:
        env.step(np.int64(0))
    except ResetNeeded:
        return
    except Exception as error:
        raise AssertionError(f"a step {when} raises {type(error).__name__} instead of ResetNeeded") from error
    raise AssertionError(f"a step {when} does not raise gymnasium.error.ResetNeeded")


def _num_steps(env: TextGenEnv) -> int:
    """Return a number of steps that is enough for several episodes."""
    return 3 * min(env.max_new_tokens, 16) + 2


def _check_determinism(new: Callable[[], TextGenEnv], seed: int) -> Trace:
    """Check that two copies with the same seed agree; return the trace of one."""
    before = np.random.get_state()  # noqa: NPY002 (checks that it is not used)
    traces = []
    for env in (new(), new()):
        traces.append(play(env, RandomActor(env.core, seed), _num_steps(env), seed))
    check_same(traces[0], traces[1], "two environments with the same seed differ")
    check_same(before, np.random.get_state(), "NumPy's global generator is used")  # noqa: NPY002
    return traces[0]


def _check_trace(env: TextGenEnv, trace: Trace) -> None:
    """Check spaces, types and keys in the trace of a single environment."""
    for i, entry in enumerate(trace):
        if not env.observation_space.contains(entry["observation"]):
            raise AssertionError(f"observation {i} is outside {env.observation_space}")
        last = False
        if "reward" in entry:
            last = entry["terminated"] or entry["truncated"]
            for name, kind in (("reward", float), ("terminated", bool), ("truncated", bool)):
                if type(entry[name]) is not kind:
                    raise AssertionError(f"{name} {i} is {type(entry[name]).__name__}, expected {kind.__name__}")
        _check_info(entry["info"], last, i, env.config.final_info)


def _check_info(info: dict[str, Any], last: bool, i: int, final_info: str) -> None:
    """Check the keys and types of one ``info``."""
    known = STEP_INFO if final_info == "full" else STEP_INFO | {"scorer_error": np.ndarray}
    if last and final_info != "none":
        always = LAST_INFO.keys() if final_info == "full" else {"score", "length"}
        if not always <= info.keys():
            raise AssertionError(f"the last step's info {i} lacks {sorted(always - info.keys())}")
        known = known | (LAST_INFO | LAST_INFO_SOMETIMES if final_info == "full" else NUMBERS)
    for key, value in info.items():
        if key not in known:
            raise AssertionError(f"info {i} has the undocumented key {key!r}; known: {sorted(known)}")
        if type(value) is not known[key]:
            raise AssertionError(f"info[{key!r}] {i} is {type(value).__name__}, expected {known[key].__name__}")


def _check_copies_continue(new: Callable[[], TextGenEnv], seed: int) -> None:
    env = new()
    actor = RandomActor(env.core, seed)
    play(env, actor, _num_steps(env) // 2, seed)
    for _ in range(_num_steps(env)):
        if env.core.steps[0] > 0:  # in the middle of an episode
            break
        play(env, actor, 1)
    with _failing_as("the environment cannot be pickled"):
        pickled = pickle.loads(pickle.dumps(env))
    state = env.get_state()
    copies = {"pickled": pickled, "cloned": env.clone(), "restored elsewhere": new(), "restored": env}
    kept = copy.deepcopy(state)
    rest = play(env, copy.deepcopy(actor), _num_steps(env))
    check_same(kept, state, "a snapshot changes when its environment is stepped")
    for name in ("restored elsewhere", "restored"):
        copies[name].set_state(state)
    for name, twin in copies.items():
        got = play(twin, copy.deepcopy(actor), _num_steps(env))
        check_same(rest, got, f"the {name} environment does not continue as the original")


def _check_masks(env: TextGenEnv, seed: int) -> None:
    """Check shape and effect of the masks in the states of some episodes."""
    actor = RandomActor(env.core, seed)
    env.reset(seed=seed)
    for i in range(_num_steps(env)):
        mask = env.action_masks()
        if mask.shape != (env.num_actions,) or mask.dtype != np.bool_:
            raise AssertionError(f"action_masks() {i} has shape {mask.shape} and dtype {mask.dtype}")
        if not mask.any():
            raise AssertionError(f"action_masks() {i} allows no action")
        if not mask.all():
            _check_invalid_action(env, int(np.flatnonzero(~mask)[0]), i)
        try:
            _, _, terminated, truncated, info = env.step(actor(mask[None])[0])
        except InvalidActionError as error:
            raise AssertionError(f"step {i} raises for an action that action_masks() allows: {error}") from error
        if "invalid_action" in info:
            raise AssertionError(f"step {i} reports an action as invalid that action_masks() allows")
        if terminated or truncated:
            env.reset()


def _check_invalid_action(env: TextGenEnv, action: int, i: int) -> None:
    """Check the effect of ``on_invalid_action``, on a copy unless it is "raise"."""
    effect = env.config.on_invalid_action
    if effect != "raise":
        _, _, terminated, _, info = env.clone().step(np.int64(action))
        if not info.get("invalid_action", False):
            raise AssertionError(f"step {i}: info['invalid_action'] is missing for the invalid action {action}")
        if effect == "terminate" and not terminated:
            raise AssertionError(f"step {i}: the invalid action {action} does not end the episode")
        return
    before = env.get_state()
    try:
        env.step(np.int64(action))
    except InvalidActionError:
        check_same(before, env.get_state(), "the state after an invalid action")
        return
    raise AssertionError(f"step {i}: action {action}, which action_masks() forbids, does not raise")
