"""The way without a cache, for models whose state cannot be kept per slot: every step feeds the whole texts."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.lm.heads import embedding_weight, head_input
from textgym.lm.way import Step


class Uncached:
    """Feeds every text from its first token; see `way.Way`."""

    caching = "none"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._device = embedding_weight(model).device

    def clear(self) -> None:
        """There is nothing to forget."""

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, V) and hidden states (n, H) of each text's newest token."""
        is_token = np.arange(int(step.lengths.max())) < step.lengths[:, None]
        ids = np.where(is_token, step.ids[:, : is_token.shape[1]], 0)
        rows, last = (torch.from_numpy(part).to(self._device) for part in (np.arange(len(ids)), step.lengths - 1))
        with head_input(self._model, lambda hidden: hidden[rows, last][:, None]) as read:
            logits = self._model(
                input_ids=torch.from_numpy(ids).to(self._device),
                attention_mask=torch.from_numpy(is_token.astype(np.int64)).to(self._device),
                use_cache=False,
            ).logits
        return logits[:, 0], read[0][:, 0]
