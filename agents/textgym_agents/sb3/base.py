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
"""Default learning rate of a head relative to that of the language model, as in textgym's own agents."""


@dataclass(frozen=True)
class TextStates:
    """M states, text by text: what our buffers give to SB3's ``train`` as observations, which gives it to our policies.

    The numbers stay on the CPU, from where the language model takes them.
    """

    ids: torch.Tensor
    """(B, W) int64, texts from the left; what stands after a text's end is any token."""
    rows: torch.Tensor
    """(M,) int64, the text that each state belongs to, ascending."""
    columns: torch.Tensor
    """(M,) int64, where the last token of each state stands, ascending within a text."""

    @property
    def prompt_lengths(self) -> torch.Tensor:
        """(B,) int64, tokens of each text's first state, which it may share with others."""
        counts = torch.bincount(self.rows, minlength=len(self.ids))
        return self.columns[counts.cumsum(0) - counts] + 1

    @classmethod
    def of(cls, observation: Any, pad_token_id: int) -> "TextStates":
        """Return states as they are, and M observations, which SB3's own buffers give, each as a text of its own.

        Args:
            observation: States, or (M, L) integers, texts right-padded with ``pad_token_id``, or a dict of such.
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
    """Return (M, H) last hidden states from one forward over B texts, without the logits, which cost more than they."""
    rows, columns = states.rows.to(backbone.device), states.columns.to(backbone.device)
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        kept.append(hidden[rows, columns])
        return hidden[:1, :1]

    with backbone._precision(), lm_head_hook(backbone.model, keep):
        backbone.model(input_ids=states.ids.to(backbone.device), use_cache=False)
    return kept[0]


def windows_of(observation: Any, pad_token_id: int) -> npt.NDArray[np.int64]:
    """Return the (N, L) int64 ids of a tensor that SB3 made of an observation, or of a dict of such.

    Raises:
        ValueError: If they are not texts right-padded with ``pad_token_id``, although the space says so: SB3's
            ``VecNormalize`` and ``VecFrameStack`` leave the space as one that fits, and change what is in it.
    """
    ids = observation["ids"] if isinstance(observation, dict) else observation
    windows: npt.NDArray[np.int64] = ids.long().numpy(force=True)
    is_pad = windows == pad_token_id
    is_text = not (is_pad[:, :-1] & ~is_pad[:, 1:]).any() and 0 <= windows.min() <= windows.max() <= pad_token_id
    if not is_text or (ids.is_floating_point() and bool((ids != ids.round()).any())):
        raise ValueError(
            f"the observation is no window of token ids from 0, right-padded with {pad_token_id}: a wrapper changes "
            "it; use VecNormalize(norm_obs=False), and neither VecFrameStack nor any other wrapper of observations"
        )
    return windows


def window_space(observation_space: spaces.Space[Any]) -> spaces.Box:
    """Return the space of the token window: the observation, or its entry ``"ids"``.

    Raises:
        TypeError: If there is none.
    """
    space = observation_space.get("ids") if isinstance(observation_space, spaces.Dict) else observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.integer):
        raise TypeError(
            "a language model reads token ids, a space Box(0, V, (L,), int64) or a Dict that holds one under 'ids', "
            f"got {observation_space}; make the environment with observation='tokens'"
        )
    return space


def check_window(observation_space: spaces.Space[Any], backbone: LMBackbone) -> None:
    """Check that a model can read the observations.

    Raises:
        TypeError: If the observation holds no token window.
        ValueError: If its ids are not the model's, or its window is longer than the model's positions.
    """
    space = window_space(observation_space)
    if (highest := int(space.high.max())) != backbone.vocab_size:
        raise ValueError(
            f"the environment has a vocabulary of {highest}, the model one of {backbone.vocab_size}; the environment "
            "needs the model's own tokenizer: give it the same model=..."
        )
    backbone.check_window(space.shape[0])


def check_actions(action_space: spaces.Space[Any], backbone: LMBackbone) -> None:
    """Check that an action is a token of the model.

    Raises:
        TypeError: If actions are not ``Discrete``.
        ValueError: If there are more or fewer of them than tokens.
    """
    if not isinstance(action_space, spaces.Discrete):
        raise TypeError(
            f"a language model writes one token per action, a space Discrete({backbone.vocab_size}), got {action_space}"
        )
    if action_space.n != backbone.vocab_size or action_space.start != 0:
        raise ValueError(
            f"the environment has {action_space.n} actions, the model a vocabulary of {backbone.vocab_size}; a "
            "language model needs actions='vocabulary' and its own tokenizer: give the environment the same model=..."
        )


def make_optimizer(
    module: nn.Module,
    backbone: nn.Module,
    learning_rate: float,
    head_lr_scale: float,
    optimizer_class: type[torch.optim.Optimizer],
    optimizer_kwargs: dict[str, Any] | None,
) -> torch.optim.Optimizer:
    """Return an optimizer over what trains in ``module``, in two groups: ``backbone`` and the rest, which is the head.

    SB3 writes its schedule's learning rate into every group before each update. A group therefore carries
    ``lr_scale``, by which its rate is multiplied during a step.

    Args:
        module: All that is trained.
        backbone: The part of it that is the language model.
        learning_rate: The schedule's first.
        head_lr_scale: Of the rest.
        optimizer_class: Any of torch's.
        optimizer_kwargs: Of its constructor; None is no weight decay.

    Raises:
        ValueError: If the optimizer is fused, or ``head_lr_scale`` is negative.
    """
    settings: dict[str, Any] = {"weight_decay": 0.0} if optimizer_kwargs is None else optimizer_kwargs
    if settings.get("fused"):
        raise ValueError(
            "a fused optimizer leaves the parameters' version counters as they are, by which the stream notices that "
            "its cache is out of date; leave out fused=True"
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
