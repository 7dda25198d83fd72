"""Preference pairs, their files, and the settings and report of training on them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

__all__ = ["PreferencePair", "PreferenceReport", "PreferenceSettings", "as_pair", "read_pairs"]

_COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class PreferencePair:
    """Two completions of a prompt, the better one and the worse one."""

    prompt: str
    """What both continue."""
    chosen: str
    """The completion that was preferred."""
    rejected: str
    """The other one."""


def read_pairs(path: str | Path) -> list[PreferencePair]:
    r"""Read a JSONL file with the columns ``prompt``, ``chosen`` and ``rejected``, as TRL's data sets have them.

    Other columns and blank lines are passed over.

    Args:
        path: A file in UTF-8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not an object with these columns as text, its chosen and rejected completions are
            equal, or the file has none. The message names the line, what stands there and what was expected.

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
        raise ValueError(f"{path.name} holds no pairs; expected a JSON object with {_listed(_COLUMNS)} in each line")
    return pairs


def as_pair(row: Any, where: str = "the pair") -> PreferencePair:
    """Return the pair that a row of a data set is.

    Args:
        row: A pair, or a mapping with the three columns.
        where: What the row is called in a message.

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
    """How a reward model is trained.

    Raises:
        ValueError: If a number is out of its range.
    """

    freeze: bool = False
    """Whether only the head learns, which costs one forward for each text; else the whole model does."""
    epochs: int = 3
    """Times that each pair is learnt from."""
    learning_rate: float | None = None
    """Of AdamW, at the beginning; it falls linearly to a tenth. By default 0.01 where the trunk is frozen, else 0.0005
    for a model of up to 10 million weights and 0.00001 for a larger one."""
    batch_size: int = 32
    """Pairs of one step."""
    held_out: float = 0.1
    """Share of the pairs that nothing is learnt from, on which the accuracy is measured; 0 for none."""
    seed: int = 0
    """Decides which pairs are held out, and in what order the others come."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.learning_rate is not None and not (self.learning_rate > 0 and isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be a share from 0 to below 1, got {self.held_out!r}")


@dataclass(frozen=True, kw_only=True)
class PreferenceReport:
    """What came of training a reward model."""

    num_training: int
    """Pairs that it learnt from."""
    num_held_out: int
    """Pairs that it did not."""
    training_accuracy: float
    """Share of the former in which the chosen completion has the higher reward, afterwards."""
    held_out_accuracy: float | None
    """The same of the latter; None where there are none."""
    held_out_loss: float | None
    """Mean of -log sigmoid(r(chosen) - r(rejected)) over them, in nats: log 2 is what guessing has."""
