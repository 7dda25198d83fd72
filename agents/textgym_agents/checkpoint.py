"""An agent on disk: tensors as safetensors, everything else as JSON. Nothing in it can execute code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["load_json", "load_optimizer", "save_json", "save_optimizer"]


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, so that a person can read and compare it."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: If there is none; the message names the folder that is no checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} is no checkpoint: it has no {path.name}")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def save_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write the state tensors of an optimizer, named ``<parameter number>.<key>``."""
    state = optimizer.state_dict()["state"]
    save_file({f"{i}.{key}": value.contiguous() for i, slot in state.items() for key, value in slot.items()}, path)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore state tensors into an optimizer over the same parameters; its settings stay as constructed."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(path).items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
