"""Access to the input embedding and the lm_head of a model, and a hook that limits the rows the lm_head reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


def embedding_weight(model: PreTrainedModel) -> torch.Tensor:
    """Return the weight (num_embeddings, width) of the input embedding; inputs belong on its device."""
    weight = model.get_input_embeddings().weight
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"the input embedding of {type(model).__name__} has no weight")
    return weight


def lm_head_weight(model: PreTrainedModel) -> torch.Tensor:
    """Return the weight (V, H) of the lm_head.

    Raises:
        ValueError: The model has no lm_head.
    """
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise ValueError(f"{type(model).__name__} has no output head: load it with AutoModelForCausalLM")
    return weight


@contextmanager
def lm_head_hook(
    model: PreTrainedModel, select: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[list[torch.Tensor]]:
    """Context manager: the lm_head reads `select(hidden)` instead of all hidden states.

    The model's own forward still applies the rest, such as Gemma 2's soft cap or Cohere's scale of the logits. Only
    forwards of the calling thread are affected.

    Yields:
        The inputs of the lm_head, one tensor per forward.
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
