"""Episodes read from files, JSON lines or Parquet, whatever is in them."""

import base64
import json
import math
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.errors import install_hint
from textgym.prompts import Sample
from textgym_agents.episodes import Episodes, EpisodeStart
from textgym_agents.token_stats import EpisodeStats

__all__ = ["SCHEMA", "Row", "import_pyarrow", "parsed_json", "read_episodes"]

SCHEMA = "textgym.episode/1"
"""Name and version of the columns of ``EpisodeRecorder``."""

INFO_COLUMNS = ("prompt", "completion", "score", "scores", "group", "end_reason", "kl", "scorer_error", "turns")
"""Info keys stored as columns. ``completion_ids``, ``length`` and ``is_action`` are derived on load, others lost."""

Row = dict[str, Any]
"""One episode: the columns of ``EpisodeRecorder``, masks as bytes."""


def read_episodes(path: str | PathLike[str]) -> Episodes:
    """Read episodes that ``EpisodeRecorder`` wrote, with exact arrays, or another program's file with the same columns.

    Only ``prompt_ids``, ``completion_ids`` and ``rewards`` are required. Missing ``log_probs`` become NaN, missing
    ``values`` 0; without ``is_action`` all tokens of the completion are actions. A last line that a killed program left
    incomplete is skipped with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is unknown, the file holds no episodes, episodes of different vocabularies or of
            another schema, or a row is damaged, lacks a column or has numbers that are not finite. The message names
            the row.
        ImportError: If pyarrow is needed but not installed.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = list(_json_rows(path))
    elif path.suffix == ".parquet":
        rows = list(_parquet_rows(path))
    else:
        raise ValueError(f"episodes are read from .jsonl or .parquet, got {path.name!r}")
    if not rows:
        raise ValueError(f"{path} contains no episodes")
    try:
        return _to_episodes(path, rows)
    except MemoryError as error:
        raise ValueError(f"{path} needs too much memory with all rows as long as the longest one: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the location of each row, for error messages, and the row."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                row = parsed_json(line)
                if not isinstance(row, dict):
                    raise ValueError(f"expected a JSON object, got {type(row).__name__}")
                if row.get("action_masks"):
                    row["action_masks"] = base64.b64decode(row["action_masks"], validate=True)
            except (ValueError, TypeError) as error:
                if not line.endswith(b"\n"):
                    warnings.warn(f"{where}, the last one, is cut off and is skipped: {error}", stacklevel=3)
                    return
                raise ValueError(f"{where} is damaged or cut off: {error}") from error
            yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    arrow, parquet = import_pyarrow()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        rows = parquet.read_table(path, page_checksum_verification=True).to_pylist()
    except (arrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is not a complete Parquet file, or damaged (was it closed?): {error}") from error
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        try:
            if isinstance(row.get("scores"), list):  # a map is returned as pairs
                row["scores"] = dict(row["scores"])
            if isinstance(row.get("metadata"), str):
                row["metadata"] = parsed_json(row["metadata"])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where} is damaged: {error}") from error
        yield where, row


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module; raise an ImportError that names the extra."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"Parquet files need pyarrow, .jsonl files do not: {install_hint('parquet')}") from error
    return pyarrow, pyarrow.parquet


def parsed_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; raise a ValueError for everything that is wrong with it."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


def _to_episodes(path: Any, rows: list[tuple[str, Row]]) -> Episodes:
    """Convert rows to arrays.

    Args:
        path: The file, for error messages.
        rows: The location of each row, for error messages, and the row.

    Raises:
        ValueError: If a row is invalid, or rows do not fit together.
    """
    for where, row in rows:
        _check_schema(where, row)
    starts = [_start(where, row) for where, row in rows]  # checks the scalar columns too
    prompts = [_column(where, row, "prompt_ids", np.int64) for where, row in rows]
    completions = [_column(where, row, "completion_ids", np.int64) for where, row in rows]
    actions = [_action_columns(where, row, len(ids)) for (where, row), ids in zip(rows, completions, strict=True)]
    steps = [len(columns) for columns in actions]
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
        infos=[_info(prompt, row) for prompt, (_, row) in zip(prompts, rows, strict=True)],
        positions=_padded([len(ids) + columns for ids, columns in zip(prompts, actions, strict=True)]),
        text_lengths=torch.tensor([len(ids) for ids in texts]),
        stats=_stats(rows, steps),
        starts=starts if any(start is not None for start in starts) else None,
        vocabulary=_vocabulary(rows),
        texts=_known_texts(rows),
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that float64 holds; NaN is one, too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (value != value or abs(value) < 2**1023)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "vocabulary": ("a text", _is_text),
    "update": ("an integer of at least 0", _is_int),
    "tokens": ("a list of texts", _is_texts),
    "truncated": ("true or false", lambda value: isinstance(value, bool)),
    "action_masks": ("packed bits", lambda value: isinstance(value, bytes)),
    "prompt": ("a text", _is_text),
    "references": ("a list of texts", _is_texts),
    "metadata": ("an object", lambda value: isinstance(value, dict)),
    "prefix_length": ("an integer of at least 0", _is_int),
    "rng": ("a text", _is_text),
    "completion": ("a text", _is_text),
    "score": ("a finite number", _is_number),
    "scores": (
        "an object of numbers",
        lambda value: isinstance(value, dict) and all(part is None or _is_number(part) for part in value.values()),
    ),
    "group": ("an integer of at least 0", _is_int),
    "end_reason": ("a text", _is_text),
    "kl": ("a finite number", _is_number),
    "scorer_error": ("a text", _is_text),
    "turns": (
        "a list of objects of texts",
        lambda value: (
            isinstance(value, list) and all(isinstance(part, dict) and _is_texts([*part.values()]) for part in value)
        ),
    ),
}
"""Column -> what it must hold, unless it is null or missing. The arrays of numbers are checked as they are read."""


def _check_schema(where: str, row: Row) -> None:
    """Raise a ValueError if the row is of another schema, or a column is of another type."""
    schema = row.get("schema")
    if schema is not None and schema != SCHEMA:
        raise ValueError(
            f"{where} is of the schema {_shown(schema)}, this version of textgym reads {SCHEMA!r}: read it with the "
            "version or program that wrote it"
        )
    for name, (kind, check) in _CHECKS.items():
        if (value := row.get(name)) is not None and not check(value):
            raise ValueError(f"{where}: {name!r} must be {kind}, got {_shown(value)}")


def _vocabulary(rows: list[tuple[str, Row]]) -> str | None:
    """Return the one vocabulary of all rows that name one."""
    named = [(where, row["vocabulary"]) for where, row in rows if row.get("vocabulary") is not None]
    for where, vocabulary in named:
        if vocabulary != named[0][1]:
            raise ValueError(
                f"{where} is of another vocabulary ({vocabulary}) than {named[0][0]} ({named[0][1]}): their ids mean "
                "other tokens; keep the episodes of different tokenizers in different files"
            )
    return named[0][1] if named else None


def _known_texts(rows: list[tuple[str, Row]]) -> dict[int, str] | None:
    """Return the text of each id in rows with tokens; None if no row has them."""
    texts: dict[int, str] = {}
    for where, row in rows:
        if (tokens := row.get("tokens")) is None:
            continue
        if len(tokens) != len(row["completion_ids"]):
            raise ValueError(
                f"{where}: 'tokens' has {len(tokens)} entries, 'completion_ids' has {len(row['completion_ids'])}"
            )
        texts.update(zip(row["completion_ids"], tokens, strict=True))
    return texts or None


def _start(where: str, row: Row) -> EpisodeStart | None:
    """Return what an episode started from; None if the row does not tell."""
    if any(row.get(name) is None for name in ("prompt", "references", "metadata", "prefix_length")):
        return None
    rng_state = None
    if row.get("rng") is not None:
        try:
            rng_state = parsed_json(row["rng"])
        except ValueError as error:
            raise ValueError(f"{where}: 'rng' is not JSON: {error}") from error
        if not isinstance(rng_state, dict):
            raise ValueError(f"{where}: 'rng' must hold an object, got {_shown(rng_state)}")
    return EpisodeStart(
        Sample(row["prompt"], tuple(row["references"]), row["metadata"]), row["prefix_length"], rng_state
    )


def _action_columns(where: str, row: Row, size: int) -> npt.NDArray[np.int64]:
    """Return the (T,) positions of the actions in the completion."""
    value = row.get("is_action")
    if value is None:
        return np.arange(size)
    if not isinstance(value, list) or not all(isinstance(entry, bool) for entry in value) or True not in value:
        raise ValueError(f"{where}: 'is_action' must be a list of booleans with at least one true, got {_shown(value)}")
    if len(value) != size:
        raise ValueError(f"{where}: 'is_action' has {len(value)} entries, 'completion_ids' has {size}")
    return np.flatnonzero(value)


def _column(
    where: str, row: Row, name: str, dtype: Any, size: int | None = None, missing: float | None = None
) -> npt.NDArray[Any]:
    """Return a column of a row as an array; ``missing`` repeated ``size`` times if the row lacks it."""
    value = row.get(name)
    if value is None and missing is not None and size is not None:
        return np.full(size, missing, dtype=dtype)
    if value is None:
        raise ValueError(f"{where} has no column {name!r}; its columns are {', '.join(map(str, row))}")
    array = _array(value)
    kinds = "iu" if dtype is np.int64 else "iuf"
    is_ids = kinds == "iu"
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in kinds or (is_ids and not _are_ids(array)):
        kind = "numbers" if not is_ids else "token ids" if name.endswith("_ids") else "integers of at least 0"
        raise ValueError(f"{where}: {name!r} must be a non-empty list of {kind}, got {_shown(value)}")
    if size is not None and array.size != size:
        expected = "tokens in 'completion_ids'" if row.get("is_action") is None else "actions in 'is_action'"
        raise ValueError(f"{where}: {name!r} has {array.size} entries, but there are {size} {expected}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    is_known = missing is None or not math.isnan(missing)
    if is_known and not np.isfinite(array).all():
        raise ValueError(f"{where}: {name!r} must be finite float32 numbers, got {_shown(value)}")
    return array


def _array(value: Any) -> npt.NDArray[Any]:
    """Return an array of a list; an empty one if the list is not of numbers or not rectangular."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError, TypeError):
        return np.zeros(0)


