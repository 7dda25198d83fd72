"""An action is a token id."""

import numpy as np
import numpy.typing as npt

from textgym.actions.base import Actions
from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer

__all__ = ["Vocabulary"]


class Vocabulary(Actions):
    """The full vocabulary: action i writes token i, so n = V."""

    def size(self, tokenizer: Tokenizer) -> int:
        """Return V."""
        return tokenizer.vocab_size

    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return ``actions``."""
        return actions

    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return ``token_mask``."""
        return token_mask

    def token_mask(self, mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return ``mask``."""
        return mask
