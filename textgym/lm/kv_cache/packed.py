"""Packed KV-cache backend: one forward of shape (1, tokens) per step, with attention over one cache row per slot.

The packed tokens are the newest token of each slot (decode), then the earlier tokens that some slots miss (prefill). It
supports every model whose attention goes through transformers' `AttentionInterface`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.lm.kv_cache.attention import (
    Attention,
    AttentionOptions,
    PackedAttention,
    Prefill,
    Queries,
    Writes,
    replaced_attention,
)
from textgym.lm.kv_cache.base import Integers, KVStorage, Layout, Step
from textgym.lm.model import embedding_weight, lm_head_hook

_TOKENS_PER_FORWARD = 8192
"""A step with more tokens is split by slots, which bounds the memory of the activations."""


@dataclass(slots=True)
class _PrefillPlan:
    """Tokens before the newest ones that a step feeds. Indices are rows of the step."""

    rows: Integers
    """(B,) one row of each distinct prefix."""
    start: Integers
    stop: Integers
    """(B,) columns to feed, `stop` excluded."""
    copies: Integers
    origins: Integers
    """(F,) other rows with one of these prefixes, and the index in `rows` to copy keys and values from."""
    to_save: list[tuple[bytes, int]]
    """Prefixes to add to the prompt cache, and their rows."""


class PackedBackend:
    """Feed new tokens only, as one packed sequence; see `base.KVCacheBackend`."""

    name = "packed"

    def __init__(self, model: PreTrainedModel, num_slots: int, window: int, prompt_cache_size: int) -> None:
        self._model, self._num_slots = model, num_slots
        modules = (module for module in model.modules() if isinstance(module, PreTrainedModel))
        self._configs = list({id(module.config): module.config for module in modules}.values())
        self._device = embedding_weight(model).device
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        self._storage = KVStorage(self._layout(window), num_slots, window, prompt_cache_size)

    def clear(self) -> None:
        """Reset rows and prompts."""
        self._storage.clear()

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, V) and hidden states (n, H) of each sequence's newest token."""
        if len(step.slots) > 1 and (step.lengths - step.start).sum() > _TOKENS_PER_FORWARD:
            logits, hidden = zip(*(self(half) for half in step.halves()), strict=True)
            return torch.cat(logits), torch.cat(hidden)
        self._storage.reserve(int(step.lengths.max()))
        plan = self._plan_prefill(step)
        result = self._feed(step, plan)
        for prefix, row in plan.to_save if plan is not None else ():
            self._storage.save_prompt(prefix, int(step.slots[row]), int(step.lengths[row]) - 1)
        return result

    def _plan_prefill(self, step: Step) -> _PrefillPlan | None:
        """Load cached prompts, and group the other rows with missing tokens by prefix."""
        last = step.lengths - 1
        prefixes: dict[bytes, list[int]] = {}
        for row in (step.start < last).nonzero()[0].tolist():
            prefixes.setdefault(step.ids[row, : last[row]].tobytes(), []).append(row)
        first_rows: list[int] = []
        start: list[int] = []
        copies: list[int] = []
        origins: list[int] = []
        to_save = []
        for prefix, rows in prefixes.items():
            if self._storage.load_prompt(prefix, step.slots[rows].tolist()):
                continue
            if self._storage.count_prompt(prefix, len(rows)):
                to_save.append((prefix, rows[0]))
            copies += rows[1:]
            origins += [len(first_rows)] * (len(rows) - 1)
            first_rows.append(rows[0])
            start.append(int(step.start[rows].min()))
        if not first_rows:
            return None
        fed, copied, origin = (np.array(part, np.int64) for part in (first_rows, copies, origins))
        return _PrefillPlan(fed, np.array(start), last[fed], copied, origin, to_save)

    def _feed(self, step: Step, plan: _PrefillPlan | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pack the tokens of a step, address their queries, keys and values, and run the forward."""
        num_decode, last = len(step.slots), step.lengths - 1
        tokens, positions = step.ids[np.arange(num_decode), last], last
        slots, columns, source, prefill = step.slots, last, None, None
        if plan is not None:
            count = plan.stop - plan.start
            index, offset = _ranges(count)
            row = plan.rows[index]
            column = plan.start[index] + offset
            tokens = np.concatenate([tokens, step.ids[row, column]])
            positions = columns = np.concatenate([positions, column])
            slots = np.concatenate([slots, step.slots[row]])
            first = num_decode + np.cumsum(count) - count
            if len(plan.copies):
                copy, offset_copied = _ranges(count[plan.origins])
                origin = plan.origins[copy]
                source = self._tensor(np.concatenate([np.arange(len(tokens)), first[origin] + offset_copied]))
                columns = np.concatenate([columns, plan.start[origin] + offset_copied])
                slots = np.concatenate([slots, step.slots[plan.copies[copy]]])
            prefill = self._prefill(step, plan, first, index * count.max() + offset)
        decode_slots = None if num_decode == self._num_slots else self._tensor(step.slots)
        width = self._storage.readable(int(step.lengths.max()))
        decode = Queries(decode_slots, self._tensor(last)[:, None], width)
        writes = Writes(self._tensor(slots), self._tensor(columns), source)
        attention = PackedAttention(self._storage, writes, decode, prefill)
        return self._forward(attention, tokens, positions, num_decode)

    def _prefill(self, step: Step, plan: _PrefillPlan, first: Integers, scatter: Integers) -> Prefill:
        """Arrange the prefill tokens as a rectangle; row b starts at packed token `first[b]`."""
        count = plan.stop - plan.start
        across = np.arange(count.max())
        slots, positions = step.slots[plan.rows], plan.start[:, None] + across
        gather = first[:, None] + np.minimum(across, count[:, None] - 1)
        queries = Queries(self._tensor(slots), self._tensor(positions), int(plan.stop.max()))
        return Prefill(queries, self._tensor(gather.ravel()), self._tensor(scatter))

    def _forward(
        self, attention: Attention, tokens: Integers, positions: Integers, num_decode: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with (
            replaced_attention(self._configs, attention),
            lm_head_hook(self._model, lambda hidden: hidden[:, :num_decode]) as read,
        ):
            logits = self._model(
                input_ids=self._tensor(tokens)[None],
                position_ids=self._tensor(positions)[None],
                attention_mask=self._no_mask,
                use_cache=False,
            ).logits
        return logits[0], read[0][0]

    def _layout(self, window: int) -> Layout:
        """Feed one token to find the layers and to check that all of them are supported."""
        layout = {}
        config = self._model.config.get_text_config(decoder=True)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        chunk = getattr(config, "attention_chunk_size", None) or 0

        def record(
            layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: AttentionOptions
        ) -> torch.Tensor:
            is_known = kinds[layer] == "full_attention" or (kinds[layer] == "sliding_attention" and options.window)
            if not is_known and window > chunk:
                raise NotImplementedError(f"{kinds[layer]} in layer {layer}")
            layout[layer] = (key, value)
            return value.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(1, 2)

        self._forward(record, np.zeros(1, np.int64), np.zeros(1, np.int64), 1)
        if len(layout) != config.num_hidden_layers:
            raise NotImplementedError(f"{len(layout)} of {config.num_hidden_layers} layers use AttentionInterface")
        return layout

    def _tensor(self, array: Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _ranges(counts: Integers) -> tuple[Integers, Integers]:
    """For counts (2, 3) return (0, 0, 1, 1, 1) and (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
