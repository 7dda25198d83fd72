"""Select the fastest KV-cache backend whose logits match an uncached forward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.lm.kv_cache.base import KVCacheBackend, Step
from textgym.lm.kv_cache.batched import BatchedBackend
from textgym.lm.kv_cache.packed import PackedBackend
from textgym.lm.model import embedding_weight, lm_head_hook, lm_head_weight

UNSUPPORTED = (NotImplementedError, TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError)
"""Errors of a model that does not support an argument, or the attention function or cache that it is given."""

_CHECKED_LENGTH = 8


def select_backend(model: PreTrainedModel, num_slots: int, window: int, prompt_cache_size: int) -> KVCacheBackend:
    """Return the fastest backend that is correct for `model`; warn where none caches."""

    def packed(num_slots: int) -> KVCacheBackend:
        return PackedBackend(model, num_slots, window, prompt_cache_size)

    def batched(num_slots: int) -> KVCacheBackend:
        return BatchedBackend(model, num_slots, window)

    reasons = []
    for make in (packed, batched):
        reason = _mismatch(model, make, window)
        if reason is None:
            return make(num_slots)
        reasons.append(reason)
    warnings.warn(
        f"{type(model).__name__} runs uncached: each step feeds whole sequences, since no KV-cache backend supports the"
        f" model ({'; '.join(reasons)})",
        stacklevel=3,
    )
    return UncachedBackend(model)


class UncachedBackend:
    """Feed every sequence from its first token: for models without a per-slot KV cache, and to check the others."""

    name = "uncached"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._device = embedding_weight(model).device

    def clear(self) -> None:
        """Do nothing: there is no cache."""

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, V) and hidden states (n, H) of each sequence's newest token."""
        is_token = np.arange(int(step.lengths.max())) < step.lengths[:, None]
        ids = np.where(is_token, step.ids[:, : is_token.shape[1]], 0)
        rows, last = (torch.from_numpy(part).to(self._device) for part in (np.arange(len(ids)), step.lengths - 1))
        with lm_head_hook(self._model, lambda hidden: hidden[rows, last][:, None]) as read:
            logits = self._model(
                input_ids=torch.from_numpy(ids).to(self._device),
                attention_mask=torch.from_numpy(is_token.astype(np.int64)).to(self._device),
                use_cache=False,
            ).logits
        return logits[:, 0], read[0][:, 0]


def _mismatch(model: PreTrainedModel, make: Callable[[int], KVCacheBackend], window: int) -> str | None:
    """Extend two sequences and restart one; return why the backend fails or differs, or None where it is correct."""
    uncached = UncachedBackend(model)
    try:
        backend = make(2)
        for step in _check_steps(model, window):
            expected, logits = uncached(step)[0], backend(step)[0]
            # Half of the digits that the dtype has: kernels differ in the order of sums, a wrong cache differs in more.
            tolerance = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
            error = float((logits.float() - expected.float()).abs().max())
            if not error <= tolerance:
                return f"logits of the {backend.name} backend are off by {error:.2g}"
    except UNSUPPORTED as error:
        first_line, _, _ = str(error).partition("\n")
        return f"{type(error).__name__}: {first_line}"
    return None


def _check_steps(model: PreTrainedModel, window: int) -> Iterator[Step]:
    num_ids = min(len(embedding_weight(model)), len(lm_head_weight(model)))
    first, second, third = np.random.default_rng(0).integers(num_ids, size=(3, _CHECKED_LENGTH))
    third[0] = first[0]
    slots = np.arange(2)
    for sequences, lengths, start in (
        ((first, second), (3, 5), (0, 0)),
        ((first, second), (4, 6), (3, 5)),
        ((third, second), (5, 7), (1, 6)),
        ((third, second), (6, 8), (5, 7)),
    ):
        length = np.minimum(lengths, window)
        yield Step(np.stack(sequences), length, np.minimum(start, length - 1), slots)
