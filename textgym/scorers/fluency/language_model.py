"""A frozen language model that says how likely it finds each token of a completion; only this imports torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch

from textgym.batch import TextBatch
from textgym.lm import WholeTexts, load_lm, log_prob
from textgym.scorers.text import cleaned
from textgym.tokenizers import Tokenizer, as_tokenizer

__all__ = ["LanguageModel", "Read", "padded", "token_log_probs"]

_LEAST_LOG_PROB = -100.0
"""Nats that a token counts for at least: logits can be minus infinity, a score cannot."""
_MAX_LOGITS = 1 << 24
"""Logits that are held at once, 64 MiB of float32."""
_LOADED: WeakValueDictionary[str, LanguageModel] = WeakValueDictionary()


class Read(NamedTuple):
    """What the model reads of one text."""

    context: list[int]
    """Ids of the prompt, or of what stands for an empty one; at least one."""
    completion: list[int]
    """Ids whose probabilities count."""


class LanguageModel:
    """A language model and its tokenizer.

    Args:
        model: With an output head. Nothing else may train it.
        tokenizer: The model's own.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.window: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        self._whole = WholeTexts(self.model)

    @classmethod
    def load(cls, name: str) -> LanguageModel:
        """Return the model of this name, the same one for all who use it at the same time."""
        found = _LOADED.get(name)
        if found is None:
            found = _LOADED[name] = cls(load_lm(name), as_tokenizer(name))
        return found

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> LanguageModel:
        """Return a copy of a loaded model, which training the original does not change."""
        width = int(model.config.get_text_config(decoder=True).vocab_size)
        return cls(copy.deepcopy(load_lm(model)), as_tokenizer(tokenizer, vocab_size=width))

    def has_vocabulary_of(self, tokenizer: Tokenizer) -> bool:
        """Return whether an id means the same token here and in ``tokenizer``, which may be wider."""
        own = self.tokenizer
        ids = np.flatnonzero(own.token_mask)
        return own is tokenizer or (
            own.eos_token_id == tokenizer.eos_token_id
            and np.array_equal(ids, np.flatnonzero(tokenizer.token_mask))
            and all(own.token_text(i) == tokenizer.token_text(i) for i in ids.tolist())
        )

    def read(self, batch: TextBatch, own_ids: bool) -> list[Read]:
        """Return the ids of B texts, as far as the model has positions for them.

        Of a long prompt the end is read, up to half of the positions; of a long completion the beginning.

        Args:
            batch: B episodes.
            own_ids: Whether their ids are this model's too; else their text is encoded again.

        Raises:
            ValueError: For an empty prompt, if the tokenizer has neither a BOS nor an EOS to begin a text with.
        """
        if own_ids:
            spans = zip(batch.ids, batch.prompt_lengths.tolist(), strict=True)
            prompts = [row[:end].tolist() for row, end in spans]
            completions = batch.completion_ids
        else:
            prompts = [self.tokenizer.encode(cleaned(prompt[-2_000:])) for prompt in batch.prompts]
            completions = [self._encoded(text, ids, batch) for text, ids in _written(batch)]
        if not all(prompts):
            start = self._start()
            prompts = [prompt or start for prompt in prompts]
        if self.window is not None:
            prompts = [prompt[-max(1, self.window // 2) :] for prompt in prompts]
        room = [None if self.window is None else self.window - len(prompt) for prompt in prompts]
        return [Read(prompt, ids[:end]) for prompt, ids, end in zip(prompts, completions, room, strict=True)]

    def _encoded(self, text: str, ids: Sequence[int], batch: TextBatch) -> list[int]:
        encoded = self.tokenizer.encode(cleaned(text))
        eos = self.tokenizer.eos_token_id
        has_ended = len(ids) > 0 and ids[-1] == batch.tokenizer.eos_token_id
        return [*encoded, eos] if has_ended and eos is not None else encoded

    def _start(self) -> list[int]:
        bos: int | None = getattr(self.tokenizer, "bos_token_id", None)
        start = self.tokenizer.eos_token_id if bos is None else bos
        if start is None:
            raise ValueError(
                "the prompt is empty, and the model's tokenizer has neither a BOS nor an EOS to begin with"
            )
        return [start]

    @torch.no_grad()
    def log_probs(self, texts: Sequence[Read]) -> npt.NDArray[np.float64]:
        """Return (B,) float64, the sum of log p(token | what stands before it) in nats, over each completion."""
        sums = np.zeros(len(texts))
        limit = max(1, _MAX_LOGITS // self.tokenizer.vocab_size)
        chunk: list[int] = []
        num_states = 0
        for i, text in enumerate(texts):
            if not text.completion:
                continue
            if chunk and num_states + len(text.completion) > limit:
                sums[chunk] = self._sums([texts[j] for j in chunk])
                chunk, num_states = [], 0
            chunk.append(i)
            num_states += len(text.completion)
        if chunk:
            sums[chunk] = self._sums([texts[j] for j in chunk])
        return sums

    def _sums(self, texts: Sequence[Read]) -> npt.NDArray[np.float64]:
        ids = torch.from_numpy(padded([text.context + text.completion for text in texts]))
        sizes = [len(text.completion) for text in texts]
        rows = np.repeat(np.arange(len(texts)), sizes)
        columns = np.concatenate([len(text.context) - 1 + np.arange(len(text.completion)) for text in texts])
        targets = ids[rows, columns + 1]
        prompt_lengths = torch.tensor([len(text.context) for text in texts])
        logits, _ = self._whole(ids, torch.from_numpy(rows), torch.from_numpy(columns), prompt_lengths)
        return np.bincount(rows, weights=token_log_probs(logits, targets), minlength=len(texts)).astype(
            np.float64, copy=False
        )


def padded(texts: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Return (B, longest) int64, zeros after each text's end."""
    ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return ids


def _written(batch: TextBatch) -> zip[tuple[str, list[int]]]:
    return zip(batch.completions, batch.completion_ids, strict=True)


def token_log_probs(logits: torch.Tensor, targets: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return (M,) float64, log p of M tokens in nats, -100 at least, for (M, V) logits."""
    found = log_prob(logits, targets.to(logits.device)).double().numpy(force=True)
    return np.maximum(found, _LEAST_LOG_PROB)
