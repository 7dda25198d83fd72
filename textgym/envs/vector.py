"""The Gymnasium vector environment: N episodes as arrays, in all three autoreset modes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from textgym.envs.interface import CoreInterface
from textgym.envs.reset import ResetRequest, num_episodes_of, option_rows
from textgym.envs.single import TextGenEnv
from textgym.envs.step_result import reset_columns, row_of, step_columns, vector_info
from textgym.errors import unknown_name

__all__ = ["TextGenVectorEnv"]


class TextGenVectorEnv(CoreInterface, VectorEnv[Any, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N text generation episodes in parallel, as made by ``gym.make_vec("TextGen-v0", num_envs=N)``.

    Episodes, spaces and ``info`` are those of ``TextGenEnv``. With ``group_size=1`` and the same seed, the episodes are
    exactly those of Gymnasium's ``SyncVectorEnv`` over N single environments.

    Args:
        num_envs: N.
        autoreset_mode: ``"NextStep"`` (Gymnasium's default), ``"SameStep"`` (no step is lost; the last observation
            and info are in ``info["final_obs"]`` and ``info["final_info"]``), or ``"Disabled"`` (reset ended
            sub-environments with ``reset(options={"reset_mask": mask})``).
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        **kwargs: The fields of ``TextGenConfig``, ``id``, ``task`` and ``max_episode_steps``, as for ``TextGenEnv``.

    >>> import gymnasium, textgym
    >>> envs = gymnasium.make_vec("TextGen-v0", num_envs=3, tokenizer="char", prompts=["Hello"])
    >>> observations, infos = envs.reset(seed=0)
    >>> observations.shape
    (3, 64)
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": TextGenEnv.metadata["render_fps"]}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        space, action_space = self._build(kwargs, num_envs, render_mode, self.metadata["render_modes"])
        self.num_envs = num_envs
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = space, action_space
        self.observation_space, self.action_space = batch_space(space, num_envs), batch_space(action_space, num_envs)
        self._all_slots = np.arange(num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all sub-environments, or in those of ``options["reset_mask"]`` ((N,) bool).

        Args:
            seed: An integer, with which sub-environment i is seeded with ``seed + i``, or a list of N.
            options: As for ``TextGenEnv``, each one value, or a list with a value per sub-environment that is reset.
                ``num_episodes`` limits the number of episodes from here on: a sub-environment for which none is left
                is parked until the next full reset (see ``running`` and ``parked``).

        Raises:
            ValueError: If ``seed`` or ``reset_mask`` has another length than N, or the mask is empty. Also if fewer of
                ``num_episodes`` are left than the mask selects, unless all selected episodes have ended and neither
                seed nor options are given; then those without a next episode are parked.
        """
        options = dict(options or {})
        mask, num_episodes = options.pop("reset_mask", None), num_episodes_of(options)
        if mask is not None and num_episodes is not None:
            raise ValueError("num_episodes counts from a full reset: it cannot be combined with reset_mask")
        slots = self._masked_slots(mask)
        rngs = None if seed is None else self._rngs(seed, slots)
        rows = option_rows(options, slots.size)
        if mask is not None:
            left = self.core.assignment.state.episodes_left
            if left is not None and left < slots.size and (seed is not None or rows or self.running[slots].any()):
                raise ValueError(
                    f"{left} of num_episodes are left, reset_mask selects {slots.size}: with fewer left it may select "
                    "ended episodes only, without seed and options; call reset() without reset_mask to start over"
                )
        state = self._reset(ResetRequest(slots, rows, rngs, mask is None, num_episodes))
        return state.observation, vector_info(reset_columns(state, slots, self.config.final_info), self.num_envs)

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Write one token in each running episode; see ``Core.step`` for the errors, after which it can be repeated.

        With ``"NextStep"``, sub-environments whose episodes ended in the previous step are reset instead; their actions
        are ignored.
        """
        step = self._step(actions, self.autoreset_mode)
        final, now = step_columns(step, self.config.final_info)
        info = vector_info(now, self.num_envs) if now else {}
        if step.final is not None and step.episode_end is not None:
            ended = step.terminated | step.truncated
            last = np.full(self.num_envs, None, dtype=object)
            for k, slot in enumerate(step.episode_end.slots.tolist()):
                last[slot] = row_of(step.final.observation, k)
            info |= {"final_obs": last, "_final_obs": ended}
            info |= {"final_info": vector_info(final, self.num_envs), "_final_info": ended.copy()}
        return step.state.observation, step.rewards, step.terminated, step.truncated, info

    def render(self) -> tuple[Any, ...] | None:
        """Return N texts or pictures, see ``TextGenEnv``, or None without a ``render_mode``."""
        if self.render_mode is None:
            return None
        return tuple(self._rendered(slot, self.render_mode) for slot in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method, or read an attribute, and return N results, as ``SyncVectorEnv.call`` does."""
        if name in ("action_space", "observation_space"):
            name = f"single_{name}"
        value = getattr(self, name)
        return tuple(self._per_env(name, value(*args, **kwargs) if callable(value) else value))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute N times; ``action_space`` and ``observation_space`` are those of one sub-environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute to one value, or a list of N equal ones.

        Raises:
            ValueError: If a list has another length, or different values: the sub-environments are one object.
        """
        each = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs or any(value != each[0] for value in each[1:]):
            raise ValueError(
                f"{name!r} must have one value in all {self.num_envs} sub-environments: they are one object; got {each}"
            )
        setattr(self, name, each[0])

    def _masked_slots(self, mask: Any) -> npt.NDArray[np.int64]:
        if mask is None:
            return self._all_slots
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"reset_mask must be bool of shape ({self.num_envs},) with a True in it, "
                f"got dtype {mask.dtype}, shape {mask.shape}"
            )
        return np.flatnonzero(mask)

    def _rngs(self, seed: int | Sequence[int | None], slots: npt.NDArray[np.int64]) -> list[np.random.Generator | None]:
        """Return N generators, None where none is seeded."""
        seeds = [int(seed) + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for num_envs={self.num_envs}")
        chosen = set(slots.tolist())
        return [seeding.np_random(s)[0] if s is not None and i in chosen else None for i, s in enumerate(seeds)]


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, str) and mode not in (names := [known.value for known in AutoresetMode]):
        raise unknown_name("autoreset_mode", mode, names)
    return AutoresetMode(mode)
