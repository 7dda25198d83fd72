"""The Stable-Baselines3 face. The only file of this package that imports it."""

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from textgym.envs.access import CoreAccess
from textgym.envs.config import TextGenConfig, check_render_mode
from textgym.envs.core import Core
from textgym.envs.reset import ResetRequest, num_episodes_of, option_rows
from textgym.envs.step import State
from textgym.errors import install_hint
from textgym.rendering import render_ansi

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(f"TextGenVecEnv needs Stable-Baselines3: {install_hint('sb3')}") from error

__all__ = ["TextGenVecEnv"]


class TextGenVecEnv(CoreAccess, VecEnv):
    """N texts as an SB3 ``VecEnv``: ``PPO("MlpPolicy", TextGenVecEnv(8))`` trains as it is.

    Episodes, spaces and the last step's info are those of ``TextGenEnv``. Ended slots restart in the same step; the
    last observation is in ``info["terminal_observation"]`` and ``info["TimeLimit.truncated"]`` says whether the
    budget ended it. Wrap it in SB3's ``VecMonitor`` to log episode returns.

    Args:
        num_envs: N.
        render_mode: ``"ansi"`` or None.
        **kwargs: The fields of ``TextGenConfig``.

    Raises:
        ImportError: If Stable-Baselines3 is not installed; it gives the pip command.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (Stable-Baselines3's own declaration)

    def __init__(self, num_envs: int = 1, *, render_mode: str | None = None, **kwargs: Any) -> None:
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.config = TextGenConfig.from_kwargs(kwargs)
        self.core = Core(self.config.build(), num_envs)
        self.render_mode = render_mode
        parts = self.core.parts
        observation_space = parts.observation.space(parts.tokenizer, parts.window, parts.max_new_tokens)
        self._actions: Any = None
        super().__init__(num_envs, observation_space, gym.spaces.Discrete(self.core.num_actions))

    def reset(self) -> Any:
        """Start episodes in all slots, with the seeds and options given to ``seed`` and ``set_options``.

        The options are those of ``TextGenEnv``, per slot, and ``num_episodes``, one for all slots; see
        ``TextGenVectorEnv.reset``.
        """
        rngs = [None if seed is None else seeding.np_random(seed)[0] for seed in self._seeds]
        options = [dict(one) for one in self._options]
        limits = {num_episodes_of(one) for one in options}
        if len(limits) > 1:
            raise ValueError(f"num_episodes is one number for all slots, got {sorted(map(str, limits))}")
        rows = [(option_rows(one, 1) or [{}])[0] for one in options]
        slots = np.arange(self.num_envs)
        state = self.core.reset(ResetRequest(slots, rows, rngs, is_full=True, num_episodes=limits.pop()))
        self.reset_infos = self._infos(state, state.scorer_errors)
        self._reset_seeds()
        self._reset_options()
        return state.observation

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the (N,) actions for ``step_wait``."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[Any, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Write one token in each slot that plays; see ``Core.step`` for the errors, after which it can be repeated."""
        step = self.core.step(self._actions, AutoresetMode.SAME_STEP)
        state, dones = step.state, step.terminated | step.truncated
        infos = self._infos(state, step.scorer_errors)
        if step.episode_end is not None and step.final is not None:
            resets = self._infos(state, state.scorer_errors)
            slots = step.episode_end.slots.tolist()
            for k, (slot, info) in enumerate(zip(slots, step.episode_end.infos(), strict=True)):
                info["terminal_observation"] = _row(step.final.observation, k)
                info["TimeLimit.truncated"] = bool(step.truncated[slot])
                self.reset_infos[slot] = resets[slot]
                infos[slot] |= info
        if step.reward_vectors is not None:
            for info, vector in zip(infos, step.reward_vectors, strict=True):
                info["reward_vector"] = vector
        if step.illegal is not None:
            for slot in np.flatnonzero(step.illegal).tolist():
                infos[slot]["illegal_action"] = True
        return state.observation, step.rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return (N, num_actions) bool, True where an action is legal now."""
        return self.core.action_masks()

    def set_log_probs(self, log_probs: npt.ArrayLike) -> None:
        """Tell the KL term log pi(a|s) of the (N,) next actions, in nats; else cross-entropy stands for the KL."""
        self.core.set_log_probs(log_probs)

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Return N times None: a text has no picture."""
        return [None] * self.num_envs

    def render(self, mode: str | None = None) -> Any:
        """Return N texts so far with ``render_mode="ansi"``."""
        if (mode or self.render_mode) != "ansi":
            return None
        return [render_ansi(self.core, slot) for slot in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """Return the attribute once per slot; all slots share one object.

        Raises:
            AttributeError: If there is no such attribute.
        """
        value = getattr(self, attr_name)
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Set the attribute for all slots.

        Raises:
            ValueError: If ``indices`` names only some of them: the slots are one object.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{attr_name!r} can only be set for all {self.num_envs} slots: they are one object")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: int | Iterable[int] | None = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method and return the answers of ``indices``.

        A method that answers per slot, such as ``"action_masks"``, gives each slot its own answer.

        Raises:
            AttributeError: If there is no such method.
        """
        answers = getattr(self, method_name)(*method_args, **method_kwargs)
        slots = list(self._get_indices(indices))
        per_slot = isinstance(answers, Sequence | np.ndarray) and len(answers) == self.num_envs
        return [answers[i] if per_slot else answers for i in slots]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """Return False per slot: there are no wrapped environments inside."""
        return [False] * len(list(self._get_indices(indices)))

    def _infos(self, state: State, errors: dict[int, str]) -> list[dict[str, Any]]:
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if state.action_masks is not None:
            for info, mask in zip(infos, state.action_masks.astype(np.int8), strict=True):
                info["action_mask"] = mask
        for slot, error in errors.items():
            infos[slot]["scorer_error"] = error
        return infos


def _row(observation: Any, k: int) -> Any:
    return {key: value[k] for key, value in observation.items()} if isinstance(observation, dict) else observation[k]
