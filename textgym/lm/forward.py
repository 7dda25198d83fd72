"""Differentiable forward over whole token sequences, with little padding and shared prompts computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from textgym.lm.kv_cache.selection import UNSUPPORTED
from textgym.lm.model import embedding_weight, lm_head_hook

_FORWARD_COST = {"cpu": 64, "cuda": 4096}
"""Fixed cost of one more forward and backward, in tokens, by device type."""


@dataclass(frozen=True)
class _Pass:
    """One forward pass: columns `start` to `stop` of some sequences."""

    sequences: npt.NDArray[np.int64]
    start: int
    stop: int
    is_prompt: bool = False
    """Whether it is the common prompt of these sequences, fed once; its cache serves the passes that follow."""


class WholeSequenceForward:
    """Differentiable forward of a causal LM over whole sequences, for learning; acting uses `LMStream`.

    Sequences are bucketed by length to reduce padding. A prompt that many of them share is fed once, where that saves
    more than another forward costs. Logits and gradients are those of one forward per sequence, up to rounding.

    Args:
        model: From `load_lm`, or any causal LM of transformers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        device = embedding_weight(model).device.type
        self._forward_cost = _FORWARD_COST.get(device, _FORWARD_COST["cuda"])
        self._can_share_prompts: bool | None = None

    def __call__(
        self,
        ids: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        prompt_lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and hidden states of M states, each the prefix of a sequence.

        Args:
            ids: (B, W) int64, left-aligned sequences, padded with any token.
            rows: (M,) int64, the sequence of each state.
            columns: (M,) int64, the position of each state's last token.
            prompt_lengths: (B,) int64, leading tokens that a sequence may share with others; None: none.

        Returns:
            (M, V) logits and (M, H) hidden states, on the model's device and in its dtype.
        """
        lengths = np.zeros(len(ids), dtype=np.int64)
        np.maximum.at(lengths, rows.numpy(), columns.numpy() + 1)
        passes = self._plan(ids.numpy(), lengths, None if prompt_lengths is None else prompt_lengths.numpy())
        parts: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        cache, device = None, embedding_weight(self.model).device
        for number, batch in enumerate(passes):
            place, row, column = _states_in(batch, rows, columns)
            places.append(place)
            row, column = row.to(device), column.to(device)

            def select(
                hidden: torch.Tensor, number: int = number, row: Any = row, column: Any = column
            ) -> torch.Tensor:
                parts.append(hidden[row, column])
                if number + 1 < len(passes):
                    return hidden[:, :0]  # the lm_head reads all states in the last pass
                return torch.cat(parts)[torch.cat(places).argsort().to(device)][None]

            tokens = ids[torch.from_numpy(batch.sequences), batch.start : batch.stop].to(device)
            # Sequences are left-aligned and attention is causal: padding changes nothing before it, so no attention
            # mask is needed and the fast kernel runs.
            with lm_head_hook(self.model, select) as read:
                if batch.is_prompt:
                    output = self.model(input_ids=tokens[:1], use_cache=True)
                    cache = output.past_key_values
                elif batch.start > 0:
                    past = _repeat(cache, len(tokens))
                    output = self.model(input_ids=tokens, past_key_values=past, use_cache=True)
                else:
                    output = self.model(input_ids=tokens, use_cache=False)
        return output.logits[0], read[-1][0]

    def _plan(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], prompt_lengths: npt.NDArray[np.int64] | None
    ) -> list[_Pass]:
        """Return the cheapest passes: each shared prompt followed by its sequences, then all other sequences."""
        is_unshared = lengths > 0
        passes = []
        for group, prompt_length in self._shared_prompts(ids, lengths, prompt_lengths):
            passes.append(_Pass(group, 0, prompt_length, is_prompt=True))
            buckets = self._buckets(lengths - prompt_length, group)
            passes += [_Pass(bucket, prompt_length, int(lengths[bucket].max())) for bucket in buckets]
            is_unshared[group] = False
        rest = is_unshared.nonzero()[0]
        return passes + [_Pass(bucket, 0, int(lengths[bucket].max())) for bucket in self._buckets(lengths, rest)]

    def _buckets(self, lengths: npt.NDArray[np.int64], sequences: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        return [sequences[bucket] for bucket in bucket_by_length(lengths[sequences], self._forward_cost)]

    def _shared_prompts(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], prompt_lengths: npt.NDArray[np.int64] | None
    ) -> list[tuple[npt.NDArray[np.int64], int]]:
        """Return the sequences and the length of each prompt that saves tokens when fed once."""
        if prompt_lengths is None:
            return []
        groups: dict[bytes, list[int]] = {}
        for sequence in lengths.nonzero()[0].tolist():
            groups.setdefault(ids[sequence, : prompt_lengths[sequence]].tobytes(), []).append(sequence)
        shared = [
            (np.array(group), length)
            for group in groups.values()
            # The prompt's last token is fed with each completion, which may be empty.
            if (length := int(prompt_lengths[group[0]]) - 1) * (len(group) - 1) > self._forward_cost
        ]
        return shared if shared and self._can_share() else []

    def _can_share(self) -> bool:
        """Return whether the model gives the same logits from a prompt's cache; checked once."""
        if self._can_share_prompts is None:
            ids = torch.tensor([[0, 1, 0, 1, 0], [0, 1, 0, 0, 1]])  # a vocabulary has two tokens at least
            rows, columns = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 4, 3, 4])
            self._can_share_prompts = True
            with torch.no_grad():
                plain, _ = self(ids, rows, columns)
                try:
                    cost, self._forward_cost = self._forward_cost, -1
                    shared, _ = self(ids, rows, columns, torch.tensor([3, 3]))
                    tolerance = torch.finfo(plain.dtype).eps ** 0.5 * float(plain.abs().max())
                    self._can_share_prompts = bool((shared - plain).abs().max() <= tolerance)
                except UNSUPPORTED:
                    self._can_share_prompts = False
                finally:
                    self._forward_cost = cost
        return self._can_share_prompts


