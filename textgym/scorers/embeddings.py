"""Texts as unit vectors, for scorers that compare meanings: from a table, an encoder network or any function."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textgym.errors import foreign_code, install_hint, is_misspelt, unknown_name
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["CallableEmbedder", "Embedder", "EncoderEmbedder", "WordLlamaEmbedder", "as_embedder"]

Vectors = npt.NDArray[np.float32]

_EXPECTED = "'wordllama', an encoder's name or folder, a pair (model, tokenizer) or a function from texts to vectors"
_CACHE_SIZE = 4096
"""Texts whose vectors an encoder caches."""


class Embedder(Protocol):
    """A callable from texts to unit vectors, so that the cosine of two texts is a dot product."""

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D) float32, rows of length 1; a row of zeros for a text without content."""
        ...


def as_embedder(spec: Any) -> Embedder:
    """Return the embedder that ``spec`` describes.

    Args:
        spec: ``"wordllama"``; the name or folder of a Hugging Face encoder that is already on this machine; a pair of
            such a loaded model and its tokenizer; one of the embedders of this module; or any function from a list of
            texts to an array of vectors, such as ``SentenceTransformer(...).encode``.

    Raises:
        TypeError: If it is none of these.
        ValueError: If there is no encoder of that name on this machine.
        ImportError: If a required package is missing.

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
    if not callable(spec) or isinstance(spec, type) or _is_network(spec):
        raise TypeError(f"embedder is of type {type(spec).__name__}; expected {_EXPECTED}")
    return CallableEmbedder(spec)


class CallableEmbedder:
    """Vectors from any function from a list of texts, checked and scaled to length 1.

    Raises:
        ValueError: When called, if the function does not return one vector of finite numbers per text.
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self.function = function

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D) float32 unit vectors."""
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        rows = np.array(self.function([cleaned(text) for text in texts]), dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
            raise ValueError(f"the embedder returned shape {rows.shape} or not finite numbers for {len(texts)} texts")
        return _unit(rows)


class WordLlamaEmbedder:
    """The mean of wordllama's 256-dimensional token vectors, without a network or torch.

    It represents the topic of a text and ignores word order: a list of the right words is as near as a sentence. Only
    the package's files are read; its code, which downloads missing files and configures logging, is not run.

    Source: Miller, WordLlama: Recycled Token Embeddings from Large Language Models, https://github.com/dleemiller/WordLlama

    Raises:
        ImportError: If the package wordllama, or its file of vectors, is missing.
    """

    def __init__(self) -> None:
        _wordllama()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return (B, 256) float32 unit vectors, zeros for an empty text."""
        table, tokenizer = _wordllama()
        rows = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = table[tokenizer.encode(cleaned(text), add_special_tokens=False).ids].sum(axis=0)
        return _unit(rows)


class EncoderEmbedder:
    """The mean of an encoder network's last hidden states over a text's tokens; slower, but sensitive to word order.

    Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, https://arxiv.org/abs/1908.10084

    Args:
        model: The name or folder of a Hugging Face model, never downloaded, or a loaded model. A model loaded by name
            is shared by all embedders of that name and stays out of pickles, and the vectors of the last 4,096 texts
            are cached; a given model may be in training, so nothing is cached.
        tokenizer: The tokenizer of a loaded model.
        batch_size: Texts per forward pass, of similar length.
        max_tokens: Tokens per text; longer texts are truncated, also to the model's number of positions.

    Raises:
        ImportError: If torch or transformers is missing.
        TypeError: If a loaded model is given without its tokenizer.
        ValueError: If there is no model of that name on this machine, or a number is not positive.
    """

    def __init__(self, model: Any, tokenizer: Any = None, *, batch_size: int = 32, max_tokens: int = 512) -> None:
        if batch_size < 1 or max_tokens < 1:
            raise ValueError(f"batch_size and max_tokens must be positive, got {batch_size!r} and {max_tokens!r}")
        import_extra("torch", "embedding_similarity", extra="agents")
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self._source = str(model) if isinstance(model, str | Path) else (model, tokenizer)
        self._cache: dict[str, Vectors] = {}
        if isinstance(model, str | Path):
            _load_encoder(str(model))
        elif not _is_network(model) or not callable(tokenizer):
            got = f"{type(model).__name__} and {type(tokenizer).__name__}"
            raise TypeError(f"expected a loaded model and its tokenizer, got {got}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return (B, H) float32 unit vectors; zeros for a text without tokens."""
        texts = [cleaned(text) for text in texts]
        cache = self._cache if isinstance(self._source, str) else {}  # other threads may change it at any time
        found = {text: cache.get(text) for text in texts}
        new = sorted((text for text, vector in found.items() if vector is None), key=lambda text: (len(text), text))
        for start in range(0, len(new), self.batch_size):
            chunk = new[start : start + self.batch_size]
            embedded = dict(zip(chunk, self._embed(chunk), strict=True))
            found |= embedded
            cache |= embedded
        for text in list(cache)[:-_CACHE_SIZE]:
            cache.pop(text, None)
        vectors = [found[text] for text in texts]
        return np.array(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)

    def _embed(self, texts: list[str]) -> Vectors:
        import torch

        model, tokenizer = _load_encoder(self._source) if isinstance(self._source, str) else self._source
        limit = min(self.max_tokens, tokenizer.model_max_length)
        limit = min(limit, getattr(model.config, "max_position_embeddings", None) or limit)
        rows = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        # At least one token each, because attention over nothing gives NaN. Not every tokenizer can pad.
        mask = np.arange(max(1, lengths.max())) < np.maximum(lengths, 1)[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        encoder = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
        was_training = encoder.training
        encoder.eval()
        try:
            with torch.inference_mode():
                attended = torch.from_numpy(mask.astype(np.int64)).to(model.device)
                hidden = encoder(input_ids=torch.from_numpy(ids).to(model.device), attention_mask=attended)
                sums = (hidden.last_hidden_state.float() * attended[..., None]).sum(dim=1).cpu().numpy()
        finally:
            encoder.train(was_training)
        return _unit(np.where(lengths[:, None] > 0, sums, np.float32(0)))


def _unit(rows: Vectors) -> Vectors:
    """Return (B, D) vectors scaled to length 1; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


def _is_network(model: object) -> bool:
    """Return whether an object is a torch module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


@cache
def _wordllama() -> tuple[Vectors, Any]:
    spec = importlib.util.find_spec("wordllama")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    weights = [file for folder in folders for file in folder.glob("weights/l2_supercat_256.safetensors")]
    tokenizers = [file for folder in folders for file in folder.glob("token*/l2_supercat_tokenizer_config.json")]
    if not weights or not tokenizers:
        raise ImportError(
            "embeddings need the package wordllama, with the files that come in its wheel: pip install 'wordllama' "
            f"(included in the extra 'scorers': {install_hint('scorers')})"
        )
    from tokenizers import Tokenizer

    table = import_extra("safetensors.numpy", "embedding_similarity", "safetensors").load_file(weights[0])
    reader = Tokenizer.from_file(str(tokenizers[0]))
    reader.no_padding()
    reader.no_truncation()
    return table["embedding.weight"].astype(np.float32), reader


@cache
def _load_encoder(name: str) -> tuple[Any, Any]:
    transformers = import_extra("transformers", "embedding_similarity", extra="agents")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        model = transformers.AutoModel.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if (refused := foreign_code(error, name)) is not error:
            raise refused from None
        raise ValueError(
            f"no encoder {name!r} on this machine; expected a folder, or the name of a Hugging Face model that was "
            f"downloaded before, as by: hf download {name}"
        ) from error
    return model.eval(), tokenizer
