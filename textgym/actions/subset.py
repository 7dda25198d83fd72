"""A small action space over a large vocabulary."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer

__all__ = ["Subset"]


class Subset:
    """Some tokens only: action i writes the i-th of the given tokens.

    Unlike a constraint, which masks tokens of the full space, this makes the space itself small, so that an
    agent without masks, such as SB3's PPO with an MLP policy, explores only what is meant.

    Args:
        tokens: Token ids, or strings that are one token each.
        eos: Whether EOS is appended as the last action, where the tokenizer has one and it is not given.

    Raises:
        ValueError: If ``tokens`` is empty or holds one token twice; from ``size``, if a string is not
            exactly one token or an id is outside the vocabulary.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> Subset(["a", "b"]).size(ByteTokenizer())
    3
    """

    def __init__(self, tokens: Sequence[int | str], *, eos: bool = True) -> None:
        if len(tokens) == 0 or len(set(tokens)) != len(tokens):
            raise ValueError(f"actions need at least one token and each only once, got {list(tokens)!r}")
        self.tokens = tuple(tokens)
        self.eos = eos
        self._ids: npt.NDArray[np.int64] | None = None

    def size(self, tokenizer: Tokenizer) -> int:
        """Return the number of tokens, EOS included."""
        return len(self._resolve(tokenizer))

    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return the (B,) token ids of (B,) actions."""
        return self._resolve(batch.tokenizer)[actions]

    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, n) columns of the (B, V) mask that belong to the tokens."""
        return token_mask[:, self._resolve(batch.tokenizer)]

    def _resolve(self, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
        if self._ids is None:
            ids = [token if isinstance(token, int) else _single_token(token, tokenizer) for token in self.tokens]
            outside = [i for i in ids if not 0 <= i < tokenizer.vocab_size]
            if outside:
                raise ValueError(f"token ids {outside} are outside the vocabulary of {tokenizer.vocab_size}")
            if self.eos and tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
                ids.append(tokenizer.eos_token_id)
            self._ids = np.array(ids, dtype=np.int64)
        return self._ids


def _single_token(text: str, tokenizer: Tokenizer) -> int:
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens {ids}, an action writes exactly one")
    return ids[0]
