"""The Stable-Baselines3 interface. The only file of this package that imports it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from textgym.envs.interface import CoreInterface
from textgym.envs.reset import ResetRequest, num_episodes_of, option_rows
from textgym.envs.single import TextGenEnv
from textgym.envs.step_result import Column, infos, reset_columns, row_of, step_columns
from textgym.errors import install_hint

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(f"TextGenVecEnv needs Stable-Baselines3: {install_hint('sb3')}") from error

__all__ = ["TextGenVecEnv"]


class TextGenVecEnv(CoreInterface, VecEnv):
    """N text generation episodes as an SB3 ``VecEnv``, as in ``PPO("MlpPolicy", TextGenVecEnv(8))``.

    Episodes, spaces and the last step's info are those of ``TextGenEnv``. Ended episodes are followed by new ones in
    the same step; ``info["terminal_observation"]`` is the last observation and ``info["TimeLimit.truncated"]`` is True
    where the budget truncated the episode. Wrap it in SB3's ``VecMonitor`` to log episode returns.

    Args:
        num_envs: N.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        **kwargs: The fields of ``TextGenConfig``, ``id``, ``task`` and ``max_episode_steps``, as for ``TextGenEnv``.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": TextGenEnv.metadata["render_fps"]}  # noqa: RUF012 (Stable-Baselines3's own declaration)

    def __init__(self, num_envs: int = 1, *, render_mode: str | None = None, **kwargs: Any) -> None:
        limit = float(np.finfo(np.float32).max)
        spaces = self._build(kwargs, num_envs, render_mode, self.metadata["render_modes"], max_reward=limit)
        self._actions: Any = None
        super().__init__(num_envs, *spaces)
        self.metadata = dict(type(self).metadata)  # SB3 drops the frame rate, which its video recorder reads

    def reset(self) -> Any:
        """Start N episodes with the seeds and options given to ``seed`` and ``set_options``.

        The options are those of ``TextGenEnv``, and ``num_episodes``, the same for all; see ``TextGenVectorEnv.reset``.
        """
        rngs = [None if seed is None else seeding.np_random(seed)[0] for seed in self._seeds]
        options = [dict(one) for one in self._options]
        limits = {num_episodes_of(one) for one in options}
        if len(limits) > 1:
            raise ValueError(f"num_episodes must be the same in all environments, got {sorted(map(str, limits))}")
        rows = [(option_rows(one, 1) or [{}])[0] for one in options]
        slots = np.arange(self.num_envs)
        state = self._reset(ResetRequest(slots, rows, rngs, is_full=True, num_episodes=limits.pop()))
        self.reset_infos = self._infos(reset_columns(state, slots, self.config.final_info))
        self._reset_seeds()
        self._reset_options()
        return state.observation

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the (N,) actions for ``step_wait``."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[Any, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Write one token in each running episode; see ``Core.step`` for the errors, after which it can be repeated.

        Raises:
            ScorerError: Also for a reward beyond the range of float32, the dtype of SB3's rewards.
        """
        step = self._step(self._actions, AutoresetMode.SAME_STEP)
        final, now = step_columns(step, self.config.final_info)
        rows = self._infos(now)
        if step.final is not None and step.episode_end is not None:
            ends = self._infos(final)
            for k, slot in enumerate(step.episode_end.slots.tolist()):
                self.reset_infos[slot] = rows[slot]
                rows[slot] = ends[slot]
                rows[slot]["terminal_observation"] = row_of(step.final.observation, k)
                rows[slot]["TimeLimit.truncated"] = bool(step.truncated[slot])
        rewards = step.rewards.astype(np.float32)
        return step.state.observation, rewards, step.terminated | step.truncated, rows

    def close(self) -> None:
        """Do nothing; there is nothing to release."""

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Return N pictures with ``render_mode="rgb_array"``, else N times None."""
        mode = self.render_mode if self.render_mode == "rgb_array" else None
        return [self._rendered(slot, mode) for slot in range(self.num_envs)]

    def render(self, mode: str | None = None) -> Any:
        """Return N texts with ``render_mode="ansi"``, one picture of all N with ``"rgb_array"``, else None."""
        mode = mode or self.render_mode
        if mode is None:
            return None
        if mode == "ansi":
            return [self._rendered(slot, mode) for slot in range(self.num_envs)]
        return super().render(mode)

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """Return the attribute of the environments ``indices``; a method is that of the one object they all are."""
        values = self._per_env(attr_name, getattr(self, attr_name))
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Set the attribute in all environments, which are one object; ``indices`` must be all of them."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(
                f"{attr_name!r} can only be set for all {self.num_envs} environments, which are one object"
            )
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: int | Iterable[int] | None = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once and return its results for ``indices``, such as the rows of ``"action_masks"``."""
        method = getattr(self, method_name)
        results = self._per_env(method_name, method(*method_args, **method_kwargs))
        return [results[i] for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """Return False per index; there are no wrapped environments inside."""
        return [False] * len(list(self._get_indices(indices)))

    def _infos(self, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
        return infos(columns, self.num_envs, self.config.final_info)
