"""The two ends of a language model: its embedding, and its head, which may read only the rows that are wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


def embedding_weight(model: PreTrainedModel) -> torch.Tensor:
    """Return the weight (ids, width) of what reads a model's input; inputs belong on its device."""
    weight = model.get_input_embeddings().weight
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"the input embedding of {type(model).__name__} has no weight")
    return weight


def head_weight(model: PreTrainedModel) -> torch.Tensor:
    """Return the weight (V, H) of a model's head.

    Raises:
        ValueError: The model has no head.
    """
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise ValueError(f"{type(model).__name__} has no output head: load it with AutoModelForCausalLM")
    return weight


@contextmanager
def head_input(model: PreTrainedModel, select: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Let the head read `select(hidden)` in place of all hidden states; the yielded list then holds what it read.

    The model's own forward still does what it does around the head, as Gemma 2's cap or Cohere's scale of the logits.
    Other threads may use the model meanwhile: theirs are left alone.
    """
    read: list[torch.Tensor] = []
    thread = threading.get_ident()

    def replace(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if threading.get_ident() != thread:
            return inputs
        read.append(select(inputs[0]))
        return (read[-1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(replace)
    try:
        yield read
    finally:
        hook.remove()
