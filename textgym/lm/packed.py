"""The fast way to keep a cache: own rows of keys and values, behind an attention function that transformers lets us register.

A step is one packed forward of shape (1, tokens): the newest token of every slot, then the tokens that some slots miss
before it. It serves every model whose attention goes through transformers' `AttentionInterface`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .head import head_input
from .store import KeyValueStore, Layout
from .way import Integers, Step

_IMPLEMENTATION = "textgym_rows"
_TOKENS_PER_FORWARD = 8192
"""Above this many re-fed tokens the slots take turns, which bounds the activations."""


@dataclass(frozen=True, slots=True)
class _Options:
    """What a layer's attention does besides softmax(q k^T) v."""

    scaling: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None
    """(query heads,) logits that take part in the softmax and have no value."""


class _Attention(Protocol):
    """What replaces the attention of a model while one of our forwards runs; see `_attend` for the shapes."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: _Options
    ) -> torch.Tensor: ...


class _Active(threading.local):
    attention: _Attention | None = None


_active = _Active()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: (1, heads, tokens, head dimension) in, (1, tokens, heads, head dimension) out."""
    if _active.attention is None:  # another thread uses the same model for something else
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if kwargs.get("position_bias") is not None:
        raise NotImplementedError("attention with a position bias")
    options = _Options(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=kwargs.get("sliding_window", getattr(module, "sliding_window", None)),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
    return _active.attention(module.layer_idx, query, key, value, options), None


AttentionInterface.register(_IMPLEMENTATION, _attend)
AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)


@dataclass(slots=True)
class _Queries:
    """A rectangle of B x Q queries; row b reads the keys and values of one slot."""

    slots: torch.Tensor | None
    """(B,) slots; None where B is all slots in order."""
    positions: torch.Tensor
    """(B, Q) columns of the queries."""
    width: int
    """Columns that some query may see."""
    masks: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)

    def attend(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, options: _Options) -> torch.Tensor:
        """Attention of queries (B, H, Q, D) over rows (N, heads, columns, D): (B, H, Q, D)."""
        keys, values = self._rows(keys), self._rows(values)
        size, num_heads, num_queries, _ = query.shape
        heads = keys.shape[1]
        if num_queries > 1 and options.softcap is None and options.sinks is None:
            mask = self._mask(1, 1, options.window, query.dtype).unsqueeze(1)
            return F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=options.scaling, enable_gqa=heads < num_heads
            )
        # Queries of the heads that share keys are queries of one head. At one query this is 1.5 x as fast as SDPA.
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
        """Additive mask (B * heads, group * Q, width), made once a step."""
        name = (heads, group, window, dtype)
        if name not in self.masks:
            columns = torch.arange(self.width, device=self.positions.device)
            positions = self.positions[..., None]
            hidden = columns > positions
            if window is not None:
                hidden |= columns <= positions - window
            size, num_queries = self.positions.shape
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            mask = mask[:, None, None].expand(size, heads, group, num_queries, self.width)
            self.masks[name] = mask.reshape(size * heads, group * num_queries, self.width)
        return self.masks[name]


def _scores(query: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor, options: _Options) -> torch.Tensor:
    if options.softcap is None:
        return torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=options.scaling)
    scores = torch.bmm(query, keys.transpose(1, 2)).mul_(options.scaling / options.softcap)
    return scores.tanh_().mul_(options.softcap).add_(mask)


