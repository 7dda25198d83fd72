"""The fast way to keep a cache: rows of keys and values per slot, behind an attention function of our own.

A step is one packed forward of shape (1, tokens): the newest token of every slot, then the tokens that some slots miss
before it. It serves every model whose attention goes through transformers' `AttentionInterface`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.lm.attention import Attention, AttentionOptions, Queries, replaced_attention
from textgym.lm.heads import embedding_weight, head_input
from textgym.lm.store import KeyValueStore, Layout
from textgym.lm.way import Integers, Step

_TOKENS_PER_FORWARD = 8192
"""Where a step feeds more, the slots take turns, which bounds the activations."""


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


@dataclass(slots=True)
class _Writes:
    """Where keys and values go: those of packed token `source[i]` to column `columns[i]` of row `rows[i]`."""

    rows: torch.Tensor
    columns: torch.Tensor
    source: torch.Tensor | None
    """None where write i is token i. One token goes to all slots that start with the same text."""


@dataclass(slots=True)
class _Rest:
    """The packed tokens after the newest ones, as a rectangle of queries."""

    queries: Queries
    gather: torch.Tensor
    """(B * Q,) packed token of each query; past the end of a row any."""
    scatter: torch.Tensor
    """Query of each of these tokens."""


@dataclass(slots=True)
class _PackedAttention:
    """Attention of one packed forward; see `attention.Attention`."""

    store: KeyValueStore
    writes: _Writes
    newest: Queries
    rest: _Rest | None

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        keys, values = self.store.layers[layer]
        writes = self.writes
        for stored, new in ((keys, key), (values, value)):
            tokens = new[0].transpose(0, 1)
            stored[writes.rows, :, writes.columns] = tokens if writes.source is None else tokens[writes.source]
        first = query[0, :, : len(self.newest.positions)].transpose(0, 1)[:, :, None]
        attended = self.newest.attend(first, keys, values, options)[:, :, 0]
        if self.rest is not None:
            queries = self.rest.queries
            rest = query[0].index_select(1, self.rest.gather).unflatten(1, queries.positions.shape).transpose(0, 1)
            rest = queries.attend(rest, keys, values, options).transpose(1, 2).flatten(0, 1)
            attended = torch.cat([attended, rest.index_select(0, self.rest.scatter)])
        return attended[None]


class PackedRows:
    """Keeps keys and values in own rows; see `way.Way`."""

    caching = "rows"

    def __init__(self, model: PreTrainedModel, num_slots: int, window: int, prompt_cache_size: int) -> None:
        self._model, self._num_slots = model, num_slots
        modules = (module for module in model.modules() if isinstance(module, PreTrainedModel))
        self._configs = list({id(module.config): module.config for module in modules}.values())
        self._device = embedding_weight(model).device
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
        result = self._feed(step, missed)
        for text, row in missed.wanted if missed is not None else ():
            self._store.save(text, int(step.slots[row]), int(step.lengths[row]) - 1)
        return result

    def _missed(self, step: Step) -> _Missed | None:
        """Take from the pool what it holds, and group the other slots by text."""
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

    def _feed(self, step: Step, missed: _Missed | None) -> tuple[torch.Tensor, torch.Tensor]:
        num_newest, last = len(step.slots), step.lengths - 1
        tokens, positions = step.ids[np.arange(num_newest), last], last
        rows, columns, source, rest = step.slots, last, None, None
        if missed is not None:
            count = missed.stop - missed.start
            leader, offset = _ranges(count)
            fed = missed.leaders[leader]
            column = missed.start[leader] + offset
            tokens = np.concatenate([tokens, step.ids[fed, column]])
            positions = columns = np.concatenate([positions, column])
            rows = np.concatenate([rows, step.slots[fed]])
            first = num_newest + np.cumsum(count) - count
            if len(missed.followers):
                follower, offset_copied = _ranges(count[missed.followed])
                origin = missed.followed[follower]
                source = self._tensor(np.concatenate([np.arange(len(tokens)), first[origin] + offset_copied]))
                columns = np.concatenate([columns, missed.start[origin] + offset_copied])
                rows = np.concatenate([rows, step.slots[missed.followers[follower]]])
            rest = self._rest(step, missed, first, leader * count.max() + offset)
        slots = None if num_newest == self._num_slots else self._tensor(step.slots)
        width = self._store.readable(int(step.lengths.max()))
        newest = Queries(slots, self._tensor(last)[:, None], width)
        writes = _Writes(self._tensor(rows), self._tensor(columns), source)
        attention = _PackedAttention(self._store, writes, newest, rest)
        return self._forward(attention, tokens, positions, num_newest)

    def _rest(self, step: Step, missed: _Missed, first: Integers, scatter: Integers) -> _Rest:
        """Arrange the tokens that are not newest; `first` (B,) are the packed ones where each leader's begin."""
        count = missed.stop - missed.start
        across = np.arange(count.max())
        slots, positions = step.slots[missed.leaders], missed.start[:, None] + across
        gather = first[:, None] + np.minimum(across, count[:, None] - 1)
        queries = Queries(self._tensor(slots), self._tensor(positions), int(missed.stop.max()))
        return _Rest(queries, self._tensor(gather.ravel()), self._tensor(scatter))

    def _forward(
        self, attention: Attention, tokens: Integers, positions: Integers, num_newest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with (
            replaced_attention(self._configs, attention),
            head_input(self._model, lambda hidden: hidden[:, :num_newest]) as read,
        ):
            logits = self._model(
                input_ids=self._tensor(tokens)[None],
                position_ids=self._tensor(positions)[None],
                attention_mask=self._no_mask,
                use_cache=False,
            ).logits
        return logits[0], read[0][0]

    def _layout(self, window: int) -> Layout:
        """Feed one token to see which layers there are, and whether all of them can be served."""
        layout = {}
        config = self._model.config.get_text_config(decoder=True)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        chunk = getattr(config, "attention_chunk_size", None) or 0

        def look(
            layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: AttentionOptions
        ) -> torch.Tensor:
            is_known = kinds[layer] == "full_attention" or (kinds[layer] == "sliding_attention" and options.window)
            if not is_known and window > chunk:
                raise NotImplementedError(f"{kinds[layer]} in layer {layer}")
            layout[layer] = (key, value)
            return value.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(1, 2)

        self._forward(look, np.zeros(1, np.int64), np.zeros(1, np.int64), 1)
        if len(layout) != config.num_hidden_layers:
            raise NotImplementedError(f"{len(layout)} of {config.num_hidden_layers} layers use AttentionInterface")
        return layout

    def _tensor(self, array: Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _ranges(counts: Integers) -> tuple[Integers, Integers]:
    """For counts (2, 3) return (0, 0, 1, 1, 1) and (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
