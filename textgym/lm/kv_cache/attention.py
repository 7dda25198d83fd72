"""Attention of packed tokens of several sequences over the keys and values of their slots.

transformers' `AttentionInterface` calls it in place of a model's own attention inside `replaced_attention`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from textgym.lm.kv_cache.base import KVStorage

_IMPLEMENTATION = "textgym_packed"


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """Parameters of a layer's attention."""

    scaling: float
    window: int | None
    """Sliding window in tokens, the query's own included; None for full attention."""
    softcap: float | None
    sinks: torch.Tensor | None
    """(query heads,) attention sinks: logits that take part in the softmax and have no value."""


Attention: TypeAlias = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, AttentionOptions], torch.Tensor]
"""Attention function: layer, query, key and value, (1, heads, tokens, head dimension) each, to (1, tokens, heads, head
dimension)."""


class _Active(threading.local):
    attention: Attention | None = None


_active = _Active()


@contextmanager
def replaced_attention(configs: Sequence[PreTrainedConfig], attention: Attention) -> Iterator[None]:
    """Context manager: the models with these configurations use `attention`, in this thread only."""
    before = [config._attn_implementation for config in configs]
    try:
        _active.attention = attention
        for config in configs:
            config._attn_implementation = _IMPLEMENTATION
        yield
    finally:
        _active.attention = None
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if _active.attention is None:  # another thread runs the same model
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if kwargs.get("position_bias") is not None:
        raise NotImplementedError("attention with a position bias")
    options = AttentionOptions(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=kwargs.get("sliding_window", getattr(module, "sliding_window", None)),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
    layer: Any = module.layer_idx
    return _active.attention(layer, query, key, value, options), None


AttentionInterface.register(_IMPLEMENTATION, _attend)
AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)


@dataclass(slots=True)
class PackedAttention:
    """Attention of one packed forward: store the new keys and values, then attend over the slots' rows."""

    storage: KVStorage
    writes: Writes
    decode: Queries
    """The first packed tokens, one query per slot."""
    prefill: Prefill | None

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        """Return the attention output (1, tokens, heads, head dimension) of one layer."""
        keys, values = self.storage.layers[layer]
        writes = self.writes
        for stored, new in ((keys, key), (values, value)):
            tokens = new[0].transpose(0, 1)
            stored[writes.slots, :, writes.columns] = tokens if writes.source is None else tokens[writes.source]
        first = query[0, :, : len(self.decode.positions)].transpose(0, 1)[:, :, None]
        attended = self.decode.attend(first, keys, values, options)[:, :, 0]
        if self.prefill is not None:
            queries = self.prefill.queries
            rest = query[0].index_select(1, self.prefill.gather).unflatten(1, queries.positions.shape).transpose(0, 1)
            rest = queries.attend(rest, keys, values, options).transpose(1, 2).flatten(0, 1)
            attended = torch.cat([attended, rest.index_select(0, self.prefill.scatter)])
        return attended[None]


@dataclass(slots=True)
class Writes:
    """Destinations of keys and values: token `source[i]` goes to column `columns[i]` of slot `slots[i]`."""

    slots: torch.Tensor
    columns: torch.Tensor
    source: torch.Tensor | None
    """None where write i is token i. One token goes to all slots that start with the same tokens."""


@dataclass(slots=True)
class Prefill:
    """The packed tokens after the decode tokens, as a rectangle of queries."""

    queries: Queries
    gather: torch.Tensor
    """(B * Q,) packed token of each query; arbitrary past the end of a row."""
    scatter: torch.Tensor
    """Query of each of these tokens."""


@dataclass(slots=True)
class Queries:
    """A rectangle of B x Q queries; row b attends to the keys and values of one slot.

    Where most slots have a single query, the rows of all slots are read in place and the queries are padded: gathering
    the rows of the active slots would copy nearly the whole cache.
    """

    slots: torch.Tensor | None
    """(B,) slots; None where B is all slots in order."""
    positions: torch.Tensor
    """(B, Q) columns of the queries."""
    width: int
    """Number of columns to read, above all positions."""
    masks: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)
    _padded: Queries | None = None

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        """Return the attention (B, H, Q, D) of queries (B, H, Q, D) over rows (N, heads, columns, D) of all slots."""
        if self.slots is not None and query.shape[2] == 1 and 2 * len(self.slots) > len(keys):
            if self._padded is None:
                positions = self.positions.new_zeros(len(keys), self.positions.shape[1])
                self._padded = Queries(None, positions.index_copy_(0, self.slots, self.positions), self.width)
            padded = query.new_zeros(len(keys), *query.shape[1:]).index_copy_(0, self.slots, query)
            return self._padded.attend(padded, keys, values, options).index_select(0, self.slots)
        keys, values = self._rows(keys), self._rows(values)
        size, num_heads, num_queries, _ = query.shape
        heads = keys.shape[1]
        if num_queries > 1 and options.softcap is None and options.sinks is None:
            mask = self._mask(1, 1, options.window, query.dtype).unsqueeze(1)
            return F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=options.scaling, enable_gqa=heads < num_heads
            )
        # Query heads that share keys become queries of one head. With one query per head this is faster than SDPA.
        folded = query.reshape(size * heads, -1, query.shape[-1])
        mask = self._mask(heads, num_heads // heads, options.window, query.dtype)
        scores = _scores(folded, keys.flatten(0, 1), mask, options)
        if options.sinks is not None:
            sinks = options.sinks.to(scores.dtype).view(1, heads, -1, 1).expand(size, -1, -1, num_queries)
            scores = torch.cat([scores, sinks.reshape(size * heads, -1, 1)], -1)
        weights = torch.softmax(scores, -1)[..., : self.width]
        return torch.bmm(weights, values.flatten(0, 1)).view(size, num_heads, num_queries, -1)

    def _rows(self, stored: torch.Tensor) -> torch.Tensor:
        stored = stored[:, :, : self.width]
        return stored if self.slots is None else stored.index_select(0, self.slots)

    def _mask(self, heads: int, group: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Return the additive mask (B * heads, group * Q, width), computed once per step."""
        name = (heads, group, window, dtype)
        if name not in self.masks:
            columns = torch.arange(self.width, device=self.positions.device)
            positions = self.positions[..., None]
            is_hidden = columns > positions
            if window is not None:
                is_hidden |= columns <= positions - window
            mask = torch.zeros(is_hidden.shape, dtype=dtype, device=columns.device)
            size, num_queries = self.positions.shape
            mask = mask.masked_fill_(is_hidden, -torch.inf)[:, None, None]
            mask = mask.expand(size, heads, group, num_queries, self.width)
            self.masks[name] = mask.reshape(size * heads, group * num_queries, self.width)
        return self.masks[name]


def _scores(query: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor, options: AttentionOptions) -> torch.Tensor:
    if options.softcap is None:
        return torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=options.scaling)
    scores = torch.bmm(query, keys.transpose(1, 2)).mul_(options.scaling / options.softcap)
    return scores.tanh_().mul_(options.softcap).add_(mask)
