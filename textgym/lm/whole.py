"""Logits and hidden states of many states of whole texts, from as few computed tokens as pay off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from textgym.lm.heads import embedding_weight, head_input
from textgym.lm.selection import REFUSALS

_FORWARD_COST = {"cpu": 64, "cuda": 4096}
"""Tokens that take as long as the fixed part of one more forward and backward, by device."""


@dataclass(frozen=True)
class _Feed:
    """One forward: columns `start` to `stop` of some texts."""

    texts: npt.NDArray[np.int64]
    start: int
    stop: int
    is_prompt: bool = False
    """Whether it is the prompt of the texts that follow, fed once for all of them."""


class WholeTexts:
    """A causal language model on whole texts, with gradients: what learning needs, as `LMStream` is what acting needs.

    Texts of very different lengths are fed in groups of like length, so that little padding is computed, and a prompt
    that many of them share is fed once, if it is long enough to pay for one more forward. Both leave logits and
    gradients as they are, up to rounding.

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
        """Return logits and hidden states of M states, from one forward over each text.

        Args:
            ids: (B, W) int64, texts from the left; what stands after a text's end is any token.
            rows: (M,) int64, the text that each state belongs to.
            columns: (M,) int64, the position of the last token of each state.
            prompt_lengths: (B,) int64, tokens at the beginning that a text may share with others.

        Returns:
            (M, V) logits and (M, H) hidden states, on the model's device and in its dtype.
        """
        lengths = np.zeros(len(ids), dtype=np.int64)
        np.maximum.at(lengths, rows.numpy(), columns.numpy() + 1)
        feeds = self._plan(ids.numpy(), lengths, None if prompt_lengths is None else prompt_lengths.numpy())
        parts: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        cache, device = None, embedding_weight(self.model).device
        for number, feed in enumerate(feeds):
            place, row, column = _states_in(feed, rows, columns)
            places.append(place)
            row, column = row.to(device), column.to(device)

            def select(
                hidden: torch.Tensor, number: int = number, row: Any = row, column: Any = column
            ) -> torch.Tensor:
                parts.append(hidden[row, column])
                if number + 1 < len(feeds):
                    return hidden[:, :0]  # the head waits for the last forward, and reads all states then
                return torch.cat(parts)[torch.cat(places).argsort().to(device)][None]

            texts = ids[torch.from_numpy(feed.texts), feed.start : feed.stop].to(device)
            # Texts are left-aligned and attention is causal: what stands after an end changes nothing before it, so
            # no attention mask is needed and the fast kernel runs.
            with head_input(self.model, select) as read:
                if feed.is_prompt:
                    output = self.model(input_ids=texts[:1], use_cache=True)
                    cache = output.past_key_values
                elif feed.start > 0:
                    past = _repeated(cache, len(texts))
                    output = self.model(input_ids=texts, past_key_values=past, use_cache=True)
                else:
                    output = self.model(input_ids=texts, use_cache=False)
        return output.logits[0], read[-1][0]

    def _plan(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], prompt_lengths: npt.NDArray[np.int64] | None
    ) -> list[_Feed]:
        """Return the forwards that cost the fewest tokens: shared prompts with their texts, then all other texts."""
        alone = lengths > 0
        feeds = []
        for family, prompt_length in self._families(ids, lengths, prompt_lengths):
            feeds.append(_Feed(family, 0, prompt_length, is_prompt=True))
            groups = self._groups(lengths - prompt_length, family)
            feeds += [_Feed(group, prompt_length, int(lengths[group].max())) for group in groups]
            alone[family] = False
        rest = alone.nonzero()[0]
        return feeds + [_Feed(group, 0, int(lengths[group].max())) for group in self._groups(lengths, rest)]

    def _groups(self, lengths: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        return [texts[group] for group in groups_of_like_length(lengths[texts], self._forward_cost)]

    def _families(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], prompt_lengths: npt.NDArray[np.int64] | None
    ) -> list[tuple[npt.NDArray[np.int64], int]]:
        """Return texts of one prompt, and its length, where feeding the prompt once saves more than it costs."""
        if prompt_lengths is None:
            return []
        families: dict[bytes, list[int]] = {}
        for text in lengths.nonzero()[0].tolist():
            families.setdefault(ids[text, : prompt_lengths[text]].tobytes(), []).append(text)
        paying = [
            (np.array(family), length)
            for family in families.values()
            # The last token of the prompt is fed with what follows, so that something always does.
            if (length := int(prompt_lengths[family[0]]) - 1) * (len(family) - 1) > self._forward_cost
        ]
        return paying if paying and self._can_share() else []

    def _can_share(self) -> bool:
        """Try once whether the model can go on from a prompt's cache, and says the same then."""
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
                except REFUSALS:
                    self._can_share_prompts = False
                finally:
                    self._forward_cost = cost
        return self._can_share_prompts


def groups_of_like_length(lengths: npt.NDArray[np.int64], forward_cost: int) -> list[npt.NDArray[np.int64]]:
    """Return the numbers 0 .. B-1 of texts in groups, each to be padded to its longest, that cost the fewest tokens.

    Cost of a group: its padded size plus `forward_cost`. The cheapest division of the sorted lengths into runs is found
    by dynamic programming.

    >>> groups_of_like_length(np.array([3, 100, 4, 90]), 50)
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
    groups, j = [], len(widths) - 1
    while j >= 0:
        groups.append(np.sort(order[starts[first[j]] : ends[j]]))
        j = int(first[j]) - 1
    return groups


def _states_in(
    feed: _Feed, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the numbers (m,) of the states that a forward computes, and row and column of each in its output."""
    number = torch.full((int(rows.max()) + 1,), -1)
    number[torch.from_numpy(feed.texts)] = 0 if feed.is_prompt else torch.arange(len(feed.texts))
    place = ((number[rows] >= 0) & (columns >= feed.start) & (columns < feed.stop)).nonzero()[:, 0]
    return place, number[rows[place]], columns[place] - feed.start


def _repeated(cache: Any, num_texts: int) -> DynamicCache:
    """Return the keys and values of one prompt as those of many texts; gradients flow back and add up."""
    repeated = DynamicCache()
    for index, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            raise TypeError(f"a {type(layer).__name__} does not keep all tokens")
        keys, values = (part.expand(num_texts, -1, -1, -1) for part in (layer.keys, layer.values))
        repeated.update(keys, values, index)
    return repeated
