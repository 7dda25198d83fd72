"""Public attributes, snapshots, clones and rendering that the three interfaces share."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from textgym.envs.config import TextGenConfig
from textgym.envs.core import Core
from textgym.envs.rendering import Rendering
from textgym.envs.reset import ResetRequest
from textgym.envs.step_result import State, Step
from textgym.errors import unknown_name
from textgym.rendering import colors_wanted, default_renderer, terminal_text
from textgym.scorers.evaluation import get_states, set_states
from textgym.tokenizers import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CoreInterface", "combine_snapshots", "select_slots"]

PER_ENV = ("action_masks", "get_rng_states", "parked", "render", "running")
"""Attributes and methods with one result per environment."""


class CoreInterface:
    """Base class of the interfaces to N episodes; ``TextGenEnv`` is the case N = 1."""

    config: TextGenConfig
    core: Core
    _spec: EnvSpec | None = None

    def _build(
        self,
        keywords: Mapping[str, Any],
        num_envs: int,
        render_mode: str | None,
        render_modes: Sequence[str],
        max_reward: float = math.inf,
    ) -> tuple[gym.Space[Any], gym.spaces.Discrete]:
        """Set ``config``, ``core`` and ``render_mode``; return the spaces of one observation and of one action."""
        if render_mode is not None and render_mode not in render_modes:
            raise unknown_name("render_mode", render_mode, render_modes)
        self.config = TextGenConfig.from_kwargs(keywords)
        self.core = Core(self.config.build(), num_envs, max_reward=max_reward)
        self.render_mode = render_mode
        if render_mode == "rgb_array":
            default_renderer()  # raises without Pillow
        # Stable-Baselines3 sets "rgb_array" everywhere: there, steps are recorded from the first picture on.
        self._rendering = Rendering(self.core) if render_mode in ("ansi", "human") else None
        self._last_step: tuple[Any, ...] | None = None  # arguments of Rendering.record, for the first picture
        components = self.core.components
        space = components.observation.space(components.tokenizer, components.window, components.max_new_tokens)
        return space, gym.spaces.Discrete(self.core.num_actions)

    @property
    def spec(self) -> EnvSpec | None:
        """The spec of ``gym.make``, with the token budget as ``max_episode_steps``, where Gymnasium looks for it."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = copy.copy(spec)
        if self._spec is not None:
            self._spec.max_episode_steps = self.max_new_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer between ids and text."""
        return self.core.components.tokenizer

    @property
    def pad_token_id(self) -> int:
        """V, the id that fills the token window after the text; no token has it."""
        return self.core.pad_token_id

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends an episode, if the tokenizer has one."""
        return self.core.components.tokenizer.eos_token_id

    @property
    def window(self) -> int:
        """L, the length of the token window: room for prompt, completion and a user's replies."""
        return self.core.components.window

    @property
    def max_new_tokens(self) -> int:
        """The budget of an episode, in tokens."""
        return self.core.components.max_new_tokens

    @property
    def num_actions(self) -> int:
        """Number of actions, V with ``actions="vocabulary"``."""
        return self.core.num_actions

    @property
    def has_turns(self) -> bool:
        """Whether a simulated user writes into the text, so that not all tokens after the prompt are actions."""
        return self.core.user_turns is not None

    @property
    def has_invalid_actions(self) -> bool:
        """Whether actions can be masked; if not, all of ``action_masks()`` is always True."""
        return not self.core.masking.all_valid

    @property
    def running(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where an episode is running; the others wait for a reset or are parked. A copy."""
        return self.core.running.copy()

    @property
    def parked(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where no episode starts until the next full reset, as ``num_episodes`` have started."""
        return self.core.parked

    @property
    def reward_names(self) -> tuple[str, ...]:
        """K names, the components of the score in the order of ``info["reward_vector"]``."""
        return self.core.reward_names

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return (N, num_actions) bool, True where an action is valid.

        Raises:
            InvalidActionError: If the constraints leave no valid action, and EOS is not among the actions.
        """
        return self.core.action_masks()

    def set_log_probs(self, log_probs: Any) -> None:
        """Set log pi(a|s) of the (N,) next actions, in nats; without it, the KL term is the cross-entropy."""
        self.core.set_log_probs(log_probs)

    def set_progress(self, progress: float) -> None:
        """Set the completed share of training, 0 to 1, for scorers that change in the course of it.

        Raises:
            ValueError: If ``progress`` is outside of that.
        """
        self.core.components.set_progress(progress)

    def get_training_state(self) -> dict[str, Any]:
        """Return the state that changes in the course of training and outlives episodes, as JSON can hold it.

        ``kl_penalty`` with a KL term, and the states of the scorers, the reward's own scorers and the prompt source.
        """
        components = self.core.components
        return {
            "kl_penalty": None if components.kl is None else components.kl.coefficient.coef,
            "scorers": get_states(components.scorer),
            "reward_scorers": [get_states(scorer) for scorer in components.reward.scorers],
            "prompts": components.prompts.get_state(),
        }

    def set_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of ``get_training_state``, taken from an equally configured environment."""
        components = self.core.components
        set_states(components.scorer, state["scorers"])
        for scorer, states in zip(components.reward.scorers, state["reward_scorers"], strict=True):
            set_states(scorer, states)
        if state["prompts"] is not None:
            components.prompts.set_state(state["prompts"])
        if components.kl is not None and state["kl_penalty"] is not None:
            components.kl.coefficient.coef = state["kl_penalty"]

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of O(N L) integers from which ``set_state`` continues exactly.

        Log-probabilities set for the next step are not part of it.
        """
        return self.core.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of this or an equally configured environment.

        Raises:
            ValueError: If the snapshot is of another ``num_envs`` or another window.
        """
        self.core.set_state(state)
        self._last_step = None
        if self._rendering is not None:
            self._rendering.forget()

    def get_rng_states(self) -> list[dict[str, Any]]:
        """Return the states of the N generators, as JSON can hold them."""
        return self.core.assignment.get_rng_states()

    def set_rng_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Set the states of the N generators."""
        self.core.assignment.set_rng_states(states)

    def clone(self) -> "Self":
        """Return an independent environment in the same state that shares scorer, prompts and tokenizer.

        Scorers do not observe its episodes, so that search leaves no trace in them; a prompt source with a state is
        copied.
        """
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        # A space has a generator, from which sample() draws; Stable-Baselines3's list is written to.
        for name in ("action_space", "single_action_space", "reset_infos"):
            if name in clone.__dict__:
                clone.__dict__[name] = copy.deepcopy(clone.__dict__[name])
        clone.core = Core(self.core.components.clone(), self.core.num_envs, max_reward=self.core.max_reward)
        clone._rendering = None  # which set_state would clear
        clone.set_state(self.get_state())
        clone._rendering = copy.deepcopy(self._rendering)
        clone._last_step = self._last_step
        if self.core._log_probs is not None:  # of the next step, and not in snapshots
            clone.core.set_log_probs(self.core._log_probs.copy())
        return clone

    def _reset(self, request: ResetRequest) -> State:
        """Reset the core, and show it."""
        state = self.core.reset(request)
        self._last_step = None
        if self._rendering is not None:
            self._rendering.start(request.slots)
            if self.render_mode == "human":
                self._rendering.show(self.core)
        return state

    def _step(self, actions: Any, autoreset: AutoresetMode = AutoresetMode.DISABLED) -> Step:
        """Step the core, and show it."""
        rendering, lengths, log_probs = self._rendering, self.core.lengths, self.core._log_probs
        step = self.core.step(actions, autoreset)
        if rendering is not None:
            rendering.record(self.core, lengths, log_probs, step)
            if self.render_mode == "human":
                rendering.show(self.core)
        elif self.render_mode == "rgb_array":
            self._last_step = (lengths, log_probs, step)
        return step

    def _rendered(self, index: int, mode: str | None) -> Any:
        """Return one episode as text or as a picture; None in other render modes."""
        if mode not in ("ansi", "rgb_array"):
            return None
        rendering = self._rendering or Rendering(self.core)
        if self.render_mode == "rgb_array" and self._rendering is None:
            if self._last_step is not None:
                rendering.record(self.core, *self._last_step)
            self._rendering, self._last_step = rendering, None
        state = rendering.state(self.core, index)
        if mode == "rgb_array":
            return default_renderer()(state)
        return terminal_text(state, color=colors_wanted()) if self.core.lengths[index] else ""

    def _per_env(self, name: str, value: Any) -> list[Any]:
        """Return N values: one per environment of the attribute or result in ``PER_ENV``, otherwise the same."""
        is_batched = name in PER_ENV and value is not None and not callable(value)
        return list(value) if is_batched else [value] * self.core.num_envs


def combine_snapshots(
    function: Callable[[Sequence[Any]], Any], snapshots: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Combine snapshots of ``get_state`` entry by entry.

    Args:
        function: Called with the arrays, or the lists, of one entry; each has a value per slot.
        snapshots: Of equally configured environments, whose ``num_envs`` may differ. Entries without a value per slot
            are taken from the first.
    """
    combined = {}
    for name, first in snapshots[0].items():
        values = [snapshot[name] for snapshot in snapshots]
        if name == "user_turns" and first is not None:
            combined[name] = combine_snapshots(function, values)
        elif name != "prompts" and isinstance(first, np.ndarray | list):
            combined[name] = function(values)
        else:  # the state of the prompt source may hold lists of its own
            combined[name] = first
    return combined


def select_slots(snapshot: Mapping[str, Any], slots: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the snapshot whose M slots are ``slots``, (M,) int64 with repetitions, of the given one.

    >>> select_slots({"lengths": np.array([3, 5]), "samples": ["a", "b"]}, np.array([1, 1, 0]))
    {'lengths': array([5, 5, 3]), 'samples': ['b', 'b', 'a']}
    """
    return combine_snapshots(
        lambda v: v[0][slots] if isinstance(v[0], np.ndarray) else [v[0][i] for i in slots.tolist()], [snapshot]
    )
