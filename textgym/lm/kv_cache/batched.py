"""Batched KV-cache backend: transformers' `Cache` interface over one cache row per slot.

It supports models with full attention that ignore `AttentionInterface`, such as BLOOM and GPT-J. The newest tokens are
a batch of shape (n, 1). Slots that miss more are fed again from their first token, in a padded batch.
"""

from __future__ import annotations

import inspect

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from textgym.lm.kv_cache.base import Integers, KVStorage, Layout, Step
from textgym.lm.model import embedding_weight, lm_head_hook

_WINDOWS = ("sliding_window", "window_size", "attention_window", "attention_chunk_size")
"""Configuration keys of local attention, which would count columns from the wrong end."""


class _RowLayer(DynamicLayer):
    """Cache layer over a layer's rows that writes each slot's newest token to its own column."""

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, last: torch.Tensor, width: int
    ) -> None:
        super().__init__()
        self._stored, self._slots, self._last, self._width = (keys, values), slots, last, width

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the newest tokens; return keys and values, (n, heads, width, head dimension) each."""
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[self._slots, :, self._last] = new[:, :, 0]
        keys, values = (stored[:, :, : self._width].index_select(0, self._slots) for stored in self._stored)
        return keys, values

    def get_seq_length(self) -> int:
        """Return the number of columns before the newest token, as the model counts them."""
        return self._width - 1


class BatchedBackend:
    """Feed the newest tokens as a batch, restarted sequences whole; see `base.KVCacheBackend`."""

    name = "batched"

    def __init__(self, model: PreTrainedModel, num_slots: int, window: int) -> None:
        self._model = model
        self._device = embedding_weight(model).device
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        config = model.config.get_text_config(decoder=True)
        for name in _WINDOWS:
            if (getattr(config, name, None) or window) < window:
                raise NotImplementedError(f"attention limited by {name}")
        self._storage = KVStorage(self._layout(config.num_hidden_layers), num_slots, window, prompt_cache_size=0)

    def clear(self) -> None:
        """Reset the rows."""
        self._storage.clear()

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, V) and hidden states (n, H) of each sequence's newest token."""
        last, width = step.lengths - 1, int(step.lengths.max())
        self._storage.reserve(width)
        missing = (step.start < last).nonzero()[0]
        if len(missing):
            self._refill(step.ids[missing], last[missing], step.slots[missing])
        slots, columns = self._tensor(step.slots), self._tensor(last)
        cache = Cache(layers=[_RowLayer(*pair, slots, columns, width) for pair in self._storage.layers.values()])
        with lm_head_hook(self._model, lambda hidden: hidden[:, -1:]) as read:
            newest = step.ids[np.arange(len(last)), last][:, None]
            logits = self._forward(newest, np.arange(width) <= last[:, None], last[:, None], cache)
        return logits[:, 0], read[0][:, 0]

    def _refill(self, ids: Integers, lengths: Integers, slots: Integers) -> None:
        """Feed the first `lengths` tokens of each sequence and store their keys and values in the rows of `slots`."""
        width = int(lengths.max())
        is_token = np.arange(width) < lengths[:, None]
        positions = np.tile(np.arange(width), (len(ids), 1))
        cache = DynamicCache()
        with lm_head_hook(self._model, lambda hidden: hidden[:, -1:]):
            self._forward(np.where(is_token, ids[:, :width], 0), is_token, positions, cache)
        index = self._tensor(slots)
        for number, pair in _keys_and_values(cache).items():
            for stored, new in zip(self._storage.layers[number], pair, strict=True):
                stored[index, :, :width] = new

    def _layout(self, num_layers: int) -> Layout:
        """Feed one token to find the layers and to check that all of them keep keys and values."""
        cache = DynamicCache()
        with lm_head_hook(self._model, lambda hidden: hidden):
            self._forward(np.zeros((1, 1), np.int64), np.ones((1, 1), bool), np.zeros((1, 1), np.int64), cache)
        layout = _keys_and_values(cache)
        if len(layout) != num_layers:
            raise NotImplementedError(f"{len(layout)} of {num_layers} layers keep keys and values")
        return layout

    def _forward(self, ids: Integers, is_token: NDArray[np.bool_], positions: Integers, cache: Cache) -> torch.Tensor:
        options = {"position_ids": self._tensor(positions)} if self._takes_positions else {}
        logits: torch.Tensor = self._model(
            input_ids=self._tensor(ids),
            attention_mask=self._tensor(is_token.astype(np.int64)),
            past_key_values=cache,
            use_cache=True,
            **options,
        ).logits
        return logits

    def _tensor(self, array: Integers) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _keys_and_values(cache: Cache) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return keys and values of each layer that keeps all columns, (batch, heads, columns, head dimension) each."""
    kept = {}
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            kept[number] = (layer.keys, layer.values)
    return kept
