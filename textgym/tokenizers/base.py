"""The contract of tokenizers, padding to a model's vocabulary, and incremental decoding."""

import codecs
import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary, proxy

import numpy as np
import numpy.typing as npt

__all__ = ["BytePieces", "PaddedTokenizer", "TokenPieces", "Tokenizer", "as_utf8", "fingerprint", "unused_text"]


@runtime_checkable
class Tokenizer(Protocol):
    """Maps text to token ids, and ids to the text that they append.

    ``decode`` decodes a *continuation*: if a sequence of ids is cut anywhere between two characters, the texts of the
    parts concatenate to the text of the whole. A token that starts a word therefore keeps its leading space even if it
    is the first one, so that prompt + completion is the whole text with every tokenizer.

    A tokenizer may also have ``bos_token_id: int | None``, the id used for an empty prompt.
    """

    @property
    def vocab_size(self) -> int:
        """Size of the action space; with a model, the width of its logits."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The id that ends a text, or None."""
        ...

    @property
    def token_mask(self) -> npt.NDArray[np.bool_]:
        """(vocab_size,) bool, False for ids that are not tokens (padding of the vocabulary)."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special tokens around it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``.

        Special tokens and ids that are not tokens add nothing. Bytes that are not UTF-8 become U+FFFD, but an
        incomplete character at the end is left out.
        """
        ...

    def token_text(self, token_id: int) -> str:
        """Return one token for display; special tokens have a visible name (``"<eos>"``)."""
        ...


class PaddedTokenizer:
    """A tokenizer padded to the width of a model's logits with ids that are not tokens.

    Args:
        tokenizer: Any ``Tokenizer``.
        vocab_size: The width of the logits.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> padded = PaddedTokenizer(ByteTokenizer(), 260)
    >>> padded.vocab_size, padded.token_mask.sum(), padded.decode([72, 105, 259])
    (260, np.int64(257), 'Hi')
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        highest = int(np.flatnonzero(tokenizer.token_mask)[-1])
        if highest >= vocab_size:
            raise ValueError(
                f"the model's vocabulary of {vocab_size} ids is too small for the tokenizer, "
                f"whose highest id is {highest}"
            )
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id: int | None = getattr(tokenizer, "bos_token_id", None)
        self.token_mask = np.zeros(vocab_size, dtype=np.bool_)
        self.token_mask[: highest + 1] = tokenizer.token_mask[: highest + 1]

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special tokens around it."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; padding ids add nothing."""
        return self.tokenizer.decode(ids)

    def token_text(self, token_id: int) -> str:
        """Return one token for display."""
        if 0 <= token_id < self.vocab_size and not self.token_mask[token_id]:
            return unused_text(token_id)
        return self.tokenizer.token_text(token_id)


class BytePieces(dict[int, bytes]):
    r"""Table of the bytes of each id, for tokenizers whose tokens are bytes; unknown ids have none.

    >>> BytePieces({0: b"a", 1: b"\xff", 2: b"\xe2\x82"}).decode([0, 1, 0, 9, 2])
    'a\ufffda'
    """

    def __missing__(self, key: int) -> bytes:
        return b""

    def decode(self, ids: Sequence[int]) -> str:
        """Decode the bytes of ``ids`` as UTF-8: invalid ones as U+FFFD, an incomplete end left out."""
        return codecs.utf_8_decode(b"".join(map(self.__getitem__, ids)), "replace", False)[0]

    def token_text(self, token_id: int, special: Mapping[int, str]) -> str:
        r"""Return a special token's name, else the token's text with ``\xc3`` for a byte that is not a character."""
        if token_id in special:
            return special[token_id]
        if token_id not in self:
            return unused_text(token_id)
        return self[token_id].decode("utf-8", "backslashreplace")


_TABLES: "WeakKeyDictionary[Tokenizer, TokenPieces]" = WeakKeyDictionary()
_MAX_CONTEXT = 16
"""Maximum tokens decoded again for one piece. A character of UTF-8 spans four bytes."""


class TokenPieces(dict[int, str | None]):
    r"""Table of the text that each token appends in any context; None for tokens that may split a character.

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
        self._neighbour = next((i for i in ids if self._is_context_free(i)), None)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenPieces":
        """Return the table of ``tokenizer``, cached if the tokenizer is hashable."""
        try:
            table = _TABLES.get(tokenizer)
            if table is None:
                table = _TABLES[tokenizer] = cls(proxy(tokenizer))  # a strong reference would keep the key alive
        except TypeError:  # not hashable, or without weak references
            table = cls(tokenizer)
        return table

    def last(self, newest_first: Iterable[int]) -> str:
        """Return the text that the last token appends, given the ids from the last one backwards."""
        tail: list[int] = []
        for i in newest_first:
            piece = self[i]
            if not tail and piece == "":
                return ""
            if piece != "":
                tail.append(i)
            if (piece and len(tail) > 1) or len(tail) == _MAX_CONTEXT:  # earlier tokens make no difference
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

    def _is_context_free(self, key: int) -> bool:
        text = self._tokenizer.decode([key])
        return bool(text.strip()) and "\ufffd" not in text and self._tokenizer.decode([key, key]) == 2 * text


_FINGERPRINTS: "WeakKeyDictionary[Tokenizer, str]" = WeakKeyDictionary()


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return 16 hexadecimal digits that tell whether the ids of two tokenizers mean the same tokens.

    It is the start of the SHA-256 of each id and its ``token_text``, without ids that are not tokens, so that padding
    to a model's vocabulary makes no difference. It is cached if the tokenizer is hashable.

    >>> from textgym.tokenizers import ByteTokenizer, CharTokenizer
    >>> fingerprint(ByteTokenizer())
    'e4fb73bbfbe625fa'
    >>> fingerprint(PaddedTokenizer(ByteTokenizer(), 260)) == fingerprint(ByteTokenizer())
    True
    >>> fingerprint(CharTokenizer("ab")) == fingerprint(CharTokenizer("ba"))
    False
    """
    try:
        if (known := _FINGERPRINTS.get(tokenizer)) is not None:
            return known
    except TypeError:  # not hashable, or without weak references
        pass
    digest = hashlib.sha256()
    for i in np.flatnonzero(tokenizer.token_mask).tolist():
        digest.update(f"{i} {json.dumps(tokenizer.token_text(i))}\n".encode())  # repr depends on Python's version
    found = digest.hexdigest()[:16]
    with contextlib.suppress(TypeError):
        _FINGERPRINTS[tokenizer] = found
    return found


def as_utf8(text: str) -> str:
    """Return ``text`` with each lone surrogate, which UTF-8 cannot encode, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def unused_text(token_id: int) -> str:
    """Return an id that is not a token for display."""
    return f"<unused {token_id}>"
