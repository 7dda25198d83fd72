"""What the head of a language model reads: only the rows that are wanted, kept for a value head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def head_input(model: PreTrainedModel, select: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Let the model's head read `select(hidden)` in place of all hidden states; the yielded list then holds it.

    The model's own forward still does what it does around the head, as Gemma 2's cap or Cohere's scale of the logits.
    """
    read: list[torch.Tensor] = []

    def replace(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        read.append(select(inputs[0]))
        return (read[-1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(replace)
    try:
        yield read
    finally:
        hook.remove()
