"""Texts as vectors by an encoder network; :mod:`textgym.scorers.embeddings` is the way in."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.errors import foreign_code
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["EncoderEmbedder", "FloatArray", "is_network", "unit"]

FloatArray = npt.NDArray[np.float32]

_MEMORY = 4096
"""Texts whose vectors are remembered."""


class EncoderEmbedder:
    """The mean of an encoder network's last hidden states over a text's tokens: slower than a table, sees word order.

    Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, https://arxiv.org/abs/1908.10084

    Args:
        model: The name or the folder of a Hugging Face model, or the model itself; never downloaded. What is loaded by
            name is shared by all embedders of that name, stays out of pickles, and the last 4,096 texts are remembered;
            a model that is given may be in training, so of it nothing is remembered.
        tokenizer: The tokenizer of a model that is given itself.
        batch_size: Texts of one forward, which are of similar length.
        max_tokens: Tokens of a text that are read; fewer where the model cannot take so many.

    Raises:
        ImportError: If torch or transformers are missing.
        TypeError: If a model is given without its tokenizer.
        ValueError: If there is no model of that name on this machine, or a number is not positive.
    """

    def __init__(self, model: Any, tokenizer: Any = None, *, batch_size: int = 32, max_tokens: int = 512) -> None:
        if batch_size < 1 or max_tokens < 1:
            raise ValueError(f"batch_size and max_tokens must be positive, got {batch_size!r} and {max_tokens!r}")
        import_extra("torch", "embedding_similarity", extra="agents")
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self._source = str(model) if isinstance(model, str | Path) else (model, tokenizer)
        self._memory: dict[str, FloatArray] = {}
        if isinstance(model, str | Path):
            _load(str(model))
        elif not is_network(model) or not callable(tokenizer):
            got = f"{type(model).__name__} and {type(tokenizer).__name__}"
            raise TypeError(f"expected a loaded model and its tokenizer, got {got}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": {}}

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Return (B, H) float32 unit vectors; a text without tokens has zeros."""
        texts = [cleaned(text) for text in texts]
        memory = self._memory if isinstance(self._source, str) else {}  # which other threads may change at any time
        found = {text: memory.get(text) for text in texts}
        new = sorted((text for text, vector in found.items() if vector is None), key=lambda text: (len(text), text))
        for start in range(0, len(new), self.batch_size):
            chunk = new[start : start + self.batch_size]
            embedded = dict(zip(chunk, self._embed(chunk), strict=True))
            found |= embedded
            memory |= embedded
        for text in list(memory)[:-_MEMORY]:
            memory.pop(text, None)
        vectors = [found[text] for text in texts]
        return np.array(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)

    def _embed(self, texts: list[str]) -> FloatArray:
        import torch

        model, tokenizer = _load(self._source) if isinstance(self._source, str) else self._source
        limit = min(self.max_tokens, tokenizer.model_max_length)
        limit = min(limit, getattr(model.config, "max_position_embeddings", None) or limit)
        rows = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        # At least one token each, or attention over nothing gives NaN. Padded by hand: not every tokenizer can.
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
        return unit(np.where(lengths[:, None] > 0, sums, np.float32(0)))


def unit(rows: FloatArray) -> FloatArray:
    """Return (B, D) vectors scaled to length 1; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


def is_network(model: object) -> bool:
    """Return whether an object is a torch module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


@cache
def _load(name: str) -> tuple[Any, Any]:
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
