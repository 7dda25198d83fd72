"""What one token adds to a text, looked up where that does not depend on the tokens around it."""

from collections.abc import Iterable
from weakref import WeakKeyDictionary, proxy

import numpy as np

from textgym.tokenizers.base import Tokenizer

__all__ = ["TokenPieces"]

_TABLES: "WeakKeyDictionary[Tokenizer, TokenPieces]" = WeakKeyDictionary()
_REACH = 16
"""Tokens that are decoded again at most. A character of UTF-8 spans four."""


class TokenPieces(dict[int, str | None]):
    r"""The text of each token that adds the same wherever it stands, None of a token that may end inside a character.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> tokenizer = ByteTokenizer()
    >>> pieces = TokenPieces.of(tokenizer)
    >>> pieces[97], pieces[256], pieces[0xC3], pieces.last(reversed([97, 0xC3, 256, 0xA9]))
    ('a', '', None, 'é')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        ids = np.flatnonzero(tokenizer.token_mask)[:1000].tolist()
        self._neighbour = next((i for i in ids if self._stands_alone(i)), None)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenPieces":
        """Return the table of ``tokenizer``, the same one each time where the tokenizer can be a key."""
        try:
            table = _TABLES.get(tokenizer)
            if table is None:
                table = _TABLES[tokenizer] = cls(proxy(tokenizer))  # a table that held its key would keep it alive
        except TypeError:  # it has no hash or takes no weak references
            table = cls(tokenizer)
        return table

    def last(self, newest_first: Iterable[int]) -> str:
        """Return what the last token adds to a text, given the ids of the text from the last one on backwards."""
        tail: list[int] = []
        for i in newest_first:
            piece = self[i]
            if not tail and piece == "":
                return ""
            if piece != "":
                tail.append(i)
            if (piece and len(tail) > 1) or len(tail) == _REACH:  # what is before this token makes no difference
                break
        tail.reverse()
        decode = self._tokenizer.decode
        return decode(tail)[len(decode(tail[:-1])) :]

    def __missing__(self, key: int) -> str | None:
        piece: str | None = None
        if self._neighbour is not None:
            decode, near = self._tokenizer.decode, self._neighbour
            around, text = decode([near]), decode([key])
            if "\ufffd" not in text and decode([near, key, near]) == around + text + around:
                piece = text
        self[key] = piece
        return piece

    def _stands_alone(self, key: int) -> bool:
        text = self._tokenizer.decode([key])
        return bool(text.strip()) and "\ufffd" not in text and self._tokenizer.decode([key, key]) == 2 * text