@dataclass(slots=True)
class _Feed:
    """One packed forward: `newest` queries first, then the tokens before them that some slots miss."""

    store: KeyValueStore
    tokens: torch.Tensor
    """(M,) ids of the packed tokens."""
    positions: torch.Tensor
    """(M,) columns of the packed tokens."""
    rows: torch.Tensor
    columns: torch.Tensor
    """Where keys and values are written to."""
    source: torch.Tensor | None
    """Packed token of every write, None where write i is token i. One token is written to all slots that share a prompt."""
    newest: _Queries
    missed: _Queries | None
    gather: torch.Tensor | None
    """(B * Q,) packed tokens of the `missed` queries."""
    scatter: torch.Tensor | None
    """(M - N,) place in the `missed` queries of each packed token."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: _Options
    ) -> torch.Tensor:
        keys, values = self.store.layers[layer]
        for stored, new in ((keys, key), (values, value)):
            written = new[0].transpose(0, 1)
            stored[self.rows, :, self.columns] = written if self.source is None else written[self.source]
        num_newest = self.newest.positions.shape[0]
        first = query[0, :, :num_newest].transpose(0, 1)[:, :, None]
        attended = self.newest.attend(first, keys, values, options)[:, :, 0]
        if self.missed is not None and self.gather is not None and self.scatter is not None:
            size, num_queries = self.missed.positions.shape
            rest = query[0].index_select(1, self.gather).unflatten(1, (size, num_queries)).transpose(0, 1)
            rest = self.missed.attend(rest, keys, values, options).transpose(1, 2)
            attended = torch.cat([attended, rest.flatten(0, 1).index_select(0, self.scatter)])
        return attended[None]


@dataclass(slots=True)
class _Missed:
    """Which tokens before the newest ones a step feeds, and for whom. Indices are rows of the step."""

    leaders: Integers
    """(B,) one slot of each different text."""
    start: Integers
    stop: Integers
    """(B,) columns to feed, `stop` not included."""
    followers: Integers
    followed: Integers
    """(F,) slots that get the same keys and values, and the place in `leaders` of the slot they come from."""
    wanted: list[tuple[bytes, int]]
    """Texts that the pool wants, and their leaders."""


class PackedRows:
    """Keeps keys and values in own rows; see `way.Way`."""

    caching = "rows"

    def __init__(self, model: PreTrainedModel, num_slots: int, window: int, prompt_cache_size: int) -> None:
        self._model, self._num_slots = model, num_slots
        modules = (module for module in model.modules() if isinstance(module, PreTrainedModel))
        self._configs = list({id(module.config): module.config for module in modules}.values())
        self._device = model.get_input_embeddings().weight.device
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        self._store = KeyValueStore(self._layout(window), num_slots, window, prompt_cache_size)

    def clear(self) -> None:
        """Forget the prompts; which rows hold something the stream itself knows."""
        self._store.clear()

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, V) and hidden states (n, H) of each text's newest token."""
        if len(step.slots) > 1 and (step.lengths - step.start).sum() > _TOKENS_PER_FORWARD:
            logits, hidden = zip(*(self(half) for half in step.halves()), strict=True)
            return torch.cat(logits), torch.cat(hidden)
        self._store.reserve(int(step.lengths.max()))
        missed = self._missed(step)
        feed = self._feed(step, missed)
        result = self._forward(feed, feed.tokens, feed.positions, len(step.slots))
        for text, row in missed.wanted if missed is not None else ():
            self._store.save(text, int(step.slots[row]), int(step.lengths[row]) - 1)
        return result

    def _missed(self, step: Step) -> _Missed | None:
        """Load what the pool holds, group what it does not."""
        last = step.lengths - 1
        texts: dict[bytes, list[int]] = {}
        for row in (step.start < last).nonzero()[0].tolist():
            texts.setdefault(step.ids[row, : last[row]].tobytes(), []).append(row)
        leaders: list[int] = []
        start: list[int] = []
        followers: list[int] = []
        followed: list[int] = []
        wanted = []
        for text, rows in texts.items():
            if self._store.load(text, step.slots[rows].tolist()):
                continue
            if self._store.is_wanted(text, len(rows)):
                wanted.append((text, rows[0]))
            followers += rows[1:]
            followed += [len(leaders)] * (len(rows) - 1)
            leaders.append(rows[0])
            start.append(int(step.start[rows].min()))
        if not leaders:
            return None
        leading, following, origins = (np.array(part, np.int64) for part in (leaders, followers, followed))
        return _Missed(leading, np.array(start), last[leading], following, origins, wanted)

    def _feed(self, step: Step, missed: _Missed | None) -> _Feed:
        num_newest, last = len(step.slots), step.lengths - 1
        slots = None if num_newest == self._num_slots else self._tensor(step.slots)
        newest = _Queries(slots, self._tensor(last)[:, None], int(last.max()) + 1)
        tokens, positions, rows = step.ids[np.arange(num_newest), last], last, step.slots
        if missed is None:
            place = self._tensor(rows), self._tensor(last)
            return _Feed(self._store, self._tensor(tokens), place[1], *place, None, newest, None, None, None)
        count = missed.stop - missed.start
        leader, offset = _ranges(count)
        column = missed.start[leader] + offset
        tokens = np.concatenate([tokens, step.ids[missed.leaders[leader], column]])
        positions = np.concatenate([last, column])
        rows = np.concatenate([rows, step.slots[missed.leaders[leader]]])
        columns, source = positions, None
        first = num_newest + np.cumsum(count) - count
        if len(missed.followers):
            follower, copied = _ranges(count[missed.followed])
            origin = missed.followed[follower]
            source = self._tensor(np.concatenate([np.arange(len(tokens)), first[origin] + copied]))
            rows = np.concatenate([rows, step.slots[missed.followers[follower]]])
            columns = np.concatenate([columns, missed.start[origin] + copied])
        across = np.arange(count.max())
        gather = first[:, None] + np.minimum(across, count[:, None] - 1)
        return _Feed(
            self._store,
            *(self._tensor(part) for part in (tokens, positions, rows, columns)),
            source,
            newest,
            _Queries(
                self._tensor(step.slots[missed.leaders]),
                self._tensor(missed.start[:, None] + across),
                int(missed.stop.max()),
            ),
            self._tensor(gather.ravel()),
            self._tensor(leader * len(across) + offset),
        )

    def _forward(
        self, attention: _Attention, tokens: torch.Tensor, positions: torch.Tensor, num_newest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        before = [config._attn_implementation for config in self._configs]
        try:
            _active.attention = attention
            for config in self._configs:
                config._attn_implementation = _IMPLEMENTATION
            with head_input(self._model, lambda hidden: hidden[:, :num_newest]) as read:
                logits = self._model(
                    input_ids=tokens[None], position_ids=positions[None], attention_mask=self._no_mask, use_cache=False
                ).logits
        finally:
            _active.attention = None
            for config, implementation in zip(self._configs, before, strict=True):
                config._attn_implementation = implementation
        return logits[0], read[0][0]

    def _layout(self, window: int) -> Layout:
        """Feed one token to see which layers there are, and whether all of them can be served."""
        layout = {}
        config = self._model.config.get_text_config(decoder=True)
        kinds = getattr(config, "layer_types", None) or ()

        def look(
            layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: _Options
        ) -> torch.Tensor:
            layout[layer] = (key, value)
            kind = kinds[layer] if layer < len(kinds) else "full_attention"
            is_served = kind == "full_attention" or (kind == "sliding_attention" and options.window is not None)
            if not is_served and window > (getattr(config, "attention_chunk_size", None) or 0):
                raise NotImplementedError(f"{kind} in layer {layer}")
            return value.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(1, 2)

        self._forward(look, *self._tensor(np.zeros((2, 1), np.int64)), 1)
        if len(layout) != config.num_hidden_layers:
            raise NotImplementedError(f"{len(layout)} of {config.num_hidden_layers} layers use AttentionInterface")
        return layout

    def _tensor(self, array: Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _ranges(counts: Integers) -> tuple[Integers, Integers]:
    """For counts (2, 3) return (0, 0, 1, 1, 1) and (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
