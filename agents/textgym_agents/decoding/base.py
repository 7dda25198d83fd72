"""Base class of the decoders, and simulation of an environment's episodes for those that look ahead."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from textgym.envs.core import Core
from textgym.envs.interface import CoreInterface, combine_snapshots, select_slots
from textgym.rewards import AdaptiveCoefficient
from textgym_agents.policy import ActionOutput, LMPolicy, Policy
from textgym_agents.rollout import check_fit, token_window

__all__ = ["Decoder", "Simulation", "as_lm_policy", "check_current", "look_ahead_env", "text_gen_env"]


class Decoder(ABC):
    """Base class of the decoders; a subclass implements ``act`` of the protocol ``Policy``.

    ``seed`` and ``device`` are those of the generator that is used when ``act`` is given none.
    """

    def __init__(self, vocab_size: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        self.vocab_size = vocab_size
        self.device = torch.device(device)
        self.generator = torch.Generator(device).manual_seed(seed)

    @abstractmethod
    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts; see ``Policy.act``."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose actions, with SB3's signature; see ``Agent.predict``."""
        ids = token_window(observation)
        masks = None if action_masks is None else np.atleast_2d(action_masks)
        actions = self.act(np.atleast_2d(ids), masks, deterministic=deterministic).actions
        return (actions[0] if ids.ndim == 1 else actions), state

    def acting_in(self, env: CoreInterface) -> Self:
        """Return the decoder for another environment: itself, or a copy where it looks ahead in its environment."""
        return self


def as_lm_policy(policy: Any) -> LMPolicy:
    """Return an ``LMPolicy`` unchanged, or make one of a name, a folder or a model."""
    return policy if isinstance(policy, LMPolicy) else LMPolicy(policy)


class Simulation:
    """M copies of an environment's N running episodes, which are never reset.

    Neither the environment's state nor its generators change, and no prompt is drawn. Scorer, constraints, endings and
    simulated user are shared with the environment; generators are copied, so the user replies as it would there. An
    adaptive KL coefficient keeps its current value.

    Args:
        env: The environment, of any of the three interfaces.
        env_indices: (M,) int64, the episode that each copy starts from.

    Attributes:
        env: A clone of the environment that holds the M episodes.
    """

    def __init__(self, env: CoreInterface, env_indices: npt.NDArray[np.int64]) -> None:
        self.env = env.clone()  # which has copies of what changes
        components = self.env.core.components
        if (kl := components.kl) is not None:
            components = replace(components, kl=replace(kl, coefficient=AdaptiveCoefficient(kl.coefficient.coef)))
        self._core = self.env.core = Core(components, len(env_indices))
        self.state = select_slots(env.get_state(), env_indices)

    @property
    def state(self) -> dict[str, Any]:
        """A snapshot; assigning one restores it."""
        return self._core.get_state()

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._core.set_state(state)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """(M, L) int64 texts, right-padded with V; modified in place by ``step``."""
        return self._core.ids

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(M,) int64 number of tokens of each text; a copy."""
        return self._core.lengths.copy()

    @property
    def running(self) -> npt.NDArray[np.bool_]:
        """(M,) bool, True for episodes that have not ended; a copy."""
        return self._core.running.copy()

    def masks(self) -> npt.NDArray[np.bool_] | None:
        """Return (M, V) bool action masks, or None if all actions are always valid."""
        if self._core.masking.all_valid:
            return None
        return self._core.action_masks() | ~self._core.running[:, None]  # an ended episode may have no valid action

    def reorder(self, sources: npt.NDArray[np.int64]) -> None:
        """Replace copy i by copy ``sources[i]``; (M,) int64."""
        self.state = select_slots(self.state, sources)

    def restart(self, slots: npt.NDArray[np.int64], states: Mapping[str, Any]) -> None:
        """Replace the copies ``slots``, (K,) int64, by the K slots of a snapshot of an equally configured environment.

        The KL coefficient stays.
        """
        own = self.state
        joined = combine_snapshots(
            lambda v: np.concatenate(v) if isinstance(v[0], np.ndarray) else [*v[0], *v[1]], [own, states]
        )
        sources = np.arange(len(self._core.ids))
        sources[slots] = len(sources) + np.arange(len(slots))
        self.state = select_slots(joined, sources)

    def step(
        self, actions: npt.NDArray[np.int64], log_probs: npt.NDArray[np.floating] | None, active: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Take a step in the active episodes and return (M,) float64 rewards, 0 elsewhere.

        Args:
            actions: (M,) tokens.
            log_probs: (M,) log pi(a|s), for a KL term in the reward; without it, that is the cross-entropy.
            active: (M,) bool.
        """
        if not active.any():
            return np.zeros(len(actions))
        if log_probs is not None:
            self._core.set_log_probs(log_probs)
        return self._core.step(actions, where=None if active.all() else active).rewards

    def roll_out(
        self, policy: Policy, active: npt.NDArray[np.bool_], generator: torch.Generator, gamma: float = 1.0
    ) -> npt.NDArray[np.float64]:
        """Run a policy to the end of the active episodes and return their (M,) float64 returns, 0 elsewhere.

        Args:
            policy: Chooses the tokens.
            active: (M,) bool; episodes that have ended stay as they are.
            generator: Random generator of the sampling.
            gamma: Discount per step.
        """
        returns, discount = np.zeros(len(active)), 1.0
        running = active & self._core.running
        while running.any():
            output = policy.act(self.ids, self.masks(), active=running, generator=generator)
            returns += discount * self.step(output.actions, output.log_probs, running)
            running &= self._core.running
            discount *= gamma
        return returns


def text_gen_env(env: Any) -> CoreInterface:
    """Return the environment under any wrappers; raise a TypeError if it is not of the TextGen family."""
    base = getattr(env, "unwrapped", env)
    if not isinstance(base, CoreInterface):
        raise TypeError(f"looking ahead needs an environment of the TextGen family, got {type(base).__name__}")
    return base


def look_ahead_env(env: Any, policy: Policy) -> CoreInterface:
    """Return the unwrapped TextGen environment; raise if it is of another family or its actions are not tokens."""
    base = text_gen_env(env)
    check_fit(base, policy)  # type: ignore[arg-type]  # all three interfaces have the attributes that it reads
    return base


def check_current(env: CoreInterface, ids: npt.NDArray[np.int64], active: npt.NDArray[np.bool_]) -> None:
    """Raise a ValueError unless the active rows of an observation are the environment's running episodes."""
    core = env.core
    if ids.shape != core.ids.shape or (ids != core.ids)[active].any() or not core.running[active].all():
        raise ValueError(
            "the observation is not the current state of the environment that this decoder looks ahead in; construct "
            "the decoder with the environment that it acts in"
        )
