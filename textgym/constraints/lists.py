"""Constraints that are the same in every state: tokens that are allowed, tokens that are banned."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer, token_ids

__all__ = ["AllowTokens", "BanTokens"]


class AllowTokens:
    """Only the listed tokens are legal, and EOS.

    Args:
        tokens: Ids, or texts that are one token each; see :func:`~textgym.tokenizers.token_ids`.
        allow_eos: Whether EOS is legal without being listed.

    Raises:
        TypeError: If ``tokens`` is one text or holds something that is neither int nor str.
        ValueError: From ``mask``, where the tokenizer is first known: if an entry is not one of its tokens.

    >>> AllowTokens(["a", "b"]).mask(TextBatch.from_texts([""])).nonzero()[1]
    array([ 97,  98, 256])
    """

    def __init__(self, tokens: Iterable[int | str], allow_eos: bool = True) -> None:
        self._row = ConstantRow(tokens, legal=True, allow_eos=allow_eos)

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, read-only, the same row B times."""
        return self._row.repeated(batch)


class BanTokens:
    """The listed tokens are illegal.

    Args:
        tokens: Ids, or texts that are one token each; see :func:`~textgym.tokenizers.token_ids`.

    Raises:
        TypeError: If ``tokens`` is one text or holds something that is neither int nor str.
        ValueError: From ``mask``, where the tokenizer is first known: if an entry is not one of its tokens.

    >>> (~BanTokens(["<eos>", 10]).mask(TextBatch.from_texts([""]))).nonzero()[1]
    array([ 10, 256])
    """

    def __init__(self, tokens: Iterable[int | str]) -> None:
        self._row = ConstantRow(tokens, legal=False)

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, read-only, the same row B times."""
        return self._row.repeated(batch)


class ConstantRow:
    """One row of a mask, worked out when a tokenizer is first seen: listed tokens are ``legal``, all others not so."""

    def __init__(self, tokens: Iterable[int | str], legal: bool, allow_eos: bool = False) -> None:
        if isinstance(tokens, str):
            raise TypeError(f"expected a list of tokens, got one text; write [{tokens!r}]")
        self.tokens = tuple(tokens)
        for token in self.tokens:
            if not isinstance(token, int | str | np.integer):
                raise TypeError(f"a token is named by its id or its text, got {type(token).__name__} {token!r}")
        self.legal = legal
        self.allow_eos = allow_eos
        self._tokenizer: Tokenizer | None = None
        self._row = np.zeros(0, dtype=np.bool_)

    def repeated(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, a read-only view of the row."""
        tokenizer = batch.tokenizer
        if tokenizer is not self._tokenizer:
            row = np.full(tokenizer.vocab_size, not self.legal, dtype=np.bool_)
            row[token_ids(tokenizer, self.tokens)] = self.legal
            if self.allow_eos and tokenizer.eos_token_id is not None:
                row[tokenizer.eos_token_id] = True
            self._tokenizer, self._row = tokenizer, row
        return np.broadcast_to(self._row, (len(batch), len(self._row)))
