"""The contract of observations: what the agent sees."""

from typing import Any, Protocol

import gymnasium as gym

from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer

__all__ = ["Observation"]


class Observation(Protocol):
    """Turns episodes into what the agent sees, for all slots at once."""

    def space(self, tokenizer: Tokenizer, window: int, max_new_tokens: int) -> gym.Space[Any]:
        """Return the space of one episode's observation. ``window`` is L, in tokens."""
        ...

    def __call__(self, batch: TextBatch) -> Any:
        """Return fresh arrays with B in front: (B, ...), or a dict of such arrays for a ``Dict`` space."""
        ...
