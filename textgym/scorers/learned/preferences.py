"""Preference pairs and their files; settings and report of training on them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from textgym.scorers.arguments import as_count

__all__ = ["PreferencePair", "PreferenceReport", "PreferenceSettings", "as_pair", "read_pairs"]

_COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class PreferencePair:
    """Two completions of a prompt, one of which is preferred."""

    prompt: str
    """Prompt of both completions."""
    chosen: str
    """The preferred completion."""
    rejected: str
    """The other completion."""


def read_pairs(path: str | Path) -> list[PreferencePair]:
    r"""Read a JSONL file with the columns ``prompt``, ``chosen`` and ``rejected``, as TRL's data sets have them.

    Other columns and blank lines are skipped.

    Args:
        path: A file in UTF-8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not an object with these columns as text, its completions are equal, or the file has no
            pairs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pairs.jsonl")
    ...     _ = path.write_text('{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}\n')
    ...     read_pairs(path)
    [PreferencePair(prompt='2 + 2 =', chosen=' 4', rejected=' 5')]
    """
    path = Path(path)
    pairs = []
    with path.open(encoding="utf-8-sig", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    pairs.append(_pair_of_line(line, f"{path.name}, line {number}"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name} is not UTF-8: {error}") from error
    if not pairs:
        raise ValueError(f"{path.name} contains no pairs; expected a JSON object with {_listed(_COLUMNS)} in each line")
    return pairs


def as_pair(row: Any, where: str = "the pair") -> PreferencePair:
    """Convert a row of a data set into a pair.

    Args:
        row: A pair, or a mapping with the three columns.
        where: Name of the row in messages.

    Raises:
        ValueError: If it is neither, or chosen and rejected are equal.
    """
    if isinstance(row, PreferencePair):
        return _unequal(row, where)
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: got {type(row).__name__} {row!r:.60}, expected {_listed(_COLUMNS)}")
    missing = [name for name in _COLUMNS if name not in row]
    if missing:
        found = _listed(row) if row else "none"
        raise ValueError(f"{where}: got the columns {found}, expected {_listed(_COLUMNS)}")
    for name in _COLUMNS:
        if not isinstance(row[name], str):
            raise ValueError(f"{where}: {name!r} is {type(row[name]).__name__} {row[name]!r:.60}, expected text")
    return _unequal(PreferencePair(*(row[name] for name in _COLUMNS)), where)


def _unequal(pair: PreferencePair, where: str) -> PreferencePair:
    if pair.chosen == pair.rejected:
        raise ValueError(f"{where}: chosen and rejected are both {pair.chosen!r:.60}, expected two that differ")
    return pair


def _pair_of_line(line: str, where: str) -> PreferencePair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: got {line.strip()!r:.60}, expected a JSON object ({error})") from error
    return as_pair(row, where)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """Training settings of a reward model."""

    freeze: bool = False
    """Train the head only, with one forward pass per text in all; else the whole model."""
    epochs: int = 3
    """Passes over the training pairs."""
    learning_rate: float | None = None
    """Initial learning rate of AdamW, annealed linearly to a tenth. By default 0.01 with ``freeze``, else 0.0005 for a
    model of up to 10 million weights and 0.00001 for a larger one."""
    batch_size: int = 32
    """Pairs per gradient step."""
    held_out: float = 0.1
    """Fraction of the pairs that is held out to measure accuracy; 0 for none."""
    seed: int = 0
    """Decides the held-out pairs and the order of the others."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            as_count(getattr(self, name), name)
        if self.learning_rate is not None and not (self.learning_rate > 0 and isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be in [0, 1), got {self.held_out!r}")


@dataclass(frozen=True, kw_only=True)
class PreferenceReport:
    """Result of training a reward model."""

    num_training: int
    """Number of training pairs."""
    num_held_out: int
    """Number of held-out pairs."""
    training_accuracy: float
    """Fraction of training pairs whose chosen completion has the higher reward after training."""
    held_out_accuracy: float | None
    """The same for the held-out pairs; None if there are none."""
    held_out_loss: float | None
    """Mean of -log sigmoid(r(chosen) - r(rejected)) over the held-out pairs, in nats; log 2 at chance."""
