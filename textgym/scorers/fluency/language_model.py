"""A frozen language model that gives the log-probabilities of completions; imports torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch

from textgym.batch import TextBatch
from textgym.lm import LMStream, WholeSequenceForward, load_lm, log_prob
from textgym.scorers.text import cleaned
from textgym.tokenizers import Tokenizer, as_tokenizer

__all__ = ["LMText", "LanguageModel", "TokenStream"]

_LEAST_LOG_PROB = -100.0
"""Lower bound of a token's log-probability in nats: logits can be minus infinity, a score cannot."""
_MAX_LOGITS = 1 << 24
"""Logits held at once, 64 MiB of float32."""
_LOADED: WeakValueDictionary[str, LanguageModel] = WeakValueDictionary()


class LMText(NamedTuple):
    """The input of the model for one text."""

    context: list[int]
    """Ids of the prompt, or of what replaces an empty one; at least one."""
    completion: list[int]
    """Ids whose probabilities count."""


class LanguageModel:
    """A language model and its tokenizer.

    Args:
        model: A model with an output head, which nothing else may train.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.window: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        self._whole = WholeSequenceForward(self.model)

    @classmethod
    def load(cls, name: str) -> LanguageModel:
        """Return the model of this name, shared by all users at the same time."""
        found = _LOADED.get(name)
        if found is None:
            found = _LOADED[name] = cls(load_lm(name), as_tokenizer(name))
        return found

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> LanguageModel:
        """Return a copy of a loaded model, unaffected by training the original."""
        width = int(model.config.get_text_config(decoder=True).vocab_size)
        return cls(copy.deepcopy(load_lm(model)), as_tokenizer(tokenizer, vocab_size=width))

    def has_vocabulary_of(self, tokenizer: Tokenizer) -> bool:
        """Return whether each id means the same token here and in ``tokenizer``, whose vocabulary may be padded."""
        own = self.tokenizer
        ids = np.flatnonzero(own.token_mask)
        return own is tokenizer or (
            own.eos_token_id == tokenizer.eos_token_id
            and np.array_equal(ids, np.flatnonzero(tokenizer.token_mask))
            and all(own.token_text(i) == tokenizer.token_text(i) for i in ids.tolist())
        )

    def tokenize(self, batch: TextBatch, own_ids: bool) -> list[LMText]:
        """Return the ids of B texts, truncated to the positions of the model.

        A long prompt keeps its end, up to half of the positions; a long completion its beginning.

        Args:
            batch: B episodes.
            own_ids: Whether their ids are also this model's; otherwise their text is encoded again.

        Raises:
            ValueError: For an empty prompt, if the tokenizer has neither a BOS nor an EOS to start a text with.
        """
        if own_ids:
            spans = zip(batch.ids, batch.prompt_lengths.tolist(), strict=True)
            prompts = [row[:end].tolist() for row, end in spans]
            completions = batch.completion_ids
        else:
            written = zip(batch.completions, batch.completion_ids, strict=True)
            prompts = [self.tokenizer.encode(cleaned(prompt[-2_000:])) for prompt in batch.prompts]
            completions = [self._encoded(text, ids, batch) for text, ids in written]
        if not all(prompts):
            start = self._start()
            prompts = [prompt or start for prompt in prompts]
        if self.window is not None:
            prompts = [prompt[-max(1, self.window // 2) :] for prompt in prompts]
        room = [None if self.window is None else self.window - len(prompt) for prompt in prompts]
        return [LMText(prompt, ids[:end]) for prompt, ids, end in zip(prompts, completions, room, strict=True)]

    def _encoded(self, text: str, ids: Sequence[int], batch: TextBatch) -> list[int]:
        encoded = self.tokenizer.encode(cleaned(text))
        eos = self.tokenizer.eos_token_id
        has_ended = len(ids) > 0 and ids[-1] == batch.tokenizer.eos_token_id
        return [*encoded, eos] if has_ended and eos is not None else encoded

    def _start(self) -> list[int]:
        bos: int | None = getattr(self.tokenizer, "bos_token_id", None)
        start = self.tokenizer.eos_token_id if bos is None else bos
        if start is None:
            raise ValueError("the prompt is empty, and the model's tokenizer has neither BOS nor EOS to replace it")
        return [start]

    def log_probs(self, texts: Sequence[LMText]) -> npt.NDArray[np.float64]:
        """Return (B,) float64, the sum of log p(token | all before it) in nats over each completion."""
        return np.array([found.sum() for found in self.token_log_probs(texts)], dtype=np.float64)

    @torch.no_grad()
    def token_log_probs(self, texts: Sequence[LMText]) -> list[npt.NDArray[np.float64]]:
        """Return B arrays, log p(token | all before it) in nats of each token of the completion."""
        found: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(texts)
        limit = max(1, _MAX_LOGITS // self.tokenizer.vocab_size)
        chunk: list[int] = []
        num_states = 0
        for i, text in enumerate(texts):
            if not text.completion:
                continue
            if chunk and num_states + len(text.completion) > limit:
                self._fill(found, texts, chunk)
                chunk, num_states = [], 0
            chunk.append(i)
            num_states += len(text.completion)
        if chunk:
            self._fill(found, texts, chunk)
        return found

    def _fill(self, found: list[npt.NDArray[np.float64]], texts: Sequence[LMText], chunk: Sequence[int]) -> None:
        """Set the entries of ``found`` of some texts, from one forward pass."""
        part = [texts[i] for i in chunk]
        ids = torch.from_numpy(_padded([text.context + text.completion for text in part]))
        sizes = [len(text.completion) for text in part]
        rows = np.repeat(np.arange(len(part)), sizes)
        columns = np.concatenate([len(text.context) - 1 + np.arange(len(text.completion)) for text in part])
        targets = ids[rows, columns + 1]
        prompt_lengths = torch.tensor([len(text.context) for text in part])
        logits, _ = self._whole(ids, torch.from_numpy(rows), torch.from_numpy(columns), prompt_lengths)
        for i, values in zip(chunk, np.split(_token_log_probs(logits, targets), np.cumsum(sizes)[:-1]), strict=True):
            found[i] = values


class TokenStream:
    """Log-probabilities of the newest tokens of growing texts, with a KV cache: one token of work per new token.

    Args:
        lm: The model; several streams may share it.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._stream: LMStream | None = None

    def log_probs(self, texts: Sequence[LMText], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (B,) float64, log p(last token | all before it) in nats.

        Args:
            texts: B texts with non-empty completions.
            slots: (B,) the place of each text in the cache; a text that is not cached there is fed again in full.
        """
        fed = _padded([[*text.context, *text.completion[:-1]] for text in texts])
        stream = self._stream_for(int(slots.max()) + 1, fed.shape[1])
        ids = np.zeros((stream.num_slots, fed.shape[1]), dtype=np.int64)
        lengths = np.ones(stream.num_slots, dtype=np.int64)
        active = np.zeros(stream.num_slots, dtype=np.bool_)
        ids[slots], active[slots] = fed, True
        lengths[slots] = [len(text.context) + len(text.completion) - 1 for text in texts]
        logits = stream(ids, lengths, active=active).logits
        return _token_log_probs(logits[torch.from_numpy(slots)], torch.tensor([text.completion[-1] for text in texts]))

    def _stream_for(self, num_slots: int, width: int) -> LMStream:
        """Return a stream that is large enough; growing doubles its size and feeds all texts again once."""
        old = self._stream
        if old is not None and num_slots <= old.num_slots and width <= old.window:
            return old
        if old is not None:
            num_slots = old.num_slots if num_slots <= old.num_slots else max(num_slots, 2 * old.num_slots)
            width = max(width, old.window)
        window = max(64, 1 << (width - 1).bit_length())
        window = window if self.lm.window is None else min(window, self.lm.window)
        self._stream = LMStream(self.lm.model, num_slots, window)
        return self._stream


def _padded(texts: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Return (B, longest) int64, right-padded with zeros."""
    ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return ids


def _token_log_probs(logits: torch.Tensor, targets: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return (M,) float64, log p of M tokens in nats, at least -100, for (M, V) logits."""
    found = log_prob(logits, targets.to(logits.device)).double().numpy(force=True)
    return np.maximum(found, _LEAST_LOG_PROB)
