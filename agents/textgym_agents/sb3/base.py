"""Shared parts of the policies and buffers: states as prefixes of texts, checks of spaces, the optimizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import nn

from textgym.lm import lm_head_hook
from textgym_agents.backbone import LMBackbone

__all__ = [
    "HEAD_LR_SCALE",
    "TextStates",
    "check_actions",
    "check_window",
    "hidden_states",
    "make_optimizer",
    "window_space",
    "windows_of",
]

HEAD_LR_SCALE = 10.0
"""Default learning rate of a head relative to that of the language model, as in textgym's actor-critics."""


@dataclass(frozen=True)
class TextStates:
    """M states that are prefixes of B texts, so that one forward over the texts evaluates them all.

    textgym's buffers yield them in place of observations; SB3's ``train`` passes them to textgym's policies unchanged.
    The tensors stay on the CPU.
    """

    ids: torch.Tensor
    """(B, W) int64 texts, right-padded with any token."""
    rows: torch.Tensor
    """(M,) int64, the text of each state, ascending."""
    columns: torch.Tensor
    """(M,) int64, the column of each state's last token, ascending within a text."""

    @property
    def prompt_lengths(self) -> torch.Tensor:
        """(B,) int64, length of each text's first state."""
        counts = torch.bincount(self.rows, minlength=len(self.ids))
        return self.columns[counts.cumsum(0) - counts] + 1

    @classmethod
    def of(cls, observation: Any, pad_token_id: int) -> "TextStates":
        """Return ``TextStates`` unchanged; convert M observations from SB3's own buffers, one text each.

        Args:
            observation: ``TextStates``, (M, L) ids right-padded with ``pad_token_id``, or a dict with ``"ids"``.
            pad_token_id: V.
        """
        if isinstance(observation, cls):
            return observation
        windows = observation["ids"] if isinstance(observation, dict) else observation
        ids = windows.long().cpu()
        lengths = (ids != pad_token_id).sum(dim=1)
        ids = ids[:, : int(lengths.max())]
        rows = torch.arange(len(ids))
        return cls(ids.masked_fill(ids == pad_token_id, 0), rows, lengths - 1)


def hidden_states(backbone: LMBackbone, states: TextStates) -> torch.Tensor:
    """Return (M, H) last hidden states from one forward over B texts, without computing logits."""
    rows, columns = states.rows.to(backbone.device), states.columns.to(backbone.device)
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        kept.append(hidden[rows, columns])
        return hidden[:1, :1]

    with backbone._precision(), lm_head_hook(backbone.model, keep):
        backbone.model(input_ids=states.ids.to(backbone.device), use_cache=False)
    return kept[0]


def windows_of(observation: Any, pad_token_id: int) -> npt.NDArray[np.int64]:
    """Return the (N, L) int64 ids of an observation tensor, or of a dict with ``"ids"``.

    Raises:
        ValueError: If they are not texts right-padded with ``pad_token_id``: SB3's ``VecNormalize`` and
            ``VecFrameStack`` change observations in a way that the space does not show.
    """
    ids = observation["ids"] if isinstance(observation, dict) else observation
    windows: npt.NDArray[np.int64] = ids.long().numpy(force=True)
    is_pad = windows == pad_token_id
    is_text = not (is_pad[:, :-1] & ~is_pad[:, 1:]).any() and 0 <= windows.min() <= windows.max() <= pad_token_id
    if not is_text or (ids.is_floating_point() and bool((ids != ids.round()).any())):
        raise ValueError(
            f"expected token ids from 0, right-padded with {pad_token_id}, but a wrapper changes the observations; use "
            "VecNormalize(norm_obs=False) and no VecFrameStack or other observation wrapper"
        )
    return windows


def window_space(observation_space: spaces.Space[Any]) -> spaces.Box:
    """Return the space of the token window, the observation space or its entry ``"ids"``; raise a TypeError if none."""
    space = observation_space.get("ids") if isinstance(observation_space, spaces.Dict) else observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.integer):
        raise TypeError(
            "a language model needs token ids, a space Box(0, V, (L,), int64) or a Dict with one under 'ids', "
            f"got {observation_space}; make the environment with observation='tokens'"
        )
    return space


def check_window(observation_space: spaces.Space[Any], backbone: LMBackbone) -> None:
    """Raise an error unless the observations are token windows of the model's vocabulary that fit its positions."""
    space = window_space(observation_space)
    if (highest := int(space.high.max())) != backbone.vocab_size:
        raise ValueError(
            f"the environment has a vocabulary of {highest}, the model one of {backbone.vocab_size}; make the "
            "environment with the model's own tokenizer: the same model=..."
        )
    backbone.check_window(space.shape[0])


def check_actions(action_space: spaces.Space[Any], backbone: LMBackbone) -> None:
    """Raise an error unless the actions are the tokens of the model."""
    if not isinstance(action_space, spaces.Discrete):
        raise TypeError(
            f"a language model needs one action per token, a space Discrete({backbone.vocab_size}), got {action_space}"
        )
    if action_space.n != backbone.vocab_size or action_space.start != 0:
        raise ValueError(
            f"the environment has {action_space.n} actions, the model a vocabulary of {backbone.vocab_size}; "
            "make the environment with actions='vocabulary' and the model's own tokenizer: the same model=..."
        )


def make_optimizer(
    module: nn.Module,
    backbone: nn.Module,
    learning_rate: float,
    head_lr_scale: float,
    optimizer_class: type[torch.optim.Optimizer],
    optimizer_kwargs: dict[str, Any] | None,
) -> torch.optim.Optimizer:
    """Return an optimizer with separate learning rates for the language model and the head.

    SB3 sets the learning rate of its schedule in every parameter group before each update. A group therefore has an
    ``lr_scale`` by which its rate is multiplied during a step. Parameters of ``module`` outside ``backbone`` are the
    head; ``optimizer_kwargs=None`` means no weight decay.

    Raises:
        ValueError: If the optimizer is fused, or ``head_lr_scale`` is negative.
    """
    settings: dict[str, Any] = {"weight_decay": 0.0} if optimizer_kwargs is None else optimizer_kwargs
    if settings.get("fused"):
        raise ValueError(
            "a fused optimizer does not advance the parameters' version counters, which invalidate the KV cache; leave "
            "out fused=True"
        )
    if head_lr_scale < 0:
        raise ValueError(f"head_lr_scale must be at least 0, got {head_lr_scale}")
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    inside = {id(parameter) for parameter in backbone.parameters()}
    groups = [
        {"params": [p for p in trained if id(p) in inside], "lr_scale": 1.0},
        {"params": [p for p in trained if id(p) not in inside], "lr_scale": head_lr_scale},
    ]
    optimizer = optimizer_class(groups, lr=learning_rate, **settings)  # type: ignore[call-arg]
    rates: list[float] = []

    def scale(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        _set_rates(optimizer, [group["lr"] * group["lr_scale"] for group in optimizer.param_groups])

    def restore(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        _set_rates(optimizer, rates)

    optimizer.register_step_pre_hook(scale)
    optimizer.register_step_post_hook(restore)
    return optimizer


def _set_rates(optimizer: torch.optim.Optimizer, rates: Iterable[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
