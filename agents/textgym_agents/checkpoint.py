"""Agents and policies on disk: tensors as safetensors, everything else as JSON. Nothing in it can execute code."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

__all__ = [
    "find_checkpoint",
    "load_heads",
    "load_optimizer",
    "load_part",
    "numbered_checkpoints",
    "open_checkpoint",
    "save_heads",
    "save_json",
    "save_optimizer",
    "save_part",
    "saved_settings",
    "write_checkpoint",
]

_FORMAT = 7
"""Incremented when the files of a checkpoint change their meaning."""
_INDEX = "agent.json"
_HEADS = "heads.safetensors"
"""Beside the language model in the folder of a policy; its metadata are the policy's settings and variables."""


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, so that a person can read and compare it."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_checkpoint(path: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Let ``write`` fill a new folder and return its index, then put the folder in the place of ``path``.

    ``path`` is replaced only after all files are written.

    Raises:
        FileExistsError: If ``path`` is a file, or a folder with other content than a checkpoint.
    """
    if path.exists() and not (path / _INDEX).exists() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not a checkpoint, so it is not replaced; choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        content = write(new)
        sizes = {
            file.relative_to(new).as_posix(): file.stat().st_size for file in sorted(new.rglob("*")) if file.is_file()
        }
        save_json(new / _INDEX, {"format": _FORMAT, **content, "files": sizes})
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise


def numbered_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in the folder of a ``Checkpoint``, named by their number of tokens, oldest first."""
    return sorted(index.parent for index in folder.glob(f"[0-9]*/{_INDEX}") if index.parent.name.isdigit())


def find_checkpoint(path: Path) -> Path:
    """Return the newest checkpoint in the folder of a ``Checkpoint`` or ``RunFolder``; any other path unchanged."""
    if (path / _INDEX).exists():
        return path
    for folder in (path, path / "checkpoints"):
        if found := numbered_checkpoints(folder):
            return found[-1]
    return path


def open_checkpoint(path: Path, algorithm: str) -> dict[str, Any]:
    """Check that a folder is a complete checkpoint of an algorithm, and return its index.

    Raises:
        FileNotFoundError: If it is not a checkpoint.
        ValueError: If the checkpoint is of another algorithm or format, or a file is missing or incomplete.
    """
    index = path / _INDEX
    if not index.exists():
        raise FileNotFoundError(f"{path} is not a checkpoint: it has no {_INDEX}")
    try:
        content: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{index} is damaged ({error}); load another checkpoint") from error
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {content.get('format')}, this version of textgym reads format {_FORMAT}: "
            "load it with the version that wrote it"
        )
    if content["algorithm"] != algorithm:
        raise ValueError(
            f"{path} is a checkpoint of {content['algorithm']}, not of {algorithm}: call {content['algorithm']}.load"
        )
    for name, size in content["files"].items():
        found = (path / name).stat().st_size if (path / name).exists() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes of {size}"
            raise ValueError(f"{path} is incomplete: {name} {state}; load another checkpoint")
    return content


def save_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write the state tensors of an optimizer, named ``<parameter number>.<key>``."""
    state = optimizer.state_dict()["state"]
    save_file({f"{i}.{key}": value.contiguous() for i, slot in state.items() for key, value in slot.items()}, path)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the state tensors of an optimizer over the same parameters; its settings do not change."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(path).items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_part(part: Any, folder: Path) -> Any:
    """Write a network, or an object with ``save(folder) -> JSON``, into a new folder; return the rest as JSON.

    A JSON value is returned as it is.
    """
    if hasattr(part, "save_pretrained"):
        part.save_pretrained(folder)
        return None
    if hasattr(part, "save"):
        folder.mkdir()
        return part.save(folder)
    return part


def load_part(part: Any, folder: Path, state: Any) -> Any:
    """Restore what ``save_part`` wrote and returned; return the part, or the JSON value."""
    if hasattr(part, "save_pretrained"):
        part.restore(folder)
        return part
    if hasattr(part, "load"):
        part.load(folder, state)
        return part
    return state


def save_heads(policy: Any, folder: Path) -> None:
    """Write everything of a ``BasePolicy`` but its backbone."""
    metadata = {
        key: json.dumps({name: getattr(policy, name) for name in names})
        for key, names in (("settings", policy.settings), ("variables", policy.variables))
    }
    save_file(_heads(policy), folder / _HEADS, metadata)


def load_heads(policy: nn.Module, folder: Path) -> None:
    """Load the weights that ``save_heads`` wrote.

    Raises:
        ValueError: If the folder holds other heads than the policy has.
    """
    heads, own = load_file(folder / _HEADS), _heads(policy)
    if own.keys() != heads.keys():
        raise ValueError(f"{folder} holds other heads than {sorted(own)}: {sorted(heads)}")
    policy.load_state_dict(heads, strict=False)  # the backbone is not among them


def saved_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings and the variables of the policy of ``save_heads``."""
    with safe_open(folder / _HEADS, "pt") as file:
        metadata = file.metadata()
    return json.loads(metadata["settings"]), json.loads(metadata["variables"])


def _heads(policy: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in policy.state_dict().items() if not name.startswith("backbone.")}
