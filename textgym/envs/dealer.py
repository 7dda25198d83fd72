"""Who starts where: the slots' generators, and the dealing of drawn prompts to groups of episodes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.envs.parts import Parts
from textgym.envs.starts import Start, starts_from_options
from textgym.prompts import Curriculum, Sample

__all__ = ["Deal", "Dealer"]


class Deal(NamedTuple):
    """How far the dealing of one drawn prompt to the episodes of its group has come."""

    group: int
    """Number of the group, counted from 1; 0 before the first."""
    left: int
    """Episodes of the group that have not started yet."""
    start: Start | None
    """Where they start."""


class Dealer:
    """Gives each new episode its start.

    Every slot has a generator of its own and draws from it once per episode; with ``group_size`` G, one draw serves
    the next G episodes, whichever slots they are in.
    """

    def __init__(self, parts: Parts, num_envs: int) -> None:
        self.parts = parts
        self.rngs: list[np.random.Generator] = [np.random.default_rng() for _ in range(num_envs)]
        self.deal = Deal(0, 0, None)

    def seed(self, rngs: Sequence[np.random.Generator | None]) -> None:
        """Replace generators where one is given. Replacing all of them also restarts the dealing of groups."""
        self.rngs = [old if new is None else new for old, new in zip(self.rngs, rngs, strict=True)]
        if all(rng is not None for rng in rngs):
            self.deal = Deal(0, 0, None)

    def restart_groups(self) -> None:
        """Let the next episode begin a new group, whatever is left of the current one."""
        self.deal = Deal(self.deal.group, 0, None)

    def starts(self, slots: npt.NDArray[np.int64], options: Mapping[str, Any] | None) -> tuple[list[Start], list[int]]:
        """Return the starts of new episodes in n slots, and their groups: 0 where ``options`` say where to start."""
        if options:
            starts = starts_from_options(options, len(slots), self.parts, [self.rngs[i] for i in slots.tolist()])
            return starts, [0] * len(slots)
        starts, groups = [], []
        for slot in slots.tolist():
            group, left, start = self.deal
            if left == 0 or start is None:
                sample = self.parts.prompts.draw(self.rngs[slot])
                start = Start(sample, self.parts.encoder(sample), None)
                group, left = group + 1, self.parts.group_size
            self.deal = Deal(group, left - 1, start)
            starts.append(start)
            groups.append(group)
        return starts, groups

    def hear(self, samples: Sequence[Sample], scores: npt.NDArray[np.float64]) -> None:
        """Tell a prompt source that minds it how K episodes ended."""
        if isinstance(self.parts.prompts, Curriculum):
            self.parts.prompts.hear(samples, scores)

    def get_curriculum(self) -> dict[str, Any] | None:
        """Return how far a curriculum has come, as JSON can hold it; None where there is none."""
        prompts = self.parts.prompts
        return prompts.get_state() if isinstance(prompts, Curriculum) else None

    def set_curriculum(self, state: Mapping[str, Any] | None) -> None:
        """Continue a curriculum from a state of ``get_curriculum``."""
        if isinstance(self.parts.prompts, Curriculum) and state is not None:
            self.parts.prompts.set_state(state)

    def get_rng_states(self) -> list[dict[str, Any]]:
        """Return the N generators' states, made of strings and integers only, so that JSON can hold them."""
        return [dict(rng.bit_generator.state) for rng in self.rngs]

    def set_rng_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Set the N generators' states.

        Raises:
            ValueError: If there are not N of them.
        """
        if len(states) != len(self.rngs):
            raise ValueError(
                f"{len(states)} generator states for {len(self.rngs)} slots; make the environment with "
                f"num_envs={len(states)} to continue with them"
            )
        for rng, state in zip(self.rngs, states, strict=True):
            rng.bit_generator.state = state