def bucket_by_length(lengths: npt.NDArray[np.int64], forward_cost: int) -> list[npt.NDArray[np.int64]]:
    """Return the cheapest buckets of sequences 0 .. B-1, each to be padded to its longest.

    A bucket costs its padded size plus `forward_cost`, in tokens. Dynamic programming finds the cheapest division of
    the sorted lengths.

    >>> bucket_by_length(np.array([3, 100, 4, 90]), 50)
    [array([1, 3]), array([0, 2])]
    """
    order = np.argsort(lengths, kind="stable")
    widths, starts = np.unique(lengths[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    cheapest = np.zeros(len(widths) + 1)
    first = np.zeros(len(widths), dtype=np.int64)
    for j, width in enumerate(widths):
        costs = cheapest[: j + 1] + (ends[j] - starts[: j + 1]) * width + forward_cost
        first[j] = costs.argmin()
        cheapest[j + 1] = costs.min()
    buckets, j = [], len(widths) - 1
    while j >= 0:
        buckets.append(np.sort(order[starts[first[j]] : ends[j]]))
        j = int(first[j]) - 1
    return buckets


def _states_in(
    batch: _Pass, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the indices (m,) of the states that a pass computes, and row and column of each in its output."""
    number = torch.full((int(rows.max()) + 1,), -1)
    number[torch.from_numpy(batch.sequences)] = 0 if batch.is_prompt else torch.arange(len(batch.sequences))
    place = ((number[rows] >= 0) & (columns >= batch.start) & (columns < batch.stop)).nonzero()[:, 0]
    return place, number[rows[place]], columns[place] - batch.start


def _repeat(cache: Any, size: int) -> DynamicCache:
    """Expand the keys and values of one prompt to a batch; gradients flow back and add up."""
    repeated = DynamicCache()
    for index, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            raise TypeError(f"a {type(layer).__name__} does not keep all tokens")
        keys, values = (part.expand(size, -1, -1, -1) for part in (layer.keys, layer.values))
        repeated.update(keys, values, index)
    return repeated
