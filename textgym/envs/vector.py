"""The vector environment: N episodes stepped as arrays, in Gymnasium's three autoreset modes."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from textgym.envs.access import CoreAccess
from textgym.envs.config import TextGenConfig, check_render_mode
from textgym.envs.core import Core
from textgym.envs.finished import Finished
from textgym.envs.single import TextGenEnv
from textgym.envs.step import Step
from textgym.errors import unknown_name
from textgym.rendering import render_ansi

__all__ = ["TextGenVectorEnv"]


class TextGenVectorEnv(CoreAccess, VectorEnv[Any, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N texts written side by side; ``gym.make_vec("TextGen-v0", num_envs=N)`` makes one.

    Episodes, spaces and ``info`` are those of ``TextGenEnv``. Seeded with s, it gives the very episodes that
    Gymnasium's ``SyncVectorEnv`` over N single environments gives (with ``group_size=1``).

    Args:
        num_envs: N.
        autoreset_mode: ``"NextStep"`` (Gymnasium's default), ``"SameStep"`` (no step is lost; the last observation
            and info are in ``info["final_obs"]`` and ``info["final_info"]``), or ``"Disabled"`` (reset ended slots
            with ``reset(options={"reset_mask": mask})``).
        render_mode: ``"ansi"`` or None.
        **kwargs: The fields of ``TextGenConfig``.

    >>> import gymnasium, textgym
    >>> envs = gymnasium.make_vec("TextGen-v0", num_envs=3, tokenizer="char", prompts=["Hello"])
    >>> observations, infos = envs.reset(seed=0)
    >>> observations.shape
    (3, 64)
    """

    metadata = {"render_modes": ["ansi"], "render_fps": TextGenEnv.metadata["render_fps"]}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.config = TextGenConfig.from_kwargs(kwargs)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.core = Core(self.config.build(), num_envs)
        parts = self.core.parts
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space = gym.spaces.Discrete(self.core.num_actions)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = parts.observation.space(parts.tokenizer, parts.window, parts.max_new_tokens)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._all_slots = np.arange(num_envs)
        self._everyone = np.ones(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all slots, or in those of ``options["reset_mask"]`` ((N,) bool).

        Args:
            seed: One for all, from which slot i gets ``seed + i``, or a list of N.
            options: As for ``TextGenEnv``, each one value for all slots or a list with a value per reset slot.

        Raises:
            ValueError: If ``seed`` or ``reset_mask`` has another length than N, or the mask is empty.
        """
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        slots = self._masked_slots(mask)
        if seed is not None:
            self._seed(seed, slots)
        errors = self.core.reset(slots, options, new_group=mask is None)
        return self.core.observe(), self._notes(None, errors) | self._step_info(slots)

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Write one token in each running slot; see ``Core.step`` for the errors, after which it can be repeated.

        With ``"NextStep"``, slots that ended in the last step are reset instead and their actions ignored.
        """
        waiting = np.flatnonzero(~self.core.running)
        if waiting.size and self.autoreset_mode is AutoresetMode.NEXT_STEP and self.core.has_started:
            step = self._step_running(np.asarray(actions), waiting)
        else:
            step = self.core.step(actions, prepare="ended" if self.autoreset_mode is AutoresetMode.SAME_STEP else None)
        errors = step.scorer_errors
        if step.finished is not None and self.autoreset_mode is AutoresetMode.SAME_STEP:
            ended = step.terminated | step.truncated
            final = self._final(step, step.finished, ended)
            errors = {slot: error for slot, error in errors.items() if not ended[slot]}
            if step.beginning is not None:
                errors |= self.core.begin(step.beginning)
            info = final | self._notes(None if step.illegal is None else step.illegal & ~ended, errors)
        else:
            if step.beginning is not None:
                errors = errors | self.core.begin(step.beginning)
            info = self._notes(step.illegal, errors)
            if step.finished is not None:
                info |= step.finished.vector_info(self.num_envs)
        if step.reward_vectors is not None:
            info |= {"reward_vector": step.reward_vectors, "_reward_vector": self._everyone.copy()}
        return self.core.observe(), step.rewards, step.terminated, step.truncated, info | self._step_info()

    def render(self) -> tuple[str, ...] | None:
        """Return N texts so far with ``render_mode="ansi"``."""
        if self.render_mode != "ansi":
            return None
        return tuple(render_ansi(self.core, slot) for slot in range(self.num_envs))

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return (N, num_actions) bool, True where an action is legal now."""
        return self.core.action_masks()

    def set_log_probs(self, log_probs: npt.ArrayLike) -> None:
        """Tell the KL term log pi(a|s) of the (N,) next actions, in nats; else cross-entropy stands for the KL."""
        self.core.set_log_probs(log_probs)

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

    def _seed(self, seed: int | Sequence[int | None], slots: npt.NDArray[np.int64]) -> None:
        seeds = [int(seed) + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for num_envs={self.num_envs}")
        chosen = set(slots.tolist())
        self.core.dealer.seed(
            [seeding.np_random(s)[0] if s is not None and i in chosen else None for i, s in enumerate(seeds)]
        )

    def _step_running(self, actions: npt.NDArray[Any], waiting: npt.NDArray[np.int64]) -> Step:
        """Step the slots that run, prepare the others; return (N,) arrays that are 0 and False for the others."""
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {actions.shape}")
        running = np.flatnonzero(self.core.running)
        if running.size == 0:
            vectors = np.zeros((self.num_envs, len(self.core.reward_names)))
            told = vectors if self.core.parts.tells_reward_vector else None
            errors = self.core.reset(waiting)
            return Step(np.zeros(self.num_envs), ~self._everyone, ~self._everyone, None, None, told, errors)
        step = self.core.step(actions[running], running, prepare=waiting)

        def spread(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            everyone = np.zeros((self.num_envs, *values.shape[1:]), dtype=values.dtype)
            everyone[running] = values
            return everyone

        return step._replace(
            rewards=spread(step.rewards),
            terminated=spread(step.terminated),
            truncated=spread(step.truncated),
            illegal=None if step.illegal is None else spread(step.illegal),
            reward_vectors=None if step.reward_vectors is None else spread(step.reward_vectors),
        )

    def _notes(self, illegal: npt.NDArray[np.bool_] | None, errors: dict[int, str]) -> dict[str, Any]:
        """Return what ``info`` says of illegal actions, (N,) bool, and of scorer errors by slot."""
        notes: dict[str, Any] = {}
        if illegal is not None and illegal.any():
            notes |= {"illegal_action": illegal, "_illegal_action": illegal.copy()}
        if errors:
            column = np.full(self.num_envs, None, dtype=object)
            column[list(errors)] = list(errors.values())
            notes |= {"scorer_error": column, "_scorer_error": column != None}  # noqa: E711 (elementwise)
        return notes

    def _final(self, step: Step, finished: Finished, ended: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Return ``final_obs`` (N,) objects and ``final_info``, with their masks, before the slots are reset."""
        last = self.core.observe(finished.slots)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for k, slot in enumerate(finished.slots.tolist()):
            final_obs[slot] = {key: value[k] for key, value in last.items()} if isinstance(last, dict) else last[k]
        errors = {slot: error for slot, error in step.scorer_errors.items() if ended[slot]}
        illegal = None if step.illegal is None else step.illegal & ended
        info = finished.vector_info(self.num_envs) | self._notes(illegal, errors)
        if "action_mask" in self.config.step_info:
            masks = self.action_masks().astype(np.int8)
            masks[~ended] = 0
            info |= {"action_mask": masks, "_action_mask": ended.copy()}
        return {"final_obs": final_obs, "_final_obs": ended.copy(), "final_info": info, "_final_info": ended.copy()}

    def _step_info(self, slots: npt.NDArray[np.int64] | None = None) -> dict[str, Any]:
        if "action_mask" not in self.config.step_info:
            return {}
        masks = self.action_masks().astype(np.int8)
        told = self._everyone.copy()
        if slots is not None and slots.size < self.num_envs:
            told[:] = False
            told[slots] = True
            masks[~told] = 0
        return {"action_mask": masks, "_action_mask": told}


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, str) and mode not in (names := [known.value for known in AutoresetMode]):
        raise unknown_name("autoreset_mode", mode, names)
    return AutoresetMode(mode)
