"""Network of a preference-trained reward model: forward pass, training, files. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from textgym.lm import WholeSequenceForward, load_lm, no_progress_bars
from textgym.scorers.learned.preferences import PreferencePair, PreferenceReport, PreferenceSettings
from textgym.scorers.text import cleaned
from textgym.tokenizers import (
    ByteTokenizer,
    PaddedTokenizer,
    Tokenizer,
    TokenizersTokenizer,
    TransformersTokenizer,
    as_tokenizer,
)

__all__ = ["PreferenceModel", "fit", "new_head", "read_reward_model", "write_reward_model"]

_BATCH_SIZE = 64
"""Texts per forward pass without gradients."""


class Encoded(NamedTuple):
    """Token ids of a text."""

    ids: list[int]
    """BOS, prompt, completion and EOS."""
    num_prompt: int
    """Length of the prefix shared by completions of the prompt: BOS and prompt."""


class PreferenceModel:
    """A language model, and a linear map from the hidden state of a text's last token to its reward.

    Args:
        model: The language model with its LM head.
        tokenizer: Its tokenizer.
        head: Maps the hidden state, of width H, to 1.

    Raises:
        ValueError: If the tokenizer has neither BOS nor EOS, one of which an empty text needs.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, head: nn.Linear) -> None:
        self.model = model.eval()  # without dropout in training too, so that a seed decides the weights
        self.tokenizer = tokenizer
        self.head = head
        eos: int | None = tokenizer.eos_token_id
        bos: int | None = getattr(tokenizer, "bos_token_id", None)
        start = eos if bos is None else bos
        if start is None:
            raise ValueError("the model's tokenizer has neither a BOS nor an EOS, one of which an empty text needs")
        self._start = [start]
        self._end = [] if eos is None else [eos]
        window = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        self._room = None if window is None else window - len(self._start) - len(self._end)
        self._whole = WholeSequenceForward(model)

    def encode(self, prompt: str, completion: str) -> Encoded:
        """Return the ids of the end of a long prompt and the beginning of a long completion."""
        before = self.tokenizer.encode(cleaned(prompt[-2_000:]))
        text = self.tokenizer.encode(cleaned(completion))
        if self._room is not None:
            before = before[-max(1, self._room // 2) :]
            text = text[: max(0, self._room - len(before))]
        return Encoded([*self._start, *before, *text, *self._end], 1 + len(before))

    def features(self, texts: Sequence[Encoded]) -> torch.Tensor:
        """Return (B, H) float32 hidden states of the last tokens, with gradients."""
        lengths = torch.tensor([len(text.ids) for text in texts])
        ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text.ids)] = torch.tensor(text.ids)
        prompt_lengths = torch.tensor([text.num_prompt for text in texts])
        return self._whole(ids, torch.arange(len(texts)), lengths - 1, prompt_lengths)[1].float()

    @torch.no_grad()
    def rewards(self, texts: Sequence[Encoded]) -> npt.NDArray[np.float64]:
        """Return (B,) float64."""
        parts = [
            self.head(self.features(texts[start : start + _BATCH_SIZE]))[:, 0].double().numpy(force=True)
            for start in range(0, len(texts), _BATCH_SIZE)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


def new_head(width: int, device: torch.device) -> nn.Linear:
    """Return a head of zeros, without drawing from a random generator."""
    head = nn.utils.skip_init(nn.Linear, width, 1, device=device)
    head.requires_grad_(False)
    head.weight.zero_()
    head.bias.zero_()
    return head.requires_grad_(True)


def fit(
    reward_model: PreferenceModel, pairs: Sequence[PreferencePair], settings: PreferenceSettings
) -> PreferenceReport:
    """Train the head, and the language model unless frozen, on all but the held-out pairs.

    Loss, averaged over a batch: ``-log sigmoid(r(chosen) - r(rejected))``. AdamW without weight decay; the learning
    rate is annealed linearly to a tenth, and gradients are clipped to norm 1. Finally the head's bias is set such that
    the training texts have mean reward 0, which the loss leaves undetermined.
    """
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(pairs))
    num_held_out = min(round(settings.held_out * len(pairs)), len(pairs) - 1)
    held_out, training = order[:num_held_out], order[num_held_out:]
    chosen = [reward_model.encode(pair.prompt, pair.chosen) for pair in pairs]
    rejected = [reward_model.encode(pair.prompt, pair.rejected) for pair in pairs]
    head, backbone = reward_model.head, reward_model.model
    backbone.requires_grad_(not settings.freeze)
    parameters = [*head.parameters(), *(p for p in backbone.parameters() if p.requires_grad)]
    rate = _learning_rate(settings, backbone)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    known = _frozen_features(reward_model, chosen + rejected) if settings.freeze else None
    num_steps = settings.epochs * -(-len(training) // settings.batch_size)
    step = 0
    for _ in range(settings.epochs):
        shuffled = rng.permutation(training)
        for start in range(0, len(shuffled), settings.batch_size):
            batch = shuffled[start : start + settings.batch_size].tolist()
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * step / num_steps)
            if known is None:
                features = reward_model.features([chosen[i] for i in batch] + [rejected[i] for i in batch])
            else:
                features = known[batch + [len(pairs) + i for i in batch]]
            better, worse = head(features)[:, 0].chunk(2)
            loss = -F.logsigmoid(better - worse).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
    backbone.requires_grad_(False)
    head.requires_grad_(False)
    rewards = np.stack([reward_model.rewards(chosen), reward_model.rewards(rejected)])
    head.bias.sub_(float(rewards[:, training].mean()))
    margins = rewards[0] - rewards[1]
    return PreferenceReport(
        num_training=len(training),
        num_held_out=num_held_out,
        training_accuracy=float((margins[training] > 0).mean()),
        held_out_accuracy=float((margins[held_out] > 0).mean()) if num_held_out else None,
        held_out_loss=float(np.logaddexp(0.0, -margins[held_out]).mean()) if num_held_out else None,
    )


