"""The contract of users: who answers when the agent has finished a turn."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from textgym.batch import TextBatch

__all__ = ["Reply", "User"]


class Reply(NamedTuple):
    """What a user says to the agent's turn."""

    text: str
    """The words. They are written into the episode's text, inside of the environment's ``reply_format``."""
    outcome: str | None = None
    """None where the dialogue goes on. Otherwise it ends, for this reason: ``"success"``, ``"failure"`` or another."""


@runtime_checkable
class User(Protocol):
    """Answers agents whose turns have ended.

    A user is a stateless object: the episode's text so far, ``batch.turns``, is all that it has to go by, and the
    generators, which belong to the episodes, are its only randomness. So snapshots and seeds hold for it too.
    """

    def __call__(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> Sequence[Reply]:
        """Return B replies to the B episodes of ``batch``, each with its generator."""
        ...
