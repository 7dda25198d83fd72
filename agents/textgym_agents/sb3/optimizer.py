"""Two learning rates under SB3's single one: the head starts from nothing, the language model does not."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["HEAD_LR_SCALE", "make_optimizer"]

HEAD_LR_SCALE = 10.0
"""How many times faster a head learns than the language model under it, as in our own agents."""


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
