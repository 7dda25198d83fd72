"""Incremental forward of a language model over N token sequences that grow, end and restart independently."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel

from textgym.lm.kv_cache.base import Step
from textgym.lm.kv_cache.selection import select_backend
from textgym.lm.model import embedding_weight, lm_head_weight

_NOT_CACHED = -1


class StreamOutput(NamedTuple):
    """Output for each slot's newest token, in the model's dtype and on its device."""

    logits: torch.Tensor
    """(N, V) logits of the next token."""
    hidden: torch.Tensor
    """(N, H) inputs of the lm_head: last hidden states after the final norm."""


class LMStream:
    """Incremental forward of a language model over `num_slots` token sequences of different lengths.

    Each call feeds only new tokens and reuses the cached keys and values of the others. The given ids are compared with
    the cached ones, and a slot is fed from the first column that differs. So a restarted episode, a restored snapshot
    or a changed prompt needs no flag.

    The model is not modified: training forwards, `generate` and `save_pretrained` are unaffected. The forward runs
    without gradients and without dropout. Weight changes are detected by the version counters of the parameters, which
    optimizers and `load_state_dict` advance. Fused optimizers and writes to `parameter.data` do not: call `clear` then.

    `backend` names the KV-cache backend, the fastest one whose logits match an uncached forward at construction:

    | `backend` | models | tokens fed per step |
    | --- | --- | --- |
    | `"packed"` | attention through transformers' `AttentionInterface`: GPT-2, Llama, Gemma, ... | new ones |
    | `"batched"` | other full attention: BLOOM, GPT-J, Falcon, ... | newest ones; restarted sequences whole |
    | `"uncached"` | Mamba, hybrids, ...; with a warning | all |

    Args:
        model: A causal language model with an output head, in training mode or not, on any device.
        num_slots: Number of sequences, N.
        window: Longest sequence in tokens, W. Memory grows with the sequences.
        pad_token_id: Id that marks columns past the end in calls without lengths; default: V, the width of the logits,
            which no token has.
        prompt_cache_size: Number of prompts whose keys and values are kept from their second use on; 0 for none. Only
            the `"packed"` backend keeps prompts; it also feeds a prompt once if several slots start with it together.

    Raises:
        ValueError: `num_slots` or `window` below 1, `window` above the model's positions, or no output head.

    >>> from textgym.lm import load_lm
    >>> stream = LMStream(load_lm("tiny"), num_slots=2, window=8)
    >>> pad = stream.pad_token_id
    >>> ids = np.array([[5, 6, 7, pad], [8, pad, pad, pad]])
    >>> logits, hidden = stream(ids)
    >>> logits.shape, hidden.shape, stream.backend
    (torch.Size([2, 2670]), torch.Size([2, 128]), 'packed')
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
        self._lm_head_weight = lm_head_weight(model)
        positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if positions is not None and window > positions:
            raise ValueError(f"window is {window} tokens, but {type(model).__name__} has {positions} positions")
        self.model, self.num_slots, self.window = model, num_slots, window
        self.vocab_size, self.hidden_size = self._lm_head_weight.shape
        self.pad_token_id = self.vocab_size if pad_token_id is None else pad_token_id
        self._num_embeddings = len(embedding_weight(model))
        self._parameters = list(model.parameters())
        self._weights = self._weights_version()
        self._slots = np.arange(num_slots)
        self._cached = np.full((num_slots, window), _NOT_CACHED)
        with _inference(model):
            self._backend = select_backend(model, num_slots, window, prompt_cache_size)

    @property
    def backend(self) -> str:
        """Name of the KV-cache backend: `"packed"`, `"batched"` or `"uncached"`."""
        return self._backend.name

    def clear(self) -> None:
        """Clear the cache, so that the next call feeds whole sequences; needed after a fused optimizer step."""
        self._cached.fill(_NOT_CACHED)
        self._backend.clear()

    def __call__(
        self,
        ids: ArrayLike | torch.Tensor,
        lengths: ArrayLike | torch.Tensor | None = None,
        *,
        active: ArrayLike | torch.Tensor | None = None,
    ) -> StreamOutput:
        """Feed the new tokens of each sequence and return logits and hidden state of its newest token.

        Args:
            ids: (N, L) integers, L at most `window`: left-aligned sequences, arbitrary past their ends.
            lengths: (N,) integers, 1 to L. Without it a sequence ends before its first `pad_token_id`.
            active: (N,) booleans: slots to feed; default: all. The others keep their cache; their outputs are zeros.

        Returns:
            Logits (N, V) and hidden states (N, H).

        Raises:
            ValueError: Wrong shape, empty sequence, or an id outside the input embedding. Nothing is fed.
            TypeError: Ids or lengths that are not integers, `active` that is not boolean.
        """
        if (weights := self._weights_version()) != self._weights:
            self.clear()
            self._weights = weights
        step = self._step(ids, lengths, active)
        if not len(step.slots):
            return self._zeros()
        self._cached[step.slots] = _NOT_CACHED  # stays so if the forward fails
        with _inference(self.model):
            output = StreamOutput(*self._backend(step))
        width = step.ids.shape[1]
        self._cached[step.slots, :width] = np.where(np.arange(width) < step.lengths[:, None], step.ids, _NOT_CACHED)
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
        """Validate the input and compare it with the cache."""
        sequences = _array(ids, "ids")
        if sequences.ndim != 2 or len(sequences) != self.num_slots or not 0 < sequences.shape[1] <= self.window:
            raise ValueError(f"ids must have shape ({self.num_slots}, 1 to {self.window}), got {sequences.shape}")
        if lengths is None:
            is_pad = sequences == self.pad_token_id
            ends = np.where(is_pad.any(1), is_pad.argmax(1), sequences.shape[1])
        else:
            ends = _array(lengths, "lengths", (self.num_slots,))
        slots = self._slots
        if active is not None:
            slots = slots[_array(active, "active", (self.num_slots,), kind="b")]
            sequences, ends = sequences[slots], ends[slots]
        if not len(slots):
            return Step(sequences, ends, ends, slots)
        if ends.min() < 1 or ends.max() > sequences.shape[1]:
            limit = sequences.shape[1]
            raise ValueError(f"sequences must have 1 to {limit} tokens, got {ends.min()} to {ends.max()}")
        sequences = sequences[:, : ends.max()]
        width = sequences.shape[1]
        cached = self._cached if len(slots) == self.num_slots else self._cached[slots]
        is_new = (cached[:, :width] != sequences) & (np.arange(width) < ends[:, None])
        new = sequences[is_new]
        if new.size and (new.min() < 0 or new.max() >= self._num_embeddings):
            unknown = new.min() if new.min() < 0 else new.max()
            raise ValueError(f"ids must be token ids of the model, 0 to {self._num_embeddings - 1}, got {unknown}")
        first_new = np.where(is_new.any(1), is_new.argmax(1), width)
        return Step(sequences, ends, np.minimum(first_new, ends - 1), slots)

    def _zeros(self) -> StreamOutput:
        weight = self._lm_head_weight
        return StreamOutput(*(weight.new_zeros(self.num_slots, width) for width in weight.shape))

    def _weights_version(self) -> int:
        return sum(parameter._version for parameter in self._parameters)


@contextmanager
def _inference(model: PreTrainedModel) -> Iterator[None]:
    """Disable gradients and dropout; not `inference_mode`, which spoils buffers that a model renews meanwhile."""
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
