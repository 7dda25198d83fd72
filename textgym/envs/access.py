"""What each of the three interfaces lets agents and tools read and restore, through ``env.unwrapped``."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from textgym.envs.core import Core
from textgym.envs.time_limit import spec_with_budget
from textgym.scorers.base import get_states, set_states
from textgym.tokenizers import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CoreAccess", "by_entry", "select_slots"]

PER_SLOT = ("action_masks", "get_rng_states", "parked", "render", "running")
"""Attributes and methods with one result per slot."""


class CoreAccess:
    """The part of the public surface that is the same for one episode and for N."""

    core: Core
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What ``gym.make`` made; its ``max_episode_steps`` is the budget, where Gymnasium's wrappers look for it."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec_with_budget(spec, self.max_new_tokens)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer between ids and text."""
        return self.core.parts.tokenizer

    @property
    def pad_token_id(self) -> int:
        """V, the id that fills the token window after the text; no token has it."""
        return self.core.pad_token_id

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends an episode, if the tokenizer has one."""
        return self.core.parts.tokenizer.eos_token_id

    @property
    def window(self) -> int:
        """L, tokens of the longest prompt and the longest completion together."""
        return self.core.parts.window

    @property
    def max_new_tokens(self) -> int:
        """The budget of an episode, in tokens."""
        return self.core.parts.max_new_tokens

    @property
    def num_actions(self) -> int:
        """Number of actions, V with ``actions="vocabulary"``."""
        return self.core.num_actions

    @property
    def has_turns(self) -> bool:
        """Whether a simulated user writes into the text, so that not all tokens after the prompt are actions."""
        return self.core.conversation is not None

    @property
    def has_illegal_actions(self) -> bool:
        """Whether an action can be illegal in some state, so that ``action_masks()`` is worth asking for."""
        return not self.core.legality.all_legal

    @property
    def running(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, slots whose episode goes on; the others wait for a reset or are parked. A copy."""
        return self.core.running.copy()

    @property
    def parked(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, slots that do not play until all are reset, because ``num_episodes`` have started. A copy."""
        return self.core.parked

    @property
    def reward_names(self) -> tuple[str, ...]:
        """K names, the scorer's parts in the order of ``info["reward_vector"]``."""
        return self.core.reward_names

    def set_progress(self, progress: float) -> None:
        """Tell a scorer that changes in the course of training which share of it, 0 to 1, is done.

        Raises:
            ValueError: If ``progress`` is outside of that.
        """
        self.core.set_progress(progress)

    def get_training_state(self) -> dict[str, Any]:
        """Return what has moved in the course of training and outlives episodes, as JSON can hold it.

        ``kl_penalty`` where there is a KL term, and the states of the scorers, of the reward's own scorers and of the
        prompt source, where they have one.
        """
        kl = self.core.parts.kl
        return {
            "kl_penalty": None if kl is None else kl.coefficient.coef,
            "scorers": get_states(self.core.parts.scorer),
            "reward_scorers": [get_states(scorer) for scorer in self.core.parts.reward.scorers],
            "prompts": self.core.parts.prompts.get_state(),
        }

    def set_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_training_state`` of an equally configured environment returned.

        Raises:
            ValueError: If it is of another scorer.
        """
        set_states(self.core.parts.scorer, state["scorers"])
        for scorer, states in zip(self.core.parts.reward.scorers, state["reward_scorers"], strict=True):
            set_states(scorer, states)
        if state["prompts"] is not None:
            self.core.parts.prompts.set_state(state["prompts"])
        if self.core.parts.kl is not None and state["kl_penalty"] is not None:
            self.core.parts.kl.coefficient.coef = state["kl_penalty"]

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of O(N L) integers from which ``set_state`` continues exactly."""
        return self.core.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of this or an equally configured environment.

        Raises:
            ValueError: If the snapshot is of another number of slots or another window.
        """
        self.core.set_state(state)

    def get_rng_states(self) -> list[dict[str, Any]]:
        """Return the N generators' states, which JSON can hold."""
        return self.core.assignment.get_rng_states()

    def set_rng_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Set the N generators' states."""
        self.core.assignment.set_rng_states(states)

    def clone(self) -> "Self":
        """Return an independent environment in the same state, sharing scorer, prompts and tokenizer.

        Scorers do not observe its episodes, so that looking ahead in it leaves no trace in them; a prompt source that
        has a state is copied.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        # A space has a generator, from which sample() draws; Stable-Baselines3's list is written to.
        for name in ("action_space", "single_action_space", "reset_infos"):
            if name in twin.__dict__:
                twin.__dict__[name] = copy.deepcopy(twin.__dict__[name])
        parts = replace(self.core.parts, observes_episodes=False)
        if parts.kl is not None:  # its coefficient moves as episodes end
            parts = replace(parts, kl=replace(parts.kl, coefficient=copy.copy(parts.kl.coefficient)))
        if (prompts_state := parts.prompts.get_state()) is not None:
            parts = replace(parts, prompts=copy.copy(parts.prompts))
            parts.prompts.set_state(copy.deepcopy(prompts_state))
        twin.core = Core(parts, self.core.num_envs, max_reward=self.core.max_reward)
        twin.set_state(self.get_state())
        if self.core._log_probs is not None:  # given for the next step, which a snapshot does not belong to
            twin.core.set_log_probs(self.core._log_probs.copy())
        return twin

    def _per_slot(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Read an attribute, or call a method, and return N results; all slots share what is not per slot."""
        value = getattr(self, name)
        if callable(value):
            value = value(*args, **kwargs)
        return list(value) if name in PER_SLOT and value is not None else [value] * self.core.num_envs


def by_entry(function: Callable[[Sequence[Any]], Any], snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine snapshots of ``get_state`` entry by entry.

    Args:
        function: Called with the arrays, or with the lists, that stand under one key; either has a value per slot.
        snapshots: Of equally configured environments, not necessarily of equally many slots. What is not per slot is
            taken from the first.
    """
    made = {}
    for name, first in snapshots[0].items():
        values = [snapshot[name] for snapshot in snapshots]
        if name == "conversation" and first is not None:
            made[name] = by_entry(function, values)
        elif name != "prompts" and isinstance(first, np.ndarray | list):
            made[name] = function(values)
        else:  # the prompt source's state is its own affair, whatever it is made of
            made[name] = first
    return made


def select_slots(snapshot: Mapping[str, Any], slots: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the snapshot of M slots, slot i being ``slots[i]`` of the given one; (M,) int64, with repetitions.

    >>> select_slots({"lengths": np.array([3, 5]), "samples": ["a", "b"]}, np.array([1, 1, 0]))
    {'lengths': array([5, 5, 3]), 'samples': ['b', 'b', 'a']}
    """
    return by_entry(
        lambda v: v[0][slots] if isinstance(v[0], np.ndarray) else [v[0][i] for i in slots.tolist()], [snapshot]
    )
