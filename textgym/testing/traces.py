"""Traces of episodes with random valid actions, and their comparison."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.envs.core import Core

__all__ = ["RandomActor", "Trace", "check_same", "play"]

Trace = list[dict[str, Any]]
"""Results of the calls of ``reset`` and ``step``, by name."""

EOS_SHARE = 0.1
"""Probability of EOS where it is valid, so that episodes end in every way."""


class RandomActor:
    """Samples valid actions for the environments of a core, a function of seed and masks only."""

    def __init__(self, core: Core, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        tokenizer = core.components.tokenizer
        empty = TextBatch.from_texts([""] * core.num_actions, tokenizer=tokenizer)
        written = core.components.actions.token_ids(np.arange(core.num_actions), empty)
        self._eos = [] if tokenizer.eos_token_id is None else np.flatnonzero(written == tokenizer.eos_token_id).tolist()

    def __call__(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return (n,) int64 for (n, A) masks; 0 where no action is valid, as after an episode end."""
        return np.array([self._choose(mask) for mask in masks], dtype=np.int64)

    def _choose(self, mask: npt.NDArray[np.bool_]) -> int:
        valid = np.flatnonzero(mask)
        wants_eos = self._rng.random() < EOS_SHARE
        choice = self._rng.random()  # always drawn, so that the random stream does not depend on the masks
        if wants_eos and self._eos and mask[self._eos[0]]:
            return int(self._eos[0])
        return int(valid[int(choice * len(valid))]) if len(valid) else 0


def play(env: Any, actor: RandomActor, num_steps: int, seed: int | None = None) -> Trace:
    """Step a single environment and reset it after each episode; reset it first if ``seed`` is given."""
    trace: Trace = []

    def reset(**kwargs: Any) -> None:
        observation, info = env.reset(**kwargs)
        trace.append({"observation": observation, "info": info})

    if seed is not None:
        reset(seed=seed)
    for _ in range(num_steps):
        action = actor(env.action_masks()[None])[0]
        observation, reward, terminated, truncated, info = env.step(action)
        outcome = {"reward": reward, "terminated": terminated, "truncated": truncated}
        trace.append({"observation": observation, **outcome, "info": info})
        if terminated or truncated:
            reset()
    return trace


def check_same(expected: Any, got: Any, what: str, tolerance: float = 0.0) -> None:
    """Compare two traces, or parts of them, including types and dtypes; NaN equals NaN.

    Args:
        expected: Expected values.
        got: Actual values.
        what: Prefix of the message, which continues with the position (``[3]['info']['score']``).
        tolerance: Relative and absolute tolerance of floats. Above 0, texts of scorer errors, which quote the batch,
            are not compared.

    Raises:
        AssertionError: For the first difference.
    """
    if is_dataclass(expected) and type(expected) is type(got):
        expected, got = vars(expected), vars(got)
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        if set(expected) != set(got):
            raise AssertionError(f"{what}: keys {sorted(map(str, got))} instead of {sorted(map(str, expected))}")
        for key in expected:
            if not (tolerance and key == "scorer_error"):
                check_same(expected[key], got[key], f"{what}[{key!r}]", tolerance)
    elif isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        if len(expected) != len(got):
            raise AssertionError(f"{what}: {len(got)} entries instead of {len(expected)}")
        for i, (first, second) in enumerate(zip(expected, got, strict=True)):
            check_same(first, second, f"{what}[{i}]", tolerance)
    elif isinstance(expected, np.ndarray) and isinstance(got, np.ndarray):
        check_same_array(expected, got, what, tolerance)
    elif type(expected) is not type(got) or not _equal(expected, got, tolerance):
        raise AssertionError(f"{what}: {got!r} instead of {expected!r}")


def check_same_array(expected: npt.NDArray[Any], got: npt.NDArray[Any], what: str, tolerance: float) -> None:
    """Compare two arrays, entry by entry where they hold objects."""
    if (expected.dtype, expected.shape) != (got.dtype, got.shape):
        raise AssertionError(
            f"{what}: {got.dtype} of shape {got.shape} instead of {expected.dtype} of shape {expected.shape}"
        )
    if expected.dtype.kind == "O":
        check_same(expected.tolist(), got.tolist(), what, tolerance)
        return
    is_float = expected.dtype.kind == "f"
    same = np.isclose(got, expected, tolerance, tolerance, equal_nan=True) if is_float else expected == got
    if not np.all(same):
        place = tuple(np.argwhere(~same)[0].tolist())
        raise AssertionError(f"{what}: {got[place]!r} at {place} instead of {expected[place]!r}")


def _equal(expected: Any, got: Any, tolerance: float) -> bool:
    if isinstance(expected, float):
        return bool(np.isclose(got, expected, tolerance, tolerance, equal_nan=True))
    return bool(expected == got)
