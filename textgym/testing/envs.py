"""The contract of environments as a function: what a registered id or an environment of your own has to pass."""

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
from textgym.testing.transcripts import LegalActor, Record, check_same, play

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
"""Keys of ``info`` at the last step, always."""
LAST_INFO_SOMETIMES: dict[str, type] = {
    "group": int, "kl": float, "is_action": list, "turns": list, "score_normalised": float, "token_rewards": list
}  # fmt: skip
NUMBERS: dict[str, type] = {
    "score": np.float64, "length": np.int64, "group": np.int64, "kl": np.float64, "score_normalised": np.float64
}  # fmt: skip
"""Keys of ``info`` at the last step with ``final_info="numbers"``, where they apply."""
STEP_INFO: dict[str, type] = {
    "scorer_error": str, "invalid_action": np.ndarray, "action_mask": np.ndarray, "reward_vector": np.ndarray
}  # fmt: skip
"""Keys of ``info`` at any step, where they apply."""


def check_text_env(
    make: str | Callable[..., gym.Env[Any, Any]], *, num_envs: int = 4, seed: int = 0, **kwargs: Any
) -> None:
    """Check that an environment keeps the contract of :class:`textgym.TextGenEnv`.

    It passes Gymnasium's ``check_env`` and, where Stable-Baselines3 is installed, that one's, with warnings as errors.
    Equal seeds give equal episodes; pickled, cloned and restored copies go on as the original does. The vector
    environment gives in all three autoreset modes what ``SyncVectorEnv`` gives over single environments, ``info``
    included, and the Stable-Baselines3 interface gives the same episodes. What is returned is in the spaces and has the
    documented keys, masks say what is legal, and stepping before a reset or after an end raises.

    Args:
        make: A registered id, or a function ``make(**kwargs)`` that returns the environment.
        num_envs: Slots of the vector environments.
        seed: Decides the actions and the episodes.
        **kwargs: Given to every environment. Objects among them are shared by the copies, so prompts must not come
            from an iterator.

    Raises:
        AssertionError: If a check fails; the message says which, and where.

    >>> check_text_env("TextGen-v0", tokenizer="char", prompts=["Hello"], max_new_tokens=6)
    >>> keywords = {"tokenizer": "char", "prompts": ["Hello"], "scorer": lambda text: len(text)}
    >>> check_text_env("TextGen-v0", **keywords)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the environment cannot be pickled: ...
    """

    def new() -> TextGenEnv:
        env = (gym.make(make, **kwargs) if isinstance(make, str) else make(**kwargs)).unwrapped
        if not isinstance(env, TextGenEnv):
            raise AssertionError(f"{make!r} makes a {type(env).__name__}, which is no TextGenEnv")
        return env

    with _failing_as("the environment cannot be made"):
        config = new().config
    _check_frameworks(new)
    with _failing_as("playing some episodes fails"):
        _check_needs_reset(new(), seed)
        record = _check_seeds_decide(new, seed)
        _check_record(new(), record)
        _check_copies_continue(new, seed)
        _check_legality(new(), seed)
        check_vector_interface(make, new, kwargs, num_envs, seed)
        check_sb3_interface({field.name: getattr(config, field.name) for field in fields(config)}, num_envs, seed)


class _LegalSpace(gym.spaces.Discrete):
    """The environment's own action space, of which ``sample`` gives legal actions only."""

    def __init__(self, env: TextGenEnv) -> None:
        super().__init__(env.num_actions)
        self._env = env

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        legal = self._env.action_masks().astype(np.int8)
        return super().sample(mask=legal if mask is None else mask)


def _check_frameworks(new: Callable[[], TextGenEnv]) -> None:
    """Both frameworks' checkers step with ``action_space.sample()``, which knows nothing of masks."""
    checkers: dict[str, Callable[..., None]] = {"Gymnasium's check_env": check_gymnasium}
    with contextlib.suppress(ImportError):
        from stable_baselines3.common.env_checker import check_env as check_sb3

        checkers["Stable-Baselines3's check_env"] = check_sb3
    for name, checker in checkers.items():
        env = new()
        if env.has_invalid_actions:
            env.action_space = _LegalSpace(env)
        with _failing_as(f"{name} fails"), warnings.catch_warnings():
            warnings.simplefilter("error")
            # The render check makes the environment again from its spec, which one that a function made lacks.
            checker(env, skip_render_check=env.spec is None)


