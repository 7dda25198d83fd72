"""Which way of caching a model gets: the first that agrees with an uncached forward on a few random texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.lm.batched import BatchedRows
from textgym.lm.heads import embedding_weight, head_weight
from textgym.lm.packed import PackedRows
from textgym.lm.uncached import Uncached
from textgym.lm.way import Step, Way

REFUSALS = (NotImplementedError, TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError)
"""What a model raises that does not know an argument, or the attention or the cache that it is given."""

_CHECKED_LENGTH = 8


def choose_way(model: PreTrainedModel, num_slots: int, window: int, prompt_cache_size: int) -> Way:
    """Return the fastest way that is right for `model`; warn where that is the one without a cache."""

    def packed(num_slots: int) -> Way:
        return PackedRows(model, num_slots, window, prompt_cache_size)

    def batched(num_slots: int) -> Way:
        return BatchedRows(model, num_slots, window)

    reasons = []
    for make in (packed, batched):
        reason = _fault(model, make, window)
        if reason is None:
            return make(num_slots)
        reasons.append(reason)
    warnings.warn(
        f"{type(model).__name__} runs uncached, each step feeding whole texts: its cache cannot be kept for texts that"
        f" restart at different times ({'; '.join(reasons)})",
        stacklevel=3,
    )
    return Uncached(model)


def _fault(model: PreTrainedModel, make: Callable[[int], Way], window: int) -> str | None:
    """Let two texts grow, then restart one of them; tell what goes wrong, if anything."""
    uncached = Uncached(model)
    try:
        way = make(2)
        for step in _checked_steps(model, window):
            expected, logits = uncached(step)[0], way(step)[0]
            # Half of the digits that the dtype has: kernels differ in the order of sums, a wrong cache differs in more.
            tolerance = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
            error = float((logits.float() - expected.float()).abs().max())
            if not error <= tolerance:
                return f"caching {way.caching!r} is off by {error:.2g}"
    except REFUSALS as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def _checked_steps(model: PreTrainedModel, window: int) -> Iterator[Step]:
    num_ids = min(len(embedding_weight(model)), len(head_weight(model)))
    first, second, third = np.random.default_rng(0).integers(num_ids, size=(3, _CHECKED_LENGTH))
    third[0] = first[0]
    slots = np.arange(2)
    for texts, lengths, start in (
        ((first, second), (3, 5), (0, 0)),
        ((first, second), (4, 6), (3, 5)),
        ((third, second), (5, 7), (1, 6)),
        ((third, second), (6, 8), (5, 7)),
    ):
        length = np.minimum(lengths, window)
        yield Step(np.stack(texts), length, np.minimum(start, length - 1), slots)
