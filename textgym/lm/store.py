"""Where the keys and values of a stream live: one row per slot, and a pool of the prompts seen last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch

Layout: TypeAlias = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of one token by layer, (1, heads, 1, head dimension) each: what a store has to know of a model."""

_FIRST_CAPACITY = 32
_GROWTH = 1.25
_READ_WHOLE = 64
"""Columns that are always read, wanted or not."""
_REMEMBERED = 16
"""Prompts that are known to have been seen once, per prompt that the pool may hold."""


class KeyValueStore:
    """Keys and values of `num_slots` texts: in a slot's row, column j belongs to the text's j-th token.

    The two tensors of a layer have shape (num_slots, heads, capacity, head dimension). The capacity grows with the
    longest text, up to `window`. Layers of one shape are views of one block, so that a prompt is copied at once.

    The pool holds copies of what at most `pool_size` prompts left in a row; the one used least recently makes room.
    """

    def __init__(self, layout: Layout, num_slots: int, window: int, pool_size: int) -> None:
        self._window, self._pool_size = window, pool_size
        self._pool: OrderedDict[bytes, list[torch.Tensor]] = OrderedDict()
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
        """Become as new, prompts, rows and capacity: what is computed later must not depend on what was before.

        The rows are zeroed, since a NaN left in a masked column would spoil the slot's next text.
        """
        self._pool.clear()
        self._seen_once.clear()
        self._capacity = min(_FIRST_CAPACITY, self._window)
        self._blocks = [block.new_zeros(*block.shape[:3], self._capacity, block.shape[4]) for block in self._blocks]
        self.layers = self._views()

    def reserve(self, width: int) -> None:
        """Make room for texts of `width` tokens."""
        if width <= self._capacity:
            return
        wanted = max(width, int(_GROWTH * self._capacity))
        old, self._capacity = self._capacity, min(self._window, -(-wanted // 8) * 8)
        for i, block in enumerate(self._blocks):
            self._blocks[i] = block.new_zeros(*block.shape[:3], self._capacity, block.shape[4])
            self._blocks[i][:, :, :, :old] = block
        self.layers = self._views()

    def readable(self, width: int) -> int:
        """Return how many columns to read where `width` are needed: rows without gaps are read faster."""
        return self._capacity if self._capacity <= max(_READ_WHOLE, 2 * width) else width

    def load(self, prompt: bytes, slots: Iterable[int]) -> bool:
        """Copy what the pool holds of a prompt to the rows of `slots`; tell whether it holds it."""
        copies = self._pool.get(prompt)
        if copies is None:
            return False
        self._pool.move_to_end(prompt)
        for block, copy in zip(self._blocks, copies, strict=True):
            for slot in slots:
                block[:, slot, :, : copy.shape[2]] = copy
        return True

    def is_wanted(self, prompt: bytes, times: int) -> bool:
        """Note that `times` slots start with a prompt; tell whether it was needed twice by now, which earns a place."""
        if not self._pool_size:
            return False
        name = hash(prompt)
        is_wanted = times > 1 or name in self._seen_once
        self._seen_once[name] = None
        if len(self._seen_once) > _REMEMBERED * self._pool_size:
            self._seen_once.popitem(last=False)
        return is_wanted

    def save(self, prompt: bytes, slot: int, width: int) -> None:
        """Put the first `width` columns of a slot's row into the pool."""
        self._pool[prompt] = [block[:, slot, :, :width].clone() for block in self._blocks]
        if len(self._pool) > self._pool_size:
            self._pool.popitem(last=False)

    def _views(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        return {
            index: (self._blocks[keys[0]][keys[1]], self._blocks[values[0]][values[1]])
            for index, (keys, values) in self._places.items()
        }