@contextlib.contextmanager
def _failing_as(what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an ``AssertionError``, and keep what is rendered off the terminal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def _check_needs_reset(env: TextGenEnv, seed: int) -> None:
    actor = LegalActor(env.core, seed)
    _check_refuses_to_step(env, "before the first reset")
    env.reset(seed=seed)
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(actor(env.action_masks()[None])[0])
        done = terminated or truncated
    before = env.get_state()
    _check_refuses_to_step(env, "after an episode's end")
    check_same(before, env.get_state(), "the state after a step that was refused")


def _check_refuses_to_step(env: TextGenEnv, when: str) -> None:
    try:
        env.step(np.int64(0))
    except ResetNeeded:
        return
    except Exception as error:
        raise AssertionError(f"a step {when} raises {type(error).__name__} instead of ResetNeeded") from error
    raise AssertionError(f"a step {when} does not raise gymnasium.error.ResetNeeded")


def _num_steps(env: TextGenEnv) -> int:
    """Enough for some episodes, however they end."""
    return 3 * min(env.max_new_tokens, 16) + 2


def _check_seeds_decide(new: Callable[[], TextGenEnv], seed: int) -> Record:
    """Return the record of one of two copies, which have to agree."""
    before = np.random.get_state()  # noqa: NPY002 (that nothing uses it is what is checked)
    records = []
    for env in (new(), new()):
        records.append(play(env, LegalActor(env.core, seed), _num_steps(env), seed))
    check_same(records[0], records[1], "two environments with the same seed differ")
    check_same(before, np.random.get_state(), "NumPy's global generator is used")  # noqa: NPY002
    return records[0]


def _check_record(env: TextGenEnv, record: Record) -> None:
    """Check spaces, types and keys of what a single environment returned."""
    for i, entry in enumerate(record):
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
    actor = LegalActor(env.core, seed)
    play(env, actor, _num_steps(env) // 2, seed)
    for _ in range(_num_steps(env)):
        if env.core.steps[0] > 0:  # in the middle of an episode, where there is something to forget
            break
        play(env, actor, 1)
    with _failing_as("the environment cannot be pickled"):
        pickled = pickle.loads(pickle.dumps(env))
    state = env.get_state()
    copies = {"pickled": pickled, "cloned": env.clone(), "restored elsewhere": new(), "restored": env}
    kept = copy.deepcopy(state)
    rest = play(env, copy.deepcopy(actor), _num_steps(env))
    check_same(kept, state, "a snapshot changes while its environment goes on")
    for name in ("restored elsewhere", "restored"):
        copies[name].set_state(state)
    for name, twin in copies.items():
        got = play(twin, copy.deepcopy(actor), _num_steps(env))
        check_same(rest, got, f"the {name} environment does not go on as the original did")


def _check_legality(env: TextGenEnv, seed: int) -> None:
    """Check shape and meaning of the masks in the states of some episodes."""
    actor = LegalActor(env.core, seed)
    env.reset(seed=seed)
    for i in range(_num_steps(env)):
        mask = env.action_masks()
        if mask.shape != (env.num_actions,) or mask.dtype != np.bool_:
            raise AssertionError(f"action_masks() {i} has shape {mask.shape} and dtype {mask.dtype}")
        if not mask.any():
            raise AssertionError(f"action_masks() {i} leaves nothing to do")
        if not mask.all():
            _check_invalid_action(env, int(np.flatnonzero(~mask)[0]), i)
        try:
            _, _, terminated, truncated, info = env.step(actor(mask[None])[0])
        except InvalidActionError as error:
            raise AssertionError(f"step {i} refuses an action that action_masks() allows: {error}") from error
        if "invalid_action" in info:
            raise AssertionError(f"step {i} calls an action invalid that action_masks() allows")
        if terminated or truncated:
            env.reset()


def _check_invalid_action(env: TextGenEnv, action: int, i: int) -> None:
    """Check that the policy for invalid actions is followed, on a copy unless it is to raise."""
    policy = env.config.on_invalid_action
    if policy != "raise":
        _, _, terminated, _, info = env.clone().step(np.int64(action))
        if not info.get("invalid_action", False):
            raise AssertionError(f"step {i}: info does not say that action {action} is invalid")
        if policy == "terminate" and not terminated:
            raise AssertionError(f"step {i}: the invalid action {action} does not end the episode")
        return
    before = env.get_state()
    try:
        env.step(np.int64(action))
    except InvalidActionError:
        check_same(before, env.get_state(), "the state after an invalid action")
        return
    raise AssertionError(f"step {i}: action {action}, which action_masks() forbids, does not raise")
