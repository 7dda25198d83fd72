"""Reading the episodes that a recorder, or another program, wrote into a file."""

import base64
import json
import math
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.errors import install_hint
from textgym_agents.episodes import Episodes

__all__ = ["INFO_COLUMNS", "Row", "import_pyarrow", "read_episodes"]

INFO_COLUMNS = ("prompt", "completion", "score", "scores", "group", "end_reason", "kl", "scorer_error", "turns")
"""Info keys stored as columns; the remaining keys are derived on load."""
Row = dict[str, Any]
"""One episode: the columns of ``EpisodeRecorder``, masks as bytes."""


def read_episodes(path: str | PathLike[str]) -> Episodes:
    """Read what ``EpisodeRecorder`` wrote, exactly, or what others wrote in its columns.

    Only ``prompt_ids``, ``completion_ids`` and ``rewards`` are needed. Where ``log_probs`` are missing they are NaN:
    nobody knows them. Where ``values`` are missing they are 0. Where ``is_action`` is missing, all tokens were chosen.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is unknown, the file is empty, or a row is damaged, lacks a column or holds numbers
            that are not finite; it says which.
        ImportError: If pyarrow is needed and not installed.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = list(_json_rows(path))
    elif path.suffix == ".parquet":
        rows = list(_parquet_rows(path))
    else:
        raise ValueError(f"episodes are read from .jsonl or .parquet, got {path.name!r}")
    if not rows:
        raise ValueError(f"{path} holds no episodes")
    return _episodes(path, rows)


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"Parquet files need pyarrow, .jsonl files do not: {install_hint('parquet')}") from error
    return pyarrow, pyarrow.parquet


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield where each row stands, and the row."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"a JSON object was expected, not {type(row).__name__}")
                if row.get("action_masks"):
                    row["action_masks"] = base64.b64decode(row["action_masks"], validate=True)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where} is damaged or cut off: {error}") from error
            yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    arrow, parquet = import_pyarrow()
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no whole Parquet file; a recorder has to be closed: {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        if isinstance(row.get("scores"), list):  # a map comes as pairs
            row["scores"] = dict(row["scores"])
        yield f"{path}, row {number}", row


def _episodes(path: Path, rows: list[tuple[str, Row]]) -> Episodes:
    """Put rows into arrays."""
    prompts = [_column(where, row, "prompt_ids", np.int64) for where, row in rows]
    completions = [_column(where, row, "completion_ids", np.int64) for where, row in rows]
    chosen = [_chosen(where, row, len(ids)) for (where, row), ids in zip(rows, completions, strict=True)]
    steps = [len(columns) for columns in chosen]
    texts = [np.concatenate(pair) for pair in zip(prompts, completions, strict=True)]

    def numbers(name: str, missing: float | None) -> torch.Tensor:
        columns = [
            _column(where, row, name, np.float32, size, missing) for (where, row), size in zip(rows, steps, strict=True)
        ]
        return _padded(columns)

    return Episodes(
        ids=_padded(texts),
        prompt_lengths=torch.tensor([len(ids) for ids in prompts]),
        num_steps=torch.tensor(steps),
        rewards=numbers("rewards", None),
        log_probs=numbers("log_probs", math.nan),
        values=numbers("values", 0.0),
        truncated=torch.tensor([bool(row.get("truncated", False)) for _, row in rows]),
        action_masks=_masks(path, rows, steps),
        infos=[_info(row) for _, row in rows],
        positions=_padded([len(ids) + columns for ids, columns in zip(prompts, chosen, strict=True)]),
        text_lengths=torch.tensor([len(ids) for ids in texts]),
    )


def _chosen(where: str, row: Row, size: int) -> npt.NDArray[np.int64]:
    """Return (T,), which of the completion's tokens were chosen."""
    value = row.get("is_action")
    if value is None:
        return np.arange(size)
    if not isinstance(value, list) or not all(isinstance(entry, bool) for entry in value) or True not in value:
        raise ValueError(f"{where}: 'is_action' must be a list of booleans of which one is true, got {value!r:.60}")
    if len(value) != size:
        raise ValueError(f"{where}: 'is_action' has {len(value)} entries for the {size} of 'completion_ids'")
    return np.flatnonzero(value)


def _column(
    where: str, row: Row, name: str, dtype: Any, size: int | None = None, missing: float | None = None
) -> npt.NDArray[Any]:
    """Return a row's list as an array of ``size``; a list of ``missing`` where there is none."""
    value = row.get(name)
    if value is None and missing is not None and size is not None:
        return np.full(size, missing, dtype=dtype)
    if value is None:
        raise ValueError(f"{where} has no column {name!r}; its columns are {sorted(row)}")
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.zeros(0)
    kinds = "iu" if dtype is np.int64 else "iuf"
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in kinds or (kinds == "iu" and array.min() < 0):
        kind = "token ids" if kinds == "iu" else "numbers"
        raise ValueError(f"{where}: {name!r} must be a list of {kind} that is not empty, got {value!r:.60}")
    if size is not None and array.size != size:
        tokens = "of 'completion_ids'" if row.get("is_action") is None else "true ones of 'is_action'"
        raise ValueError(f"{where}: {name!r} has {array.size} entries for the {size} {tokens}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    is_known = missing is None or not math.isnan(missing)
    if is_known and not np.isfinite(array).all():
        raise ValueError(f"{where}: {name!r} must be finite float32 numbers, got {value!r:.60}")
    return array


def _padded(columns: list[npt.NDArray[Any]]) -> torch.Tensor:
    """Stack arrays of different lengths, filled up with 0."""
    stacked = np.zeros((len(columns), max(len(column) for column in columns)), dtype=columns[0].dtype)
    for b, column in enumerate(columns):
        stacked[b, : len(column)] = column
    return torch.from_numpy(stacked)


def _masks(path: Path, rows: list[tuple[str, Row]], steps: list[int]) -> npt.NDArray[np.uint8] | None:
    """Return (B, T, ceil(V / 8)) bits, or None where no row has masks."""
    packed = [row.get("action_masks") or b"" for _, row in rows]
    if not any(packed):
        return None
    widths = {len(bits) / size for bits, size in zip(packed, steps, strict=True)}
    width = int(max(widths))
    if widths != {width}:
        raise ValueError(f"{path}: the action masks of its episodes differ in width, or only some episodes have them")
    masks = np.zeros((len(rows), max(steps), width), dtype=np.uint8)
    for b, (bits, size) in enumerate(zip(packed, steps, strict=True)):
        masks[b, :size] = np.frombuffer(bits, dtype=np.uint8).reshape(size, width)
    return masks


def _info(row: Row) -> dict[str, Any]:
    """Return the last step's info as the environment gave it."""
    info = {name: row[name] for name in INFO_COLUMNS if row.get(name) is not None}
    info["completion_ids"], info["length"] = row["completion_ids"], len(row["completion_ids"])
    if "turns" in info:
        info["is_action"] = row.get("is_action") or [True] * info["length"]
    info["score"] = math.nan if row.get("score") is None else float(row["score"])
    if isinstance(row.get("scores"), dict):
        info["scores"] = {name: math.nan if score is None else score for name, score in row["scores"].items()}
    return info
