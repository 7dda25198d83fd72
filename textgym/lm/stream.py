"""One incremental forward over texts that grow, end and restart at different times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel

from textgym.lm.heads import embedding_weight, head_weight
from textgym.lm.selection import choose_way
from textgym.lm.way import Step

_NOTHING = -1
"""Stands where no token is cached."""


class StreamOutput(NamedTuple):
    """What the model says about each slot's newest token, in the model's dtype and on its device."""

    logits: torch.Tensor
    """(N, V) logits of the next token."""
    hidden: torch.Tensor
    """(N, H) last hidden states, as the head reads them: after the final norm."""


class LMStream:
    """One incremental forward of a language model over `num_slots` texts of different lengths.

    Each call feeds only the tokens that are new, and keeps keys and values of the others. The ids that a call is given
    are the truth: where a slot's ids are not its cached ones plus something, it is fed again from the first column that
    differs. So a restarted episode, a restored snapshot and a change of prompt need no flag.

    What the model is, it stays: training forwards, `generate` and `save_pretrained` are not affected. The forward runs
    without gradients and without dropout. Changed weights are noticed by the version counters of the parameters, which
    optimizers and `load_state_dict` advance. Fused optimizers and writes to `parameter.data` do not: call `clear` then.

    `caching` names the way in which the cache is kept, chosen at construction by comparing with an uncached forward:

    | `caching` | models | a step feeds |
    | --- | --- | --- |
    | `"rows"` | attention through transformers' `AttentionInterface`: GPT-2, Llama, Gemma, ... | the new tokens |
    | `"batch"` | other attention to all earlier tokens: BLOOM, GPT-J, Falcon, ... | newest tokens; restarted texts |
    | `"none"` | Mamba, hybrids, ...; a warning says so | the whole texts |

    Args:
        model: A causal language model with an output head. It may be in training mode and may be on any device.
        num_slots: Number of texts, N.
        window: The longest text in tokens, W. Memory is taken as the texts grow, not at once.
        pad_token_id: The id that marks columns past the end where a call gives no lengths; by default V, the width of
            the logits, which no token has.
        prompt_cache_size: How many prompts' keys and values are kept, so that they need not be fed when they come
            again; 0 for none. A prompt is kept from the second time it is seen. A prompt that several slots start at
            once is fed once in any case. Only `caching == "rows"` does so.

    Raises:
        ValueError: `num_slots` or `window` below 1, `window` above the positions that the model has, or no output head.

    >>> from textgym.lm import load_lm
    >>> stream = LMStream(load_lm("tiny"), num_slots=2, window=8)
    >>> ids = np.array([[5, 6, 7, 1024], [8, 1024, 1024, 1024]])
    >>> logits, hidden = stream(ids)
    >>> logits.shape, hidden.shape, stream.caching
    (torch.Size([2, 1024]), torch.Size([2, 128]), 'rows')
    """

    def __init__(
        self,
        model: PreTrainedModel,
        num_slots: int,
        window: int,
        *,
        pad_token_id: int | None = None,
        prompt_cache_size: int = 256,
    ) -> None:
        if num_slots < 1 or window < 1:
            raise ValueError(f"num_slots and window must be at least 1, got {num_slots} and {window}")
        self._head_weight = head_weight(model)
        positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if positions is not None and window > positions:
            raise ValueError(f"window is {window} tokens, but {type(model).__name__} has {positions} positions")
        self.model, self.num_slots, self.window = model, num_slots, window
        self.vocab_size, self.hidden_size = self._head_weight.shape
        self.pad_token_id = self.vocab_size if pad_token_id is None else pad_token_id
        self._num_embeddings = len(embedding_weight(model))
        self._parameters = list(model.parameters())
        self._weights = self._weights_version()
        self._slots = np.arange(num_slots)
        self._cached = np.full((num_slots, window), _NOTHING)
        with _inference(model):
            self._way = choose_way(model, num_slots, window, prompt_cache_size)

    @property
    def caching(self) -> str:
        """The way in which the cache is kept: `"rows"`, `"batch"` or `"none"`."""
        return self._way.caching

    def clear(self) -> None:
        """Forget what is cached, so that the next call feeds whole texts; needed after a fused optimizer step."""
        self._cached.fill(_NOTHING)
        self._way.clear()

    def __call__(
        self,
        ids: ArrayLike | torch.Tensor,
        lengths: ArrayLike | torch.Tensor | None = None,
        *,
        active: ArrayLike | torch.Tensor | None = None,
    ) -> StreamOutput:
        """Feed what is new in each text and return logits and hidden state of its newest token.

        Args:
            ids: (N, L) integers, L at most `window`: each text left-aligned, then anything.
            lengths: (N,) integers, 1 to L. Without it a text ends before its first `pad_token_id`.
            active: (N,) booleans: slots to feed, by default all. The others keep their cache; their results are zeros.

        Returns:
            Logits (N, V) and hidden states (N, H).

        Raises:
            ValueError: A shape that does not fit, an empty text, or an id that the model does not know. Nothing is fed.
            TypeError: Ids or lengths that are not integers.
        """
        if (weights := self._weights_version()) != self._weights:
            self.clear()
            self._weights = weights
        step = self._step(ids, lengths, active)
        if not len(step.slots):
            return self._zeros()
        self._cached[step.slots] = _NOTHING  # a forward that fails leaves nothing that could be trusted
        with _inference(self.model):
            output = StreamOutput(*self._way(step))
        width = step.ids.shape[1]
        self._cached[step.slots, :width] = np.where(np.arange(width) < step.lengths[:, None], step.ids, _NOTHING)
        if len(step.slots) == self.num_slots:
            return output
        slots = torch.from_numpy(step.slots).to(output.logits.device)
        return StreamOutput(
            *(part.new_zeros(self.num_slots, part.shape[1]).index_copy_(0, slots, part) for part in output)
        )

    def _step(
        self,
        ids: ArrayLike | torch.Tensor,
        lengths: ArrayLike | torch.Tensor | None,
        active: ArrayLike | torch.Tensor | None,
    ) -> Step:
        texts = _array(ids, "ids")
        if texts.ndim != 2 or len(texts) != self.num_slots or not 0 < texts.shape[1] <= self.window:
            raise ValueError(f"ids must have shape ({self.num_slots}, 1 to {self.window}), got {texts.shape}")
        if lengths is None:
            is_pad = texts == self.pad_token_id
            ends = np.where(is_pad.any(1), is_pad.argmax(1), texts.shape[1])
        else:
            ends = _array(lengths, "lengths", (self.num_slots,))
        slots = self._slots
        if active is not None:
            slots = slots[_array(active, "active", (self.num_slots,), kind="b")]
            texts, ends = texts[slots], ends[slots]
        if not len(slots):
            return Step(texts, ends, ends, slots)
        if ends.min() < 1 or ends.max() > texts.shape[1]:
            raise ValueError(f"texts must have 1 to {texts.shape[1]} tokens, got {ends.min()} to {ends.max()}")
        texts = texts[:, : ends.max()]
        width = texts.shape[1]
        cached = self._cached if len(slots) == self.num_slots else self._cached[slots]
        is_new = (cached[:, :width] != texts) & (np.arange(width) < ends[:, None])
        new = texts[is_new]
        if new.size and (new.min() < 0 or new.max() >= self._num_embeddings):
            unknown = new.min() if new.min() < 0 else new.max()
            raise ValueError(f"the model knows the ids 0 to {self._num_embeddings - 1}, got {unknown}")
        first_new = np.where(is_new.any(1), is_new.argmax(1), width)
        return Step(texts, ends, np.minimum(first_new, ends - 1), slots)

    def _zeros(self) -> StreamOutput:
        weight = self._head_weight
        return StreamOutput(*(weight.new_zeros(self.num_slots, width) for width in weight.shape))

    def _weights_version(self) -> int:
        return sum(parameter._version for parameter in self._parameters)


@contextmanager
def _inference(model: PreTrainedModel) -> Iterator[None]:
    """No gradients and no dropout; not `inference_mode`, which would spoil buffers that a model renews meanwhile."""
    training = [module for module in model.modules() if module.training] if model.training else []
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _array(
    values: ArrayLike | torch.Tensor, name: str, shape: tuple[int, ...] | None = None, *, kind: str = "iu"
) -> NDArray[Any]:
    array = values.numpy(force=True) if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.dtype.kind not in kind:
        raise TypeError(f"{name} must be {'booleans' if kind == 'b' else 'integers'}, got {array.dtype}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array if kind == "b" else array.astype(np.int64, copy=False)
