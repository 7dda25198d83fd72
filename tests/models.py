"""Random language models of many architectures, and a counter of the tokens fed to one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 29

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 4}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16}

SHAPES: dict[str, tuple[str, Callable[[], transformers.PreTrainedConfig]]] = {
    "GPT-2": ("packed", lambda: transformers.GPT2Config(**_GPT2)),
    "Llama": ("packed", lambda: transformers.LlamaConfig(**_GROUPED)),
    "GPT-NeoX": ("packed", lambda: transformers.GPTNeoXConfig(**_COMMON)),
    "Gemma 2": (
        "packed",
        lambda: transformers.Gemma2Config(
            **_GROUPED,
            sliding_window=4,
            query_pre_attn_scalar=4,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
    ),
    "Mistral": ("packed", lambda: transformers.MistralConfig(**_GROUPED, sliding_window=4)),
    "GPT-OSS": ("packed", lambda: transformers.GptOssConfig(**_GROUPED, sliding_window=4, num_local_experts=4)),
    "OPT": (
        "packed",
        lambda: transformers.OPTConfig(
            **{k: v for k, v in _COMMON.items() if k != "intermediate_size"}, ffn_dim=24, word_embed_proj_dim=8
        ),
    ),
    "GPT-J": ("batched", lambda: transformers.GPTJConfig(**_GPT2, rotary_dim=4)),
    "BLOOM": ("batched", lambda: transformers.BloomConfig(**_SMALL, n_layer=2, n_head=4)),
    "Mamba": ("uncached", lambda: transformers.MambaConfig(**_SMALL, num_hidden_layers=2, state_size=4)),
}
"""Architecture -> the KV-cache backend it is expected to get, and a function that makes its configuration."""


def build(name: str) -> PreTrainedModel:
    """Return a new random model whose logits depend on every token that it attends to."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SHAPES[name][1]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model


@functools.cache
def model_of(name: str) -> PreTrainedModel:
    """Return the shared random model of an architecture; do not change it."""
    return build(name)


@contextmanager
def fed_tokens(model: PreTrainedModel) -> Iterator[list[int]]:
    """Context manager that yields the number of tokens of each forward."""
    counts: list[int] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: counts.append(inputs[0].numel()))
    yield counts
    hook.remove()
