"""A reward model on disk: tensors as safetensors, everything else as JSON. Nothing in it can execute code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from textgym.lm import load_lm, no_progress_bars
from textgym.scorers.learned.preferences_settings import PreferenceReport, PreferenceSettings
from textgym.scorers.learned.preferences_training import PreferenceModel, new_head
from textgym.tokenizers import (
    ByteTokenizer,
    PaddedTokenizer,
    Tokenizer,
    TokenizersTokenizer,
    TransformersTokenizer,
    as_tokenizer,
)

__all__ = ["read_reward_model", "write_reward_model"]

_FORMAT = 1
"""Counts up when the files change their meaning."""
_INDEX, _HEAD, _TRUNK = "preferences.json", "head.safetensors", "trunk"


def write_reward_model(
    folder: Path, reward_model: PreferenceModel, settings: PreferenceSettings, report: PreferenceReport
) -> None:
    """Write what :func:`read_reward_model` reads; the index comes last, so that a folder with one is whole."""
    if folder.exists() and not (folder / _INDEX).exists() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is no reward model, so it is not replaced; choose another folder")
    _check_tokenizer(reward_model.tokenizer)
    (folder / _TRUNK).mkdir(parents=True, exist_ok=True)
    (folder / _INDEX).unlink(missing_ok=True)
    with no_progress_bars():
        reward_model.model.save_pretrained(folder / _TRUNK)
    tokenizer = _write_tokenizer(folder / _TRUNK, reward_model.tokenizer)
    save_file(reward_model.head.state_dict(), folder / _HEAD)
    index = {"format": _FORMAT, "tokenizer": tokenizer, "settings": asdict(settings), "report": asdict(report)}
    _write_json(folder / _INDEX, index)


def read_reward_model(folder: Path) -> tuple[PreferenceModel, PreferenceSettings, PreferenceReport]:
    """Read what :func:`write_reward_model` wrote."""
    index_file = folder / _INDEX
    if not index_file.is_file():
        raise FileNotFoundError(f"{folder} is no reward model: it has no {_INDEX}")
    try:
        index = json.loads(index_file.read_text(encoding="utf-8"))
        version = index["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{index_file} is damaged: {type(error).__name__}: {error}") from error
    if version != _FORMAT:
        raise ValueError(f"{folder} has format {version}, this version of textgym reads format {_FORMAT}")
    try:
        settings, report = PreferenceSettings(**index["settings"]), PreferenceReport(**index["report"])
        trunk = load_lm(folder / _TRUNK, dtype="auto").requires_grad_(False)
        tokenizer = as_tokenizer(folder / _TRUNK if index["tokenizer"] is None else index["tokenizer"])
        weight = trunk.get_output_embeddings().weight
        head = new_head(weight.shape[1], weight.device)
        head.load_state_dict(load_file(folder / _HEAD))
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    return PreferenceModel(trunk, tokenizer, head.requires_grad_(False)), settings, report


def _check_tokenizer(tokenizer: Tokenizer) -> None:
    inner = tokenizer.tokenizer if isinstance(tokenizer, PaddedTokenizer) else tokenizer
    if not isinstance(inner, ByteTokenizer | TokenizersTokenizer | TransformersTokenizer):
        raise ValueError(
            f"a {type(inner).__name__} has no file format; a reward model that is to be saved needs a tokenizer of "
            "Hugging Face, or 'byte'"
        )


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Write the tokenizer's files, or return the name that stands for it."""
    inner: Any = tokenizer.tokenizer if isinstance(tokenizer, PaddedTokenizer) else tokenizer
    if isinstance(inner, ByteTokenizer):
        return "byte"
    if isinstance(inner, TransformersTokenizer):
        inner._tokenizer.save_pretrained(folder)
        return None
    (folder / "tokenizer.json").write_text(inner._tokenizer.to_str(), encoding="utf-8")
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for kind in ("bos", "eos"):
        token_id = getattr(inner, f"{kind}_token_id")
        if token_id is not None:
            names[f"{kind}_token"] = inner._tokenizer.id_to_token(token_id)
    _write_json(folder / "tokenizer_config.json", names)
    return None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
