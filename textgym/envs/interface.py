"""What the three interfaces share: public attributes, snapshots, clones, rendering and the time limit.

A ``TimeLimit`` shorter than the token budget would cut each text before it is scored, and so remove the reward.
``gym.make(id, max_episode_steps=n)`` puts that wrapper around the finished environment without passing the limit on, so
``make_time_limit`` and ``settle_time_limits`` inspect their callers.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from textgym.envs.core import Core
from textgym.scorers.base import get_states, set_states
from textgym.tokenizers import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CoreInterface", "combine_snapshots", "make_time_limit", "select_slots", "settle_time_limits"]

PER_SLOT = ("action_masks", "get_rng_states", "parked", "render", "running")
"""Attributes and methods with one result per slot."""


class CoreInterface:
    """The part of the public surface that is the same for one episode and for N."""

    core: Core
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What ``gym.make`` made; its ``max_episode_steps`` is the budget, where Gymnasium's wrappers look for it."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = _spec_with_budget(spec, self.max_new_tokens)

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
        """L, tokens of the longest prompt and the longest completion together."""
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
        """Whether an action can be invalid in some state, so that ``action_masks()`` is worth asking for."""
        return not self.core.masking.all_valid

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
        self.core.components.set_progress(progress)

    def get_training_state(self) -> dict[str, Any]:
        """Return what has moved in the course of training and outlives episodes, as JSON can hold it.

        ``kl_penalty`` where there is a KL term, and the states of the scorers, of the reward's own scorers and of the
        prompt source, where they have one.
        """
        kl = self.core.components.kl
        return {
            "kl_penalty": None if kl is None else kl.coefficient.coef,
            "scorers": get_states(self.core.components.scorer),
            "reward_scorers": [get_states(scorer) for scorer in self.core.components.reward.scorers],
            "prompts": self.core.components.prompts.get_state(),
        }

    def set_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_training_state`` of an equally configured environment returned.

        Raises:
            ValueError: If it is of another scorer.
        """
        set_states(self.core.components.scorer, state["scorers"])
        for scorer, states in zip(self.core.components.reward.scorers, state["reward_scorers"], strict=True):
            set_states(scorer, states)
        if state["prompts"] is not None:
            self.core.components.prompts.set_state(state["prompts"])
        if self.core.components.kl is not None and state["kl_penalty"] is not None:
            self.core.components.kl.coefficient.coef = state["kl_penalty"]

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
        twin.core = Core(self.core.components.clone(), self.core.num_envs, max_reward=self.core.max_reward)
        twin.set_state(self.get_state())
        if self.core._log_probs is not None:  # given for the next step, which a snapshot does not belong to
            twin.core.set_log_probs(self.core._log_probs.copy())
        return twin

    def _text(self, slot: int) -> str:
        """Return prompt, bar and completion so far; an empty string before the first reset."""
        core = self.core
        start, end = core.prompt_lengths[slot], core.lengths[slot]
        completion = core.components.tokenizer.decode(core.ids[slot, start:end].tolist())
        return f"{core.samples[slot].prompt}|{completion}" if end else ""

    def _per_slot(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Read an attribute, or call a method, and return N results; all slots share what is not per slot."""
        value = getattr(self, name)
        if callable(value):
            value = value(*args, **kwargs)
        return list(value) if name in PER_SLOT and value is not None else [value] * self.core.num_envs


def combine_snapshots(
    function: Callable[[Sequence[Any]], Any], snapshots: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Combine snapshots of ``get_state`` entry by entry.

    Args:
        function: Called with the arrays, or with the lists, that stand under one key; either has a value per slot.
        snapshots: Of equally configured environments, not necessarily of equally many slots. What is not per slot is
            taken from the first.
    """
    made = {}
    for name, first in snapshots[0].items():
        values = [snapshot[name] for snapshot in snapshots]
        if name == "user_turns" and first is not None:
            made[name] = combine_snapshots(function, values)
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
    return combine_snapshots(
        lambda v: v[0][slots] if isinstance(v[0], np.ndarray) else [v[0][i] for i in slots.tolist()], [snapshot]
    )


def make_time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return ``max_episode_steps`` of the ``gym.make`` call that is constructing ``env``; None without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_locals.get("self") is env:
        frame = frame.f_back
    if frame is None or frame.f_code is not gym.make.__code__:
        return None
    limit: int | None = frame.f_locals.get("max_episode_steps")
    return getattr(frame.f_locals.get("env_spec"), "max_episode_steps", None) if limit is None else limit


def settle_time_limits(env: gym.Env[Any, Any], budget: int, *, whole_stack: bool) -> None:
    """Check the ``TimeLimit`` wrappers through which ``env`` is being reset, and switch off those equal to the budget.

    Such a wrapper would call a text that ends at its last token truncated, whatever ``time_limit`` says.

    Args:
        env: The environment, whose ``reset`` calls this.
        budget: Tokens.
        whole_stack: Whether to look beyond the first caller that is no wrapper of ``env``. Gymnasium's checker, a plain
            function that stands between wrappers in the first reset, is one.

    Raises:
        ValueError: If a wrapper's limit is shorter than the budget.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if caller is not env and not (isinstance(caller, gym.Wrapper) and caller.unwrapped is env):
            if not whole_stack:
                return
        elif isinstance(caller, gym.wrappers.TimeLimit):
            limit = caller._max_episode_steps
            if limit < budget:
                raise ValueError(
                    f"a TimeLimit of {limit} steps is around an environment whose budget is {budget} tokens: its texts "
                    f"would be cut before they are scored. Give max_new_tokens={limit} to the environment instead"
                )
            if limit == budget:
                _ = caller.spec  # is cached where there is one, and goes on telling the limit
                caller._max_episode_steps = sys.maxsize
        frame = frame.f_back


def _spec_with_budget(spec: EnvSpec | None, budget: int) -> EnvSpec | None:
    """Return a copy of a spec with the budget as ``max_episode_steps``, where wrappers look for it."""
    if spec is None:
        return None
    copied = copy.copy(spec)
    copied.max_episode_steps = budget
    return copied
