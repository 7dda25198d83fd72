"""The contract of action spaces: what an action means."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer

__all__ = ["Actions"]


class Actions(ABC):
    """Maps the agent's ``Discrete(n)`` actions to token ids."""

    def bind(self, tokenizer: Tokenizer) -> Self:
        """Return the actions of an environment with this tokenizer; by default these very ones.

        Raises:
            ValueError: If the actions do not fit the tokenizer.
        """
        return self

    @abstractmethod
    def size(self, tokenizer: Tokenizer) -> int:
        """Return n, the number of actions.

        Raises:
            ValueError: If the actions do not fit the tokenizer.
        """

    @abstractmethod
    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return the (B,) token ids that (B,) actions in ``0 .. n-1`` write."""

    @abstractmethod
    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, n) legal actions, given the (B, V) legal tokens."""

    def token_mask(self, mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, V) tokens that the legal ones of (B, n) actions write, for the KL penalty.

        The default asks ``token_ids`` about every legal action of every episode.
        """
        rows, actions = mask.nonzero()
        tokens = np.zeros((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        tokens[rows, self.token_ids(actions, batch.select(rows))] = True
        return tokens
