"""Texts as vectors, for scorers that compare what texts mean: from a table, an encoder network or any function."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from textgym.errors import install_hint, is_misspelt, unknown_name
from textgym.scorers.encoders import EncoderEmbedder, FloatArray, is_network, unit
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["CallableEmbedder", "Embedder", "EncoderEmbedder", "WordLlamaEmbedder", "as_embedder"]

_EXPECTED = "'wordllama', an encoder's name or folder, a pair (model, tokenizer) or a function from texts to vectors"


class Embedder(Protocol):
    """A callable that turns texts into vectors, so that the cosine of two texts is a dot product."""

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Return (B, D) float32, rows of length 1; a row of zeros for a text without content."""
        ...


def as_embedder(spec: Any) -> Embedder:
    """Return an embedder for whatever says which one.

    Args:
        spec: ``"wordllama"``; the name or the folder of a Hugging Face encoder, which must be on this machine already;
            a pair of such a model, loaded, and its tokenizer; one of the embedders of this module; or any function from
            a list of texts to an array of vectors, such as ``SentenceTransformer(...).encode``.

    Raises:
        TypeError: If it is none of these.
        ValueError: If there is no encoder of that name on this machine.
        ImportError: If the package that it needs is missing.

    >>> as_embedder("wordllama")(["a cat", ""]).shape
    (2, 256)
    """
    if spec == "wordllama":
        return WordLlamaEmbedder()
    if isinstance(spec, str) and is_misspelt(spec, ["wordllama"]) and not Path(spec).is_dir():
        raise unknown_name("embedder", spec, ["wordllama"], also=f"Expected {_EXPECTED}.")
    if isinstance(spec, str | Path):
        return EncoderEmbedder(spec)
    if isinstance(spec, tuple) and len(spec) == 2:
        return EncoderEmbedder(*spec)
    if isinstance(spec, CallableEmbedder | EncoderEmbedder | WordLlamaEmbedder):
        return spec
    if not callable(spec) or isinstance(spec, type) or is_network(spec):
        raise TypeError(f"embedder is of type {type(spec).__name__}; expected {_EXPECTED}")
    return CallableEmbedder(spec)


class WordLlamaEmbedder:
    """The mean of wordllama's 256-dimensional token vectors: no network, no torch.

    It knows what a text is about, not what it says: word order makes no difference, and a heap of the right words is as
    near as a sentence. Only the package's files are read, its code is not run: that would download what it does not
    find, and sets up logging for the whole program.

    Source: Miller, WordLlama: Recycled Token Embeddings from Large Language Models, https://github.com/dleemiller/WordLlama

    Raises:
        ImportError: If the package wordllama, or its file of vectors, is missing.
    """

    def __init__(self) -> None:
        _wordllama()

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Return (B, 256) float32 unit vectors, zeros for an empty text."""
        table, tokenizer = _wordllama()
        rows = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = table[tokenizer.encode(cleaned(text), add_special_tokens=False).ids].sum(axis=0)
        return unit(rows)


class CallableEmbedder:
    """Vectors from any function from a list of texts, checked and scaled to length 1.

    Raises:
        ValueError: When called, if the function does not return one vector of finite numbers for each text.
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self.function = function

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Return (B, D) float32 unit vectors."""
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        rows = np.array(self.function([cleaned(text) for text in texts]), dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
            raise ValueError(f"the embedder returned shape {rows.shape} or not finite numbers for {len(texts)} texts")
        return unit(rows)


@cache
def _wordllama() -> tuple[FloatArray, Any]:
    spec = importlib.util.find_spec("wordllama")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    weights = [file for folder in folders for file in folder.glob("weights/l2_supercat_256.safetensors")]
    tokenizers = [file for folder in folders for file in folder.glob("token*/l2_supercat_tokenizer_config.json")]
    if not weights or not tokenizers:
        raise ImportError(
            "embeddings need the package wordllama, with the files that come in its wheel: pip install 'wordllama' "
            f"(the extra 'scorers' holds it: {install_hint('scorers')})"
        )
    from tokenizers import Tokenizer

    table = import_extra("safetensors.numpy", "embedding_similarity", "safetensors").load_file(weights[0])
    reader = Tokenizer.from_file(str(tokenizers[0]))
    reader.no_padding()
    reader.no_truncation()
    return table["embedding.weight"].astype(np.float32), reader
