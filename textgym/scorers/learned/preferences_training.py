"""A scalar head on a language model, and how it learns from pairs; only this imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from textgym.lm import WholeTexts
from textgym.scorers.learned.preferences_pairs import PreferencePair
from textgym.scorers.learned.preferences_settings import PreferenceReport, PreferenceSettings
from textgym.scorers.text import cleaned
from textgym.tokenizers import Tokenizer

__all__ = ["PreferenceModel", "fit", "new_head"]

_BATCH_SIZE = 64
"""Texts of one forward where nothing is learnt."""


class Encoded(NamedTuple):
    """A text as the model reads it."""

    ids: list[int]
    """BOS, prompt, completion and EOS."""
    num_prompt: int
    """How many of them other completions of the prompt share: BOS and prompt."""


class PreferenceModel:
    """A language model's trunk, and a linear map from the hidden state of a text's last token to a number.

    Args:
        model: The trunk, with the output head that it came with.
        tokenizer: Its own.
        head: From its hidden width to 1.

    Raises:
        ValueError: If the tokenizer has neither BOS nor EOS, so that nothing could stand for an empty text.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, head: nn.Linear) -> None:
        self.model = model.eval()  # no dropout, in training neither: the same seed, the same weights
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
        self._whole = WholeTexts(model)

    def encode(self, prompt: str, completion: str) -> Encoded:
        """Return what is read: of a long prompt the end, of a long completion the beginning."""
        before = self.tokenizer.encode(cleaned(prompt[-2_000:]))
        text = self.tokenizer.encode(cleaned(completion))
        if self._room is not None:
            before = before[-max(1, self._room // 2) :]
            text = text[: max(0, self._room - len(before))]
        return Encoded([*self._start, *before, *text, *self._end], 1 + len(before))

    def features(self, texts: Sequence[Encoded]) -> torch.Tensor:
        """Return (B, H) float32, the hidden state of each text's last token, with gradients."""
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
    """Return a head of zeros: all rewards are equal, and no generator is asked."""
    head = nn.utils.skip_init(nn.Linear, width, 1, device=device)
    head.requires_grad_(False)
    head.weight.zero_()
    head.bias.zero_()
    return head.requires_grad_(True)


def fit(
    reward_model: PreferenceModel, pairs: Sequence[PreferencePair], settings: PreferenceSettings
) -> PreferenceReport:
    """Train the head, and the trunk where it is not frozen, on all but the held-out pairs.

    Loss, the mean over a batch: ``-log sigmoid(r(chosen) - r(rejected))``. AdamW without weight decay; the learning
    rate falls linearly to a tenth, and the norm of the gradient is at most 1. At the end the head's bias is set so that
    the mean reward of the training texts is 0, which the loss leaves open.
    """
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(pairs))
    num_held_out = min(round(settings.held_out * len(pairs)), len(pairs) - 1)
    held_out, training = order[:num_held_out], order[num_held_out:]
    chosen = [reward_model.encode(pair.prompt, pair.chosen) for pair in pairs]
    rejected = [reward_model.encode(pair.prompt, pair.rejected) for pair in pairs]
    head, trunk = reward_model.head, reward_model.model
    trunk.requires_grad_(not settings.freeze)
    parameters = [*head.parameters(), *(p for p in trunk.parameters() if p.requires_grad)]
    rate = _learning_rate(settings, trunk)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    known = _frozen_features(reward_model, chosen + rejected) if settings.freeze else None
    steps = settings.epochs * -(-len(training) // settings.batch_size)
    done = 0
    for _ in range(settings.epochs):
        shuffled = rng.permutation(training)
        for start in range(0, len(shuffled), settings.batch_size):
            batch = shuffled[start : start + settings.batch_size].tolist()
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * done / steps)
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
            done += 1
    trunk.requires_grad_(False)
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


def _learning_rate(settings: PreferenceSettings, trunk: Any) -> float:
    if settings.learning_rate is not None:
        return settings.learning_rate
    if settings.freeze:
        return 1e-2
    return 5e-4 if sum(p.numel() for p in trunk.parameters()) <= 10_000_000 else 1e-5


@torch.no_grad()
def _frozen_features(reward_model: PreferenceModel, texts: Sequence[Encoded]) -> torch.Tensor:
    parts = range(0, len(texts), _BATCH_SIZE)
    return torch.cat([reward_model.features(texts[start : start + _BATCH_SIZE]) for start in parts])
