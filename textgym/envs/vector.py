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
from textgym.envs.reset import ResetRequest, num_episodes_of, option_rows
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
            options: As for ``TextGenEnv``, each one value for all slots or a list with a value per reset slot. With
                ``num_episodes`` that many episodes are played from here on: a slot for which none is left is parked
                until the next reset of all slots. ``running`` says which slots play.

        Raises:
            ValueError: If ``seed`` or ``reset_mask`` has another length than N, or the mask is empty.
        """
        options = dict(options or {})
        mask, num_episodes = options.pop("reset_mask", None), num_episodes_of(options)
        if mask is not None and num_episodes is not None:
            raise ValueError("num_episodes counts from a reset of all slots: it cannot be combined with reset_mask")
        slots = self._masked_slots(mask)
        rngs = None if seed is None else self._rngs(seed, slots)
        rows = option_rows(options, slots.size)
        state = self.core.reset(ResetRequest(slots, rows, rngs, mask is None, num_episodes))
        return state.observation, self._notes(None, state.scorer_errors) | self._mask_info(state.action_masks, slots)

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Write one token in each slot that plays; see ``Core.step`` for the errors, after which it can be repeated.

        With ``"NextStep"``, slots that ended in the last step are reset instead and their actions ignored.
        """
        step = self.core.step(actions, self.autoreset_mode)
        state, errors = step.state, step.scorer_errors
        if step.final is None:
            info = self._notes(step.illegal, errors | state.scorer_errors)
            if step.episode_end is not None:
                info |= step.episode_end.vector_info(self.num_envs)
        else:
            ended = step.terminated | step.truncated
            errors = {slot: error for slot, error in errors.items() if not ended[slot]} | state.scorer_errors
            illegal = None if step.illegal is None else step.illegal & ~ended
            info = self._final(step, ended) | self._notes(illegal, errors)
        if step.reward_vectors is not None:
            info |= {"reward_vector": step.reward_vectors, "_reward_vector": self._everyone.copy()}
        info |= self._mask_info(state.action_masks)
        return state.observation, step.rewards, step.terminated, step.truncated, info

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

    def _rngs(self, seed: int | Sequence[int | None], slots: npt.NDArray[np.int64]) -> list[np.random.Generator | None]:
        """Return N generators, None for slots that are not seeded."""
        seeds = [int(seed) + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for num_envs={self.num_envs}")
        chosen = set(slots.tolist())
        return [seeding.np_random(s)[0] if s is not None and i in chosen else None for i, s in enumerate(seeds)]

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

    def _final(self, step: Step, ended: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Return ``final_obs`` (N,) objects and ``final_info``, with their masks, of slots that have started anew."""
        assert step.final is not None
        assert step.episode_end is not None
        last, slots = step.final.observation, step.episode_end.slots
        final_obs = np.full(self.num_envs, None, dtype=object)
        for k, slot in enumerate(slots.tolist()):
            final_obs[slot] = {key: value[k] for key, value in last.items()} if isinstance(last, dict) else last[k]
        errors = {slot: error for slot, error in step.scorer_errors.items() if ended[slot]}
        illegal = None if step.illegal is None else step.illegal & ended
        info = step.episode_end.vector_info(self.num_envs) | self._notes(illegal, errors)
        info |= self._mask_info(step.final.action_masks, slots)
        return {"final_obs": final_obs, "_final_obs": ended.copy(), "final_info": info, "_final_info": ended.copy()}

    def _mask_info(
        self, masks: npt.NDArray[np.bool_] | None, slots: npt.NDArray[np.int64] | None = None
    ) -> dict[str, Any]:
        """Return the action masks of some slots, all by default, and 0 for the others."""
        if masks is None:
            return {}
        masks = masks.astype(np.int8)
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
