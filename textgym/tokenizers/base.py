"""The contract of tokenizers: how token ids, which are the state, are viewed as text."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["BytePieces", "PaddedTokenizer", "Tokenizer", "as_utf8", "unused_text"]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into token ids, and ids into the text that they add to what stands before them.

    ``decode`` is a view of a *continuation*: cut a sequence of ids anywhere between two characters, and the texts of
    the parts together are the text of the whole. A token that begins a word therefore keeps the space before it, also
    where it comes first, so that prompt + completion reads right with every tokenizer.

    A tokenizer may also have ``bos_token_id: int | None``, the id that stands for an empty prompt.
    """

    @property
    def vocab_size(self) -> int:
        """Width of the action space, which is the width of the model's logits where there is a model."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The id that ends a text, or None."""
        ...

    @property
    def token_mask(self) -> npt.NDArray[np.bool_]:
        """(vocab_size,) bool, True where the id is a token, False where it only pads the vocabulary's width."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special tokens around it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``.

        Special tokens and ids without a token add nothing. Bytes that are not UTF-8 become U+FFFD, but a character
        that is not finished at the end is left out.
        """
        ...

    def token_text(self, token_id: int) -> str:
        """Return how one token is shown to a person; special tokens have a visible name (``"<eos>"``)."""
        ...


class PaddedTokenizer:
    """A tokenizer whose vocabulary is as wide as a model's logits; the ids that this adds are no tokens.

    Args:
        tokenizer: Any object of the tokenizer contract.
        vocab_size: The width of the logits.

    Raises:
        ValueError: If the tokenizer has ids beyond ``vocab_size``.

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
        """Return the text of ``ids``; the ids that only pad add nothing."""
        return self.tokenizer.decode(ids)

    def token_text(self, token_id: int) -> str:
        """Return how one token is shown to a person."""
        if 0 <= token_id < self.vocab_size and not self.token_mask[token_id]:
            return unused_text(token_id)
        return self.tokenizer.token_text(token_id)


class BytePieces(dict[int, bytes]):
    r"""The bytes that each id adds to a text; an id that is not in the table adds none.

    >>> BytePieces({0: b"a", 1: b"\xff", 2: b"\xe2\x82"}).decode([0, 1, 0, 9, 2])
    'a\ufffda'
    """

    def __missing__(self, key: int) -> bytes:
        return b""

    def decode(self, ids: Sequence[int]) -> str:
        """Read the bytes of ``ids`` as UTF-8: U+FFFD for invalid ones, nothing for an unfinished end."""
        return codecs.utf_8_decode(b"".join(map(self.__getitem__, ids)), "replace", False)[0]

    def token_text(self, token_id: int, special: Mapping[int, str]) -> str:
        r"""Return a special token's name, else the token's text with ``\xc3`` for a byte that is no character."""
        if token_id in special:
            return special[token_id]
        if token_id not in self:
            return unused_text(token_id)
        return self[token_id].decode("utf-8", "backslashreplace")


def as_utf8(text: str) -> str:
    """Return ``text`` with each lone surrogate, which UTF-8 cannot hold, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def unused_text(token_id: int) -> str:
    """Return how an id without a token is shown to a person."""
    return f"<unused {token_id}>"
