"""Planning a whole completion once, then playing it token by token."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.decoding.decoder import Decoder
from textgym_agents.decoding.simulation import check_state, text_episodes
from textgym_agents.policy import ActionOutput, Policy

__all__ = ["Planner", "Plans", "empty_plans"]


class Plans(NamedTuple):
    """A whole text per slot, and what the policy says of the tokens that it is still to write."""

    ids: npt.NDArray[np.int64]
    """(N, L) int64, right-padded with V."""
    log_probs: npt.NDArray[np.float32]
    """(N, L) float32, log pi of the token in each column, in nats."""
    values: npt.NDArray[np.float32]
    """(N, L) float32, V of the text before the token in each column."""
    is_action: npt.NDArray[np.bool_]
    """(N, L) bool, True where it is the policy that is to write the token, and not a simulated user."""

    def take_over(self, rows: npt.NDArray[Any], other: "Plans", sources: npt.NDArray[Any]) -> None:
        """Let the plans at ``rows`` become what the other's are at ``sources``; indices or (N,) bool."""
        self.ids[rows] = other.ids[sources]
        self.log_probs[rows] = other.log_probs[sources]
        self.values[rows] = other.values[sources]
        self.is_action[rows] = other.is_action[sources]


class Planner(Decoder):
    """Keeps a plan per slot while its text grows along it, and plans anew where a text does not or has just begun.

    The log-probabilities that it tells are the policy's: those of the plan itself are not known.

    Args:
        policy: Proposes the tokens.
        env: The environment that is being played, of any interface; its masks, ends and rewards are looked up ahead.
        seed: Of its own generator.
        device: Where tokens are drawn.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If its actions are not the policy's tokens.
    """

    def __init__(self, policy: Policy, env: Any, seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(policy.vocab_size, seed, device)
        self.env = text_episodes(env, policy)
        shape = self.env.core.ids.shape
        self.plans = empty_plans(shape, self.env.pad_token_id)
        self._next = np.full(len(self.plans.ids), -1)  # tokens of each text when the next of its plan is due

    @abstractmethod
    def plan(self, slots: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Return plans from the environment's present state; only those of the (N,) bool slots are looked at."""

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts, which the environment is at; see ``Policy.act``.

        Masks come from the environment, ``deterministic`` changes nothing.

        Raises:
            ValueError: If the texts are not the environment's present ones.
        """
        active = np.ones(len(ids), dtype=np.bool_) if active is None else active
        pad = self.env.pad_token_id
        lengths = (ids != pad).sum(axis=1)
        columns = np.minimum(lengths, ids.shape[1] - 1)
        rows = np.arange(len(ids))
        follows = ~active
        if ids.shape == self.plans.ids.shape:
            follows = ((self.plans.ids == ids) | (ids == pad)).all(axis=1) & (lengths == self._next)
        if (needed := active & ~follows).any():
            check_state(self.env, ids, needed)
            new = self.plan(needed, generator or self.generator)
            self.plans.take_over(needed, new, needed)
        is_due = self.plans.is_action & (np.arange(ids.shape[1]) > columns[:, None])
        self._next[active] = np.where(is_due.any(axis=1), is_due.argmax(axis=1), -1)[active]
        # What an idle slot does not matter, but must be legal.
        anything = 0 if action_masks is None else action_masks.argmax(axis=1)
        return ActionOutput(
            np.where(active, self.plans.ids[rows, columns], anything),
            self.plans.log_probs[rows, columns],
            self.plans.values[rows, columns],
        )


def empty_plans(shape: tuple[int, ...], pad_token_id: int) -> Plans:
    """Return plans of nothing: (N, L) pads."""
    floats = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    return Plans(np.full(shape, pad_token_id), *floats, np.zeros(shape, dtype=np.bool_))
