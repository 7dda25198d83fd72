"""The language model that training started from, which a KL penalty holds the policy to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from textgym_agents.episodes import Episodes
from textgym_agents.policy import Evaluation, LMPolicy

__all__ = ["ReferencePolicy"]


class ReferencePolicy:
    """The policy as it is now, kept in the cheapest way that the policy allows.

    With low-rank adapters that are still at zero it is the policy itself with its adapters off, which takes no memory;
    else a frozen copy, which shares with the policy the weights that do not train.

    Attributes:
        copy: The frozen copy, or None.
    """

    def __init__(self, policy: LMPolicy) -> None:
        self._policy = policy
        self.copy = None if policy.backbone.has_idle_adapters else policy.frozen_copy()

    def forget_copy_unless_in(self, checkpoint: Path) -> None:
        """Be the policy with its adapters off again, if it was that when the checkpoint was saved."""
        if not (checkpoint / "reference").is_dir():
            self.copy = None

    @contextmanager
    def policy(self) -> Iterator[LMPolicy]:
        """Context manager that yields the reference policy; do not act inside."""
        if self.copy is not None:
            yield self.copy
            return
        with self._policy.backbone.without_adapters():
            yield self._policy

    @torch.no_grad()
    def evaluate(self, episodes: Episodes) -> Evaluation:
        """Return what it says of the episodes that the policy wrote, without gradients."""
        with self.policy() as policy:
            return policy.evaluate(episodes)
