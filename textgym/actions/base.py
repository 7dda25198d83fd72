"""The contract of action spaces: what an action means."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer

__all__ = ["Actions"]


class Actions(Protocol):
    """Maps the agent's ``Discrete(n)`` actions to token ids."""

    def size(self, tokenizer: Tokenizer) -> int:
        """Return n, the number of actions.

        Raises:
            ValueError: If the actions do not fit the tokenizer.
        """
        ...

    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return the (B,) token ids that (B,) actions in ``0 .. n-1`` write."""
        ...

    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, n) legal actions, given the (B, V) legal tokens."""
        ...
