"""Where a language model comes from: the package itself, Hugging Face, a folder or a GGUF file."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from textgym.errors import foreign_code, install_hint, is_misspelt, unknown_name
from textgym.tokenizers import EMBEDDED_LMS, embedded_lm_path

_EMBEDDED = {name: embedded_lm_path(name) for name in EMBEDDED_LMS}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}


def load_lm(
    name_or_path: str | Path | PreTrainedModel = "tiny",
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Load a causal language model, ready to be used: in eval mode, all weights trainable.

    Args:
        name_or_path: `"tiny"`, the LM that comes with textgym and needs no download; a local folder; a `.gguf` file,
            which is dequantized; the name of a model on Hugging Face; or a loaded model, which is returned as it is.
        dtype: Of the weights, as torch's dtype or its name; `"auto"` takes what the weights are stored in.
        device: Where the weights go.

    Returns:
        The model, with the usual methods of transformers such as `generate` and `save_pretrained`.

    Raises:
        ValueError: No such model, no such dtype, or a model that needs Python code of its own, which is never run.
        ImportError: A GGUF file without the packages that read it.

    >>> load_lm("tiny").config.vocab_size
    1024
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
        if (refused := foreign_code(error, name)) is not error:
            raise refused from None
        raise
    model = model.eval()
    model.to(torch.device(device))
    return model


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers' progress bars for a while: reading or writing a small model needs none."""
    was_enabled = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers.logging.enable_progress_bar()


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
    also = "A local folder, a GGUF file and the name of a causal LM on Hugging Face will do too."
    return unknown_name("model", name, _EMBEDDED, also=also)