def _are_ids(array: npt.NDArray[Any]) -> bool:
    return bool(array.min() >= 0 and array.max() < 2**63)


def _stats(rows: list[tuple[str, Row]], steps: list[int]) -> EpisodeStats | None:
    """Return the statistics of the rows that have them; None if no row does."""
    with_stats = [b for b, (_, row) in enumerate(rows) if row.get("entropies") is not None]
    if not with_stats:
        return None
    found = {
        b: (
            *(_column(*rows[b], name, np.float32 if name == "entropies" else np.int64, steps[b], 0) for name in
              ("entropies", "ranks", "mask_sizes")),
            *_alternatives(*rows[b], steps[b]),
        )
        for b in with_stats
    }  # fmt: skip
    width = max(columns[3].shape[1] for columns in found.values())
    stats = EpisodeStats.empty(len(rows), max(steps), width)
    for b, size in enumerate(steps):
        stats.entropies[b, :size] = math.nan
        stats.alternative_ids[b, :size], stats.alternative_log_probs[b, :size] = -1, -math.inf
        for tensor, column in zip(stats, found.get(b, ()), strict=False):
            values = torch.from_numpy(column)
            if values.ndim == 1:
                tensor[b, :size] = values
            else:
                tensor[b, :size, : values.shape[1]] = values
    return stats


