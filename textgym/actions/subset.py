"""A small action space over a large vocabulary."""

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from textgym.actions.base import Actions
from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer, token_ids

__all__ = ["Subset"]


class Subset(Actions):
    """Some tokens only: action i writes the i-th of the given tokens.

    Unlike a constraint, which masks tokens of the full space, this makes the space itself small, so that an
    agent without masks, such as SB3's PPO with an MLP policy, explores only what is meant.

    Args:
        tokens: Token ids, or texts of single tokens as ``tokenizer.token_text`` shows them (``" good"``).
        eos: Whether EOS is appended as the last action, where the tokenizer has one and it is not given.

    Raises:
        TypeError: If ``tokens`` is one text.
        ValueError: If ``tokens`` is empty; from ``bind``, if one of them is not a token of the tokenizer.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> Subset(["a", "b"]).size(ByteTokenizer())
    3
    """

    def __init__(self, tokens: Sequence[int | str], *, eos: bool = True) -> None:
        if isinstance(tokens, str):
            raise TypeError(f"expected a list of tokens, got one text; write [{tokens!r}]")
        if len(tokens) == 0:
            raise ValueError("actions need at least one token, got none")
        self.tokens = tuple(tokens)
        self.eos = eos
        self._ids: npt.NDArray[np.int64] | None = None

    def bind(self, tokenizer: Tokenizer) -> Self:
        """Return the same actions with their tokens looked up in ``tokenizer``."""
        bound = copy.copy(self)
        bound._ids = self._look_up(tokenizer)
        return bound

    def size(self, tokenizer: Tokenizer) -> int:
        """Return the number of tokens, EOS included."""
        return len(self._look_up(tokenizer))

    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return the (B,) token ids of (B,) actions."""
        return self._token_ids(batch)[actions]

    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, n) columns of the (B, V) mask that belong to the tokens."""
        return token_mask[:, self._token_ids(batch)]

    def token_mask(self, mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) with the (B, n) mask in the tokens' columns."""
        tokens = np.zeros((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        tokens[:, self._token_ids(batch)] = mask
        return tokens

    def _token_ids(self, batch: TextBatch) -> npt.NDArray[np.int64]:
        return self._look_up(batch.tokenizer) if self._ids is None else self._ids

    def _look_up(self, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
        ids = token_ids(tokenizer, self.tokens)
        if self.eos and tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
            ids = np.append(ids, tokenizer.eos_token_id)
        return ids
