"""Language models: loading, random weights, and access to the input embedding and the lm_head."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym.errors import foreign_code, install_hint, is_misspelt, unknown_name
from textgym.tokenizers import EMBEDDED_LMS, embedded_lm_path

_EMBEDDED = {name: embedded_lm_path(name) for name in EMBEDDED_LMS}
_HEAD_WIDTH = 16
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}


def load_lm(
    name_or_path: str | Path | PreTrainedModel = "tiny",
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Load a causal language model in eval mode, with all weights trainable.

    Args:
        name_or_path: `"tiny"` or `"tiny-early"`, the LMs embedded in textgym, without download; a local folder; a
            `.gguf` file, which is dequantized; the name of a model on Hugging Face; or a loaded model, which is
            returned unchanged. `"tiny-early"` is smaller and stopped early: its language leaves room for improvement.
        dtype: dtype of the weights or its name; `"auto"` keeps the stored one.
        device: Device of the weights.

    Raises:
        ValueError: Unknown model or dtype, or a model that needs Python code of its own, which is never run.
        ImportError: A GGUF file without the packages that read it.

    >>> load_lm("tiny").config.vocab_size
    2670
    """
    if isinstance(name_or_path, PreTrainedModel):
        return name_or_path
    options: dict[str, Any] = {"dtype": _dtype(dtype), "trust_remote_code": False}
    name = str(name_or_path)
    folder = _EMBEDDED.get(name, Path(name))
    if folder.suffix == ".gguf":
        options |= _gguf_options(folder)
        folder = folder.parent
    elif folder.is_dir():
        if not (folder / "config.json").is_file():
            raise _not_found(name)
    elif is_misspelt(name, _EMBEDDED):
        raise _not_found(name)
    try:
        with no_progress_bars() if name in _EMBEDDED else contextlib.nullcontext():
            model = AutoModelForCausalLM.from_pretrained(str(folder) if folder.is_dir() else name, **options)
    except OSError as error:  # also what transformers raises for a name that it cannot resolve
        raise _not_found(name) from error
    except ValueError as error:
        if (rejection := foreign_code(error, name)) is not error:
            raise rejection from None
        raise
    model = model.eval()
    model.to(torch.device(device))
    return model


def random_lm(
    vocab_size: int, *, window: int = 64, width: int = 32, num_layers: int = 2, seed: int = 0
) -> GPT2LMHeadModel:
    """Make a small GPT-2 with random weights, in eval mode and without dropout, such as a policy for a probe.

    Args:
        vocab_size: V, number of ids; the last one is BOS and EOS, as in textgym's own tokenizers.
        window: Number of positions: the longest sequence in tokens.
        width: Width of the hidden states, a multiple of 16, the width of an attention head.
        num_layers: Number of layers.
        seed: Seed of the weights. torch's global generator is left unchanged.

    Raises:
        ValueError: If a size is less than 1 or ``width`` no multiple of 16.

    >>> random_lm(5)(torch.tensor([[0, 1, 2]])).logits.shape
    torch.Size([1, 3, 5])
    """
    for name, value in (("vocab_size", vocab_size), ("window", window), ("width", width), ("num_layers", num_layers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    if width % _HEAD_WIDTH:
        raise ValueError(f"width must be a multiple of {_HEAD_WIDTH}, got {width!r}")
    config = GPT2Config(
        vocab_size=int(vocab_size),  # np.int64 in Gymnasium's spaces
        n_positions=window,
        n_embd=width,
        n_layer=num_layers,
        n_head=width // _HEAD_WIDTH,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=int(vocab_size) - 1,
        eos_token_id=int(vocab_size) - 1,
    )
    # Not torch.manual_seed, which also seeds every accelerator.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Context manager that disables transformers' progress bars."""
    was_enabled = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers.logging.enable_progress_bar()


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


@contextlib.contextmanager
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


def _gguf_options(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise _not_found(str(file))
    missing = [package for package in ("gguf", "accelerate") if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"reading a GGUF file needs {' and '.join(missing)}: {install_hint('gguf')}")
    options: dict[str, Any] = {"gguf_file": file.name}
    if hasattr(transformers, "GgufConfig"):  # transformers 5; otherwise the model could not be saved
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return options


def _dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    if dtype not in _DTYPES:
        raise unknown_name("dtype", dtype, [*_DTYPES, "auto"])
    return _DTYPES[dtype]


def _not_found(name: str) -> ValueError:
    also = "A local folder, a GGUF file or the name of a causal LM on Hugging Face is accepted, too."
    return unknown_name("model", name, _EMBEDDED, also=also)