def _alternatives(where: str, row: Row, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the (T, K) ids and log-probabilities of a row."""
    ids, log_probs = row.get("alternative_ids"), row.get("alternative_log_probs")
    if ids is None and log_probs is None:
        return np.zeros((size, 0), dtype=np.int64), np.zeros((size, 0), dtype=np.float32)
    arrays = []
    for name, value, missing in (
        ("alternative_ids", ids, -1),
        ("alternative_log_probs", log_probs, -math.inf),
    ):
        array = np.zeros(0)
        if isinstance(value, list) and all(isinstance(step, list) for step in value):
            array = _array([[missing if entry is None else entry for entry in step] for step in value])
        is_ids = missing == -1
        is_valid = array.ndim == 2 and len(array) == size and array.dtype.kind in ("iu" if is_ids else "iuf")
        if not is_valid or (array.size and not (_are_ids(array + 1) if is_ids else (array < 1e30).all())):
            kind = "token ids" if is_ids else "numbers"
            raise ValueError(
                f"{where}: {name!r} must hold a list of {kind} or null for each of {size} steps, all of one length, "
                f"got {_shown(value)}"
            )
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"{where}: 'alternative_ids' and 'alternative_log_probs' differ in shape")
    return arrays[0].astype(np.int64), arrays[1].astype(np.float32)


def _padded(columns: list[npt.NDArray[Any]]) -> torch.Tensor:
    """Stack arrays of different lengths, right-padded with 0."""
    stacked = np.zeros((len(columns), max(len(column) for column in columns)), dtype=columns[0].dtype)
    for b, column in enumerate(columns):
        stacked[b, : len(column)] = column
    return torch.from_numpy(stacked)


def _masks(path: Any, rows: list[tuple[str, Row]], steps: list[int]) -> npt.NDArray[np.uint8] | None:
    """Return (B, T, ceil(V / 8)) packed bits, or None if no row has masks."""
    packed = [row.get("action_masks") or b"" for _, row in rows]
    if not any(packed):
        return None
    widths = {len(bits) / size for bits, size in zip(packed, steps, strict=True)}
    width = int(max(widths))
    if widths != {width}:
        raise ValueError(f"{path}: the action masks differ in width, or only some episodes have them")
    masks = np.zeros((len(rows), max(steps), width), dtype=np.uint8)
    for b, (bits, size) in enumerate(zip(packed, steps, strict=True)):
        masks[b, :size] = np.frombuffer(bits, dtype=np.uint8).reshape(size, width)
    return masks


def _info(prompt_ids: npt.NDArray[np.int64], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored keys of the final info."""
    info = {name: row[name] for name in (*INFO_COLUMNS, "update") if row.get(name) is not None}
    prefix = prompt_ids[len(prompt_ids) - min(row.get("prefix_length") or 0, len(prompt_ids)) :].tolist()
    info["completion_ids"] = prefix + row["completion_ids"]
    info["length"] = len(info["completion_ids"])
    if "turns" in info:
        info["is_action"] = [True] * len(prefix) + (row.get("is_action") or [True] * len(row["completion_ids"]))
    info["score"] = math.nan if row.get("score") is None else float(row["score"])
    if isinstance(row.get("scores"), dict):
        info["scores"] = {name: math.nan if score is None else score for name, score in row["scores"].items()}
    return info


def _shown(value: Any) -> str:
    """Return the beginning of a value for an error message."""
    return reprlib.repr(value)[:60]