def _learning_rate(settings: PreferenceSettings, backbone: Any) -> float:
    if settings.learning_rate is not None:
        return settings.learning_rate
    if settings.freeze:
        return 1e-2
    return 5e-4 if sum(p.numel() for p in backbone.parameters()) <= 10_000_000 else 1e-5


@torch.no_grad()
def _frozen_features(reward_model: PreferenceModel, texts: Sequence[Encoded]) -> torch.Tensor:
    parts = range(0, len(texts), _BATCH_SIZE)
    return torch.cat([reward_model.features(texts[start : start + _BATCH_SIZE]) for start in parts])


_FORMAT = 1
"""Version of the file format."""
_INDEX, _HEAD, _BACKBONE = "preferences.json", "head.safetensors", "backbone"


def write_reward_model(
    folder: Path, reward_model: PreferenceModel, settings: PreferenceSettings, report: PreferenceReport
) -> None:
    """Write the files of ``read_reward_model``, the index last, so that a folder with one is complete."""
    if folder.exists() and not (folder / _INDEX).exists() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and is not a reward model, so it is not replaced; choose another folder"
        )
    _check_tokenizer(reward_model.tokenizer)
    (folder / _BACKBONE).mkdir(parents=True, exist_ok=True)
    (folder / _INDEX).unlink(missing_ok=True)
    with no_progress_bars():
        reward_model.model.save_pretrained(folder / _BACKBONE)
    tokenizer = _write_tokenizer(folder / _BACKBONE, reward_model.tokenizer)
    save_file(reward_model.head.state_dict(), folder / _HEAD)
    index = {"format": _FORMAT, "tokenizer": tokenizer, "settings": asdict(settings), "report": asdict(report)}
    _write_json(folder / _INDEX, index)


def read_reward_model(folder: Path) -> tuple[PreferenceModel, PreferenceSettings, PreferenceReport]:
    """Read the files of ``write_reward_model``."""
    index_file = folder / _INDEX
    if not index_file.is_file():
        raise FileNotFoundError(f"{folder} is not a reward model: it has no {_INDEX}")
    try:
        index = json.loads(index_file.read_text(encoding="utf-8"))
        version = index["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{index_file} is damaged: {type(error).__name__}: {error}") from error
    if version != _FORMAT:
        raise ValueError(f"{folder} has format {version}, this version of textgym reads format {_FORMAT}")
    try:
        settings, report = PreferenceSettings(**index["settings"]), PreferenceReport(**index["report"])
        backbone = load_lm(folder / _BACKBONE, dtype="auto").requires_grad_(False)
        tokenizer = as_tokenizer(folder / _BACKBONE if index["tokenizer"] is None else index["tokenizer"])
        weight = backbone.get_output_embeddings().weight
        head = new_head(weight.shape[1], weight.device)
        head.load_state_dict(load_file(folder / _HEAD))
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    return PreferenceModel(backbone, tokenizer, head.requires_grad_(False)), settings, report


def _check_tokenizer(tokenizer: Tokenizer) -> None:
    inner = tokenizer.tokenizer if isinstance(tokenizer, PaddedTokenizer) else tokenizer
    if not isinstance(inner, ByteTokenizer | TokenizersTokenizer | TransformersTokenizer):
        raise ValueError(
            f"a {type(inner).__name__} has no file format; a reward model that is to be saved needs a tokenizer of "
            "Hugging Face, or 'byte'"
        )


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Write the tokenizer's files and return None, or return the name of a tokenizer without files."""
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
