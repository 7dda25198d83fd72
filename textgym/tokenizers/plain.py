"""Tokenizers of bytes, characters and words, which need no file and no library."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from textgym.tokenizers.base import BytePieces, as_utf8

__all__ = ["ByteTokenizer", "CharTokenizer", "WordTokenizer"]

PRINTABLE_ASCII = "\n" + "".join(map(chr, range(32, 127)))


class ByteTokenizer:
    """Byte-level tokenizer: the ids are UTF-8 bytes, 256 is EOS.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("né"), tokenizer.decode([110, 195, 169, 256])
    ([110, 195, 169], 'né')
    """

    vocab_size = 257
    eos_token_id = 256
    bos_token_id = None

    def __init__(self) -> None:
        self.token_mask: npt.NDArray[np.bool_] = np.ones(self.vocab_size, dtype=np.bool_)
        self._pieces = BytePieces((i, bytes([i])) for i in range(256))

    def encode(self, text: str) -> list[int]:
        """Return the UTF-8 bytes of ``text``; a lone surrogate is encoded as U+FFFD."""
        return list(as_utf8(text).encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; invalid bytes become U+FFFD, an incomplete character at the end is left out."""
        return self._pieces.decode(ids)

    def token_text(self, token_id: int) -> str:
        r"""Return an ASCII byte as its character, another byte as ``\xc3``, EOS as ``<eos>``."""
        return self._pieces.token_text(token_id, {self.eos_token_id: "<eos>"})


class CharTokenizer:
    """Character-level tokenizer over an alphabet; the last id is EOS.

    Args:
        alphabet: The characters, in the order of their ids; by default newline and printable ASCII (96).

    >>> tokenizer = CharTokenizer("abc")
    >>> tokenizer.encode("cab"), tokenizer.decode([2, 0, 1, 3]), tokenizer.vocab_size
    ([2, 0, 1], 'cab', 4)
    """

    bos_token_id = None

    def __init__(self, alphabet: str = PRINTABLE_ASCII) -> None:
        if not alphabet:
            raise ValueError("the alphabet is empty")
        self._ids = {character: i for i, character in enumerate(alphabet)}
        if len(self._ids) < len(alphabet):
            character, count = Counter(alphabet).most_common(1)[0]
            raise ValueError(f"the alphabet contains {character!r} {count} times, expected each character once")
        self.alphabet = alphabet
        self.vocab_size = len(alphabet) + 1
        self.eos_token_id = len(alphabet)
        self.token_mask: npt.NDArray[np.bool_] = np.ones(self.vocab_size, dtype=np.bool_)
        self._pieces = BytePieces((i, character.encode()) for i, character in enumerate(alphabet))

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters of ``text``.

        Raises:
            ValueError: If a character is not in the alphabet.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise ValueError(
                f"character {character!r} at position {text.index(character)} of the text is not in the alphabet "
                f"of {len(self.alphabet)} characters; pass CharTokenizer(alphabet=...) another alphabet, or use "
                "ByteTokenizer for any text"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters of ``ids``."""
        return self._pieces.decode(ids)

    def token_text(self, token_id: int) -> str:
        """Return the character, ``<eos>`` for EOS."""
        return self._pieces.token_text(token_id, {self.eos_token_id: "<eos>"})


class WordTokenizer:
    """Word-level tokenizer, split at white space; the last two ids are ``<unk>`` and EOS.

    Unknown words are encoded as ``<unk>``. Decoding puts a space before each word, including the first, because the
    text is a continuation.

    Args:
        vocabulary: The words, in the order of their ids.

    >>> tokenizer = WordTokenizer(["a", "cat", "sat"])
    >>> tokenizer.encode("a dog sat"), tokenizer.decode([0, 1, 3, 4])
    ([0, 3, 2], ' a cat <unk>')
    """

    bos_token_id = None

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        if not self.vocabulary:
            raise ValueError("the vocabulary is empty")
        for word, count in Counter(self.vocabulary).items():
            if word.split() != [word]:
                raise ValueError(f"{word!r} in the vocabulary is not a single word without white space")
            if count > 1 or word in ("<unk>", "<eos>"):
                raise ValueError(
                    f"the vocabulary contains {word!r} {count} times, expected once; <unk> and <eos> are added"
                )
        self.unk_token_id = len(self.vocabulary)
        self.eos_token_id = len(self.vocabulary) + 1
        self.vocab_size = len(self.vocabulary) + 2
        self.token_mask: npt.NDArray[np.bool_] = np.ones(self.vocab_size, dtype=np.bool_)
        self._ids = {word: i for i, word in enumerate((*self.vocabulary, "<unk>"))}
        self._pieces = BytePieces((i, b" " + as_utf8(word).encode()) for word, i in self._ids.items())

    @classmethod
    def from_texts(cls, texts: Iterable[str], max_words: int | None = None) -> "WordTokenizer":
        """Build the vocabulary from ``texts``, by descending frequency, then alphabetically.

        Args:
            texts: Any number of texts.
            max_words: Maximum number of words.

        >>> WordTokenizer.from_texts(["the cat", "the dog"]).vocabulary
        ('the', 'cat', 'dog')
        """
        counts = Counter(word for text in texts for word in text.split() if word not in ("<unk>", "<eos>"))
        return cls(sorted(counts, key=lambda word: (-counts[word], word))[:max_words])

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of ``text``, ``<unk>`` for unknown ones."""
        return [self._ids.get(word, self.unk_token_id) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words of ``ids``, each with a space before it."""
        return self._pieces.decode(ids)

    def token_text(self, token_id: int) -> str:
        """Return the word with its leading space, ``<unk>`` or ``<eos>``."""
        return self._pieces.token_text(token_id, {self.unk_token_id: "<unk>", self.eos_token_id: "<eos>"})
