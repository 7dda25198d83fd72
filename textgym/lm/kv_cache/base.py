"""Interface of the KV-cache backends, and the storage that they share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Layout: TypeAlias = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Layer -> keys and values of one token, (1, heads, 1, head dimension) each: shapes, dtypes and devices to allocate."""

_FIRST_CAPACITY = 32
_GROWTH = 1.25
_READ_WHOLE = 64
"""Capacity in columns up to which rows are always read whole."""
_SEEN_PER_PROMPT = 16
"""Prompts remembered as seen once, per prompt that the cache may hold."""


@dataclass(slots=True)
class Step:
    """Token sequences of the n active slots, and the part of each that is cached."""

    ids: Integers
    """(n, L) token ids; arbitrary past the end of a sequence, and possibly invalid there."""
    lengths: Integers
    """(n,) tokens, at least 1."""
    start: Integers
    """(n,) first column to feed, at most `lengths - 1`: the newest token is always fed, since its logits are needed."""
    slots: Integers
    """(n,) distinct slots, ascending."""

    def halves(self) -> Iterator[Step]:
        """Yield the first half of the slots and the second."""
        middle = len(self.slots) // 2
        for part in (slice(0, middle), slice(middle, None)):
            yield Step(self.ids[part], self.lengths[part], self.start[part], self.slots[part])


class KVCacheBackend(Protocol):
    """Incremental forward of one model that stores keys and values per slot."""

    name: str

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed a step; return logits (n, V) and hidden states (n, H) of each sequence's newest token."""
        ...

    def clear(self) -> None:
        """Reset the cache: later results do not depend on earlier steps."""
        ...


class KVStorage:
    """Keys and values of `num_slots` sequences: column j of a slot's row belongs to token j of its sequence.

    The two tensors of a layer have shape (num_slots, heads, capacity, head dimension). The capacity grows with the
    longest sequence, up to `window`. Layers of one shape are views of one block, so that a prompt is copied at once.
    Copies of at most `prompt_cache_size` prompts are kept; the least recently used one is evicted.
    """

    def __init__(self, layout: Layout, num_slots: int, window: int, prompt_cache_size: int) -> None:
        self._window, self._prompt_cache_size = window, prompt_cache_size
        self._prompts: OrderedDict[bytes, list[torch.Tensor]] = OrderedDict()
        self._seen_once: OrderedDict[int, None] = OrderedDict()
        groups: dict[tuple[object, ...], list[torch.Tensor]] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}
        for index, pair in layout.items():
            for example in pair:
                kind = (example.shape[1], example.shape[3], example.dtype, example.device)
                group = groups.setdefault(kind, [])
                self._places.setdefault(index, []).append((list(groups).index(kind), len(group)))
                group.append(example)
        self._capacity = min(_FIRST_CAPACITY, window)
        self._blocks = [
            group[0].new_zeros(len(group), num_slots, group[0].shape[1], self._capacity, group[0].shape[3])
            for group in groups.values()
        ]
        self.layers = self._views()

    def clear(self) -> None:
        """Reset prompts, rows and capacity, so that results do not depend on history."""
        self._prompts.clear()
        self._seen_once.clear()
        self._capacity = min(_FIRST_CAPACITY, self._window)
        # Zeros: a NaN left in a masked column would spoil the slot's next sequence.
        self._blocks = [block.new_zeros(*block.shape[:3], self._capacity, block.shape[4]) for block in self._blocks]
        self.layers = self._views()

    def reserve(self, width: int) -> None:
        """Make room for sequences of `width` tokens."""
        if width <= self._capacity:
            return
        target = max(width, int(_GROWTH * self._capacity))
        old, self._capacity = self._capacity, min(self._window, -(-target // 8) * 8)
        for i, block in enumerate(self._blocks):
            self._blocks[i] = block.new_zeros(*block.shape[:3], self._capacity, block.shape[4])
            self._blocks[i][:, :, :, :old] = block
        self.layers = self._views()

    def readable(self, width: int) -> int:
        """Return the number of columns to read where `width` are needed: contiguous rows are read faster."""
        return self._capacity if self._capacity <= max(_READ_WHOLE, 2 * width) else width

    def load_prompt(self, prompt: bytes, slots: Iterable[int]) -> bool:
        """Copy a prompt to the rows of `slots`; return whether it was cached."""
        copies = self._prompts.get(prompt)
        if copies is None:
            return False
        self._prompts.move_to_end(prompt)
        for block, copy in zip(self._blocks, copies, strict=True):
            for slot in slots:
                block[:, slot, :, : copy.shape[2]] = copy
        return True

    def count_prompt(self, prompt: bytes, times: int) -> bool:
        """Record that `times` slots start with a prompt; return whether to cache it, from the second use on."""
        if not self._prompt_cache_size:
            return False
        name = hash(prompt)
        is_repeated = times > 1 or name in self._seen_once
        self._seen_once[name] = None
        if len(self._seen_once) > _SEEN_PER_PROMPT * self._prompt_cache_size:
            self._seen_once.popitem(last=False)
        return is_repeated

    def save_prompt(self, prompt: bytes, slot: int, width: int) -> None:
        """Cache the first `width` columns of a slot's row."""
        self._prompts[prompt] = [block[:, slot, :, :width].clone() for block in self._blocks]
        if len(self._prompts) > self._prompt_cache_size:
            self._prompts.popitem(last=False)

    def _views(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        return {
            index: (self._blocks[keys[0]][keys[1]], self._blocks[values[0]][values[1]])
            for index, (keys, values) in self._places.items()
        }
