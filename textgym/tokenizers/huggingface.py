"""Adapters for Hugging Face tokenizers: those of ``tokenizers``, and any of ``transformers``."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textgym.tokenizers.base import BytePieces, as_utf8, unused_text

if TYPE_CHECKING:
    import tokenizers

__all__ = ["TokenizersTokenizer", "TransformersTokenizer", "load_transformers_tokenizer"]


class TokenizersTokenizer:
    """Adapter for a ``tokenizers.Tokenizer``, such as one loaded from a ``tokenizer.json``.

    Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) is decoded from a table of bytes, every other kind by the library.
    The tokenizer's truncation and padding settings are not applied: a prompt is never cut silently.

    Args:
        tokenizer: The tokenizer, which is copied.
        eos_token_id: The id that ends a text.
        bos_token_id: The id used for an empty prompt.
    """

    def __init__(
        self,
        tokenizer: "tokenizers.Tokenizer",
        eos_token_id: int | None = None,
        bos_token_id: int | None = None,
    ) -> None:
        self._tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.token_mask = _mask_of_ids(vocabulary.values())
        self.vocab_size = len(self.token_mask)
        self.eos_token_id = _checked_id("eos_token_id", eos_token_id, self.token_mask)
        self.bos_token_id = _checked_id("bos_token_id", bos_token_id, self.token_mask)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {i: token.content for i, token in added.items() if token.special}
        ordinary = {i: token for token, i in vocabulary.items() if i not in self._special}
        self._decoder: BytePieces | _AnchoredDecoder
        if type(self._tokenizer.decoder).__name__ == "ByteLevel":
            self._decoder = BytePieces(
                (i, as_utf8(token).encode() if i in added else _bytes_of_token(token)) for i, token in ordinary.items()
            )
        else:
            self._decoder = _AnchoredDecoder(self._tokenizer.decode, self.encode("the"), ordinary)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; the name of a special token in the text is encoded as that token."""
        return self._tokenizer.encode(as_utf8(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that ``ids`` append."""
        return self._decoder.decode(ids)

    def token_text(self, token_id: int) -> str:
        r"""Return a special token's name, else the token's text with ``\xe2`` for a byte that is not a character."""
        return self._decoder.token_text(token_id, self._special)


class TransformersTokenizer:
    """Adapter for any ``transformers`` tokenizer, fast or slow, through its own ``encode`` and ``decode``.

    ``as_tokenizer`` prefers ``TokenizersTokenizer`` for fast tokenizers.

    Args:
        tokenizer: A tokenizer that must not be changed while the adapter is in use.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.token_mask = _mask_of_ids(vocabulary.values())
        self.vocab_size = len(self.token_mask)
        self.eos_token_id = _checked_id("eos_token_id", tokenizer.eos_token_id, self.token_mask)
        self.bos_token_id = _checked_id("bos_token_id", tokenizer.bos_token_id, self.token_mask)
        self._special = {int(i): str(tokenizer.convert_ids_to_tokens(i)) for i in tokenizer.all_special_ids}
        ordinary = {i: token for token, i in vocabulary.items() if i not in self._special}
        decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self._decoder = _AnchoredDecoder(decode, self.encode("the"), ordinary)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; the name of a special token in the text is encoded as that token."""
        return list(self._tokenizer.encode(as_utf8(text), add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that ``ids`` append."""
        return self._decoder.decode(ids)

    def token_text(self, token_id: int) -> str:
        """Return a special token's name, else the token's text, else its name in the vocabulary."""
        return self._decoder.token_text(token_id, self._special)


class _AnchoredDecoder:
    """Decoder for libraries that treat the first token of a text specially.

    SentencePiece and WordPiece drop the space before the first word, so a completion decoded alone would lose it. An
    anchor word is decoded in front and then removed.

    Args:
        decode: The library's function from ids to text.
        word: Ids of a short word.
        ordinary: Id -> token, without special tokens.
    """

    def __init__(self, decode: Callable[[list[int]], str], word: list[int], ordinary: dict[int, str]) -> None:
        self._decode = decode
        self._ordinary = ordinary
        self._anchor = self._find_anchor(word)
        self._anchor_text = decode(self._anchor)

    def _find_anchor(self, word: list[int]) -> list[int]:
        # Prefer an anchor that is followed by a space: in BPE with "</w>" not every token is. Character tokenizers
        # have none; any letter works for them.
        candidates = [[i for i in word if i in self._ordinary], *([i] for i in islice(self._ordinary, 1000))]
        letters = [ids for ids in candidates if self._decode(ids).strip().isalnum()]
        spaced = (ids for ids in letters if " " in self._decode(ids + ids).strip())
        return next(spaced, letters[0] if letters else [])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that ``ids`` append, without U+FFFD at its end."""
        known = [int(i) for i in ids if i in self._ordinary]
        text = self._decode(self._anchor + known)
        text = text[len(self._anchor_text) :] if text.startswith(self._anchor_text) else self._decode(known)
        return text.rstrip("\ufffd")

    def token_text(self, token_id: int, special: dict[int, str]) -> str:
        """Return a special token's name, else the token's text, else its name in the vocabulary."""
        if token_id in special:
            return special[token_id]
        if token_id not in self._ordinary:
            return unused_text(token_id)
        return self.decode([token_id]) or self._ordinary[token_id]


def load_transformers_tokenizer(name: str | Path) -> Any:
    """Load a tokenizer with ``transformers`` from a folder, a Hugging Face name or a GGUF file."""
    from transformers import AutoTokenizer

    path = Path(name)
    folder, options = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (str(name), {})
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)


def _mask_of_ids(ids: Any) -> npt.NDArray[np.bool_]:
    """Return (highest id + 1,) bool, True at ``ids``."""
    index = np.fromiter(ids, dtype=np.int64)
    if len(index) == 0:
        raise ValueError("the tokenizer's vocabulary is empty")
    mask = np.zeros(int(index.max()) + 1, dtype=np.bool_)
    mask[index] = True
    return mask


def _checked_id(name: str, token_id: int | None, mask: npt.NDArray[np.bool_]) -> int | None:
    """Return ``token_id`` if it is None or a token, else raise ``ValueError``."""
    if token_id is not None and not (0 <= token_id < len(mask) and mask[token_id]):
        raise ValueError(f"{name} {token_id} is not in the tokenizer's vocabulary, whose highest id is {len(mask) - 1}")
    return token_id


def _byte_alphabet() -> dict[int, int]:
    """Return character -> byte of byte-level BPE.

    Printable Latin-1 characters map to themselves, the other 68 bytes are written as U+0100 to U+0143
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    return {byte: byte for byte in printable} | {0x100 + i: byte for i, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_alphabet()


def _bytes_of_token(token: str) -> bytes:
    """Return the bytes of a byte-level BPE token; a token outside the byte alphabet is encoded as UTF-8.

    >>> _bytes_of_token("Ġcaf\u00c3\u00a9").decode()
    ' café'
    """
    try:
        return token.translate(BYTE_OF_CHARACTER).encode("latin-1")
    except UnicodeEncodeError:
        return as_utf8(token).encode()
