"""Episodes on disk, one per row, as JSON lines or Parquet."""

import base64
import io
import json
import math
import weakref
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from textgym.errors import install_hint
from textgym_agents.callbacks import Callback
from textgym_agents.episodes import Episodes

__all__ = ["EpisodeRecorder", "append_whole", "read_episodes"]

INFO_COLUMNS = ("prompt", "completion", "score", "scores", "group", "end_reason", "kl", "scorer_error", "turns")
"""Info keys stored as columns. ``completion_ids``, ``length`` and ``is_action`` are derived on load, others lost."""

Row = dict[str, Any]
"""One episode: the columns of ``EpisodeRecorder``, masks as bytes."""


class EpisodeRecorder(Callback):
    """Writes episodes to a file, one per row, for ``read_episodes`` and other programs.

    | column | type | meaning |
    | --- | --- | --- |
    | ``prompt_ids`` | list of int | tokens of the prompt |
    | ``completion_ids`` | list of int, C | tokens after the prompt |
    | ``is_action`` | list of bool, C | True for the T actions, False for a user's tokens; null if all are actions |
    | ``rewards`` | list of float, T | reward of each step |
    | ``log_probs`` | list of float, T | log pi(a|s) of the acting policy, in nats; null if unknown |
    | ``values`` | list of float, T | V(s) of the acting policy; 0 if it has none |
    | ``truncated`` | bool | whether the episode was truncated |
    | ``action_masks`` | bytes, base64 in JSON | (T, ceil(V / 8)) packed bits; null if all actions were valid |
    | ``prompt``, ``completion``, ``end_reason`` | text | as in ``info`` |
    | ``score``, ``scores`` | float, object | as in ``info``, total and by component; null for NaN |
    | ``group``, ``kl``, ``scorer_error`` | int, float, text | as in ``info``; null if absent |
    | ``turns`` | list of objects | as in ``info``: ``role`` and ``content`` of each; null if there is no user |

    As a callback of ``learn`` it writes the episodes of each update; ``write`` takes episodes directly. Prefer JSON
    lines: each write leaves complete lines on disk. A Parquet file is readable only after the training (also if it
    raised), ``close``, a ``with`` block or the exit of the program; it is lost if the program is killed. Lone
    surrogates, which UTF-8 cannot encode, are escaped.

    Args:
        path: File name ending in ``.jsonl`` or, with the extra ``parquet``, in ``.parquet``.
        append: Append to the file if it exists; JSON lines only.

    Raises:
        ValueError: If the suffix is unknown, ``append`` is True for Parquet, or the last line of the file is cut off.
        FileExistsError: If the file exists and ``append`` is False.
        ImportError: If pyarrow is needed but not installed.

    >>> import tempfile, gymnasium, textgym
    >>> from textgym_agents import LMPolicy, collect
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=2, max_new_tokens=4)
    >>> path = Path(tempfile.mkdtemp(), "episodes.jsonl")
    >>> EpisodeRecorder(path).write(collect(env, LMPolicy("tiny"), 2, seed=0))
    >>> len(read_episodes(path))
    2
    """

    def __init__(self, path: str | PathLike[str], *, append: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not append:
            raise FileExistsError(f"{self.path} already exists; choose another file or set append=True")
        self._file: _JsonLines | _Parquet
        if self.path.suffix == ".jsonl":
            self._file = _JsonLines(self.path, append)
        elif self.path.suffix == ".parquet":
            self._file = _Parquet(self.path, append)
        else:
            raise ValueError(f"episodes are written to .jsonl or .parquet, got {self.path.name!r}")

    def write(self, episodes: Episodes) -> None:
        """Write episodes; raises a ValueError if the file is Parquet and closed."""
        self._file.write([_row(episodes, b) for b in range(len(episodes))])

    def close(self) -> None:
        """Complete a Parquet file; has no effect on JSON lines or when called again."""
        self._file.close()

    def on_training_start(self, agent: Any) -> None:
        """Raise a ValueError if the file is Parquet and closed."""
        self._file.write([])

    def on_rollout_end(self, agent: Any, episodes: Episodes) -> None:
        """Write the episodes of an update."""
        self.write(episodes)

    def on_training_end(self, agent: Any) -> None:
        """Complete a Parquet file."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_episodes(path: str | PathLike[str]) -> Episodes:
    """Read episodes that ``EpisodeRecorder`` wrote, with exact arrays, or another program's file with the same columns.

    Only ``prompt_ids``, ``completion_ids`` and ``rewards`` are required. Missing ``log_probs`` become NaN, missing
    ``values`` 0; without ``is_action`` all tokens of the completion are actions.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is unknown, the file is empty, or a row is damaged, lacks a column or has numbers
            that are not finite. The message names the row.
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
    return _to_episodes(path, rows)


def append_whole(file: io.FileIO, data: bytes) -> None:
    """Append all data to an unbuffered file, or none if writing fails."""
    start, rest = file.seek(0, io.SEEK_END), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:
        file.truncate(start)
        raise


class _JsonLines:
    """Writer of JSON lines."""

    def __init__(self, path: Path, append: bool) -> None:
        if append and path.exists() and path.stat().st_size:
            with path.open("rb") as before:
                before.seek(-1, 2)
                if before.read() != b"\n":
                    raise ValueError(f"the last line of {path} is cut off; remove it before appending")
        path.touch(exist_ok=append)
        self._path = path

    def write(self, rows: list[Row]) -> None:
        lines = (json.dumps(_with_base64_masks(row), ensure_ascii=False) + "\n" for row in rows)
        with self._path.open("ab", buffering=0) as file:
            append_whole(file, "".join(lines).encode())

    def close(self) -> None:
        """Do nothing: the file is complete after each write."""


def _with_base64_masks(row: Row) -> Row:
    masks = row["action_masks"]
    return row | {"action_masks": None if masks is None else base64.b64encode(masks).decode()}


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the location of each row, for error messages, and the row."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"expected a JSON object, got {type(row).__name__}")
                if row.get("action_masks"):
                    row["action_masks"] = base64.b64decode(row["action_masks"], validate=True)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where} is damaged or cut off: {error}") from error
            yield where, row


class _Parquet:
    """Writer of Parquet, a row group per write; ``close`` writes the footer, without which the file is unreadable."""

    def __init__(self, path: Path, append: bool) -> None:
        self._arrow, parquet = _import_pyarrow()
        if append:
            raise ValueError("append=True needs a .jsonl file: Parquet files cannot be appended to")
        self._schema = _schema(self._arrow)
        self._file = path.open("xb")
        self._writer = parquet.ParquetWriter(self._file, self._schema)
        weakref.finalize(self, _complete, self._writer, self._file)  # at the latest when the program ends

    def write(self, rows: list[Row]) -> None:
        if self._file.closed:
            raise ValueError("this Parquet file is closed and cannot be appended to; use .jsonl or another file")
        if not rows:
            return
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        _complete(self._writer, self._file)


def _complete(writer: Any, file: io.BufferedWriter) -> None:
    writer.close()
    file.close()


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    arrow, parquet = _import_pyarrow()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a complete Parquet file (was the recorder closed?): {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        if isinstance(row.get("scores"), list):  # a map is returned as pairs
            row["scores"] = dict(row["scores"])
        yield f"{path}, row {number}", row


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"Parquet files need pyarrow, .jsonl files do not: {install_hint('parquet')}") from error
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any) -> Any:
    numbers, text = arrow.list_(arrow.float32()), arrow.string()
    return arrow.schema(
        {
            "prompt_ids": arrow.list_(arrow.int64()),
            "completion_ids": arrow.list_(arrow.int64()),
            "is_action": arrow.list_(arrow.bool_()),
            "rewards": numbers,
            "log_probs": numbers,
            "values": numbers,
            "truncated": arrow.bool_(),
            "action_masks": arrow.binary(),
            "prompt": text,
            "completion": text,
            "score": arrow.float64(),
            "scores": arrow.map_(text, arrow.float64()),
            "group": arrow.int64(),
            "end_reason": text,
            "kl": arrow.float64(),
            "scorer_error": text,
            "turns": arrow.list_(arrow.struct({"role": text, "content": text})),
        }
    )


def _row(episodes: Episodes, b: int) -> Row:
    """Return one episode as plain Python values; float32 numbers are exact as Python floats."""
    start, end, steps = int(episodes.prompt_lengths[b]), int(episodes.text_lengths[b]), int(episodes.num_steps[b])
    is_action = torch.zeros(end - start, dtype=torch.bool)
    is_action[episodes.positions[b, :steps] - start] = True
    masks, log_probs = episodes.action_masks, episodes.log_probs[b, :steps]
    return {
        "prompt_ids": episodes.ids[b, :start].tolist(),
        "completion_ids": episodes.ids[b, start:end].tolist(),
        "is_action": None if is_action.all() else is_action.tolist(),
        "rewards": episodes.rewards[b, :steps].tolist(),
        "log_probs": None if log_probs.isnan().any() else log_probs.tolist(),
        "values": episodes.values[b, :steps].tolist(),
        "truncated": bool(episodes.truncated[b]),
        "action_masks": None if masks is None else masks[b, :steps].tobytes(),
        **{name: _plain(episodes.infos[b].get(name)) for name in INFO_COLUMNS},
    }


def _plain(value: Any) -> Any:
    """Convert numpy scalars to Python ones, NaN to None, and escape lone surrogates."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _to_episodes(path: Path, rows: list[tuple[str, Row]]) -> Episodes:
    """Convert located rows to arrays."""
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
        infos=[_info(row) for _, row in rows],
        positions=_padded([len(ids) + columns for ids, columns in zip(prompts, actions, strict=True)]),
        text_lengths=torch.tensor([len(ids) for ids in texts]),
    )


def _action_columns(where: str, row: Row, size: int) -> npt.NDArray[np.int64]:
    """Return the (T,) positions of the actions in the completion."""
    value = row.get("is_action")
    if value is None:
        return np.arange(size)
    if not isinstance(value, list) or not all(isinstance(entry, bool) for entry in value) or True not in value:
        raise ValueError(f"{where}: 'is_action' must be a list of booleans with at least one true, got {value!r:.60}")
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
        raise ValueError(f"{where} has no column {name!r}; its columns are {sorted(row)}")
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.zeros(0)
    kinds = "iu" if dtype is np.int64 else "iuf"
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in kinds or (kinds == "iu" and array.min() < 0):
        kind = "token ids" if kinds == "iu" else "numbers"
        raise ValueError(f"{where}: {name!r} must be a non-empty list of {kind}, got {value!r:.60}")
    if size is not None and array.size != size:
        expected = "tokens in 'completion_ids'" if row.get("is_action") is None else "actions in 'is_action'"
        raise ValueError(f"{where}: {name!r} has {array.size} entries, but there are {size} {expected}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    is_known = missing is None or not math.isnan(missing)
    if is_known and not np.isfinite(array).all():
        raise ValueError(f"{where}: {name!r} must be finite float32 numbers, got {value!r:.60}")
    return array


def _padded(columns: list[npt.NDArray[Any]]) -> torch.Tensor:
    """Stack arrays of different lengths, right-padded with 0."""
    stacked = np.zeros((len(columns), max(len(column) for column in columns)), dtype=columns[0].dtype)
    for b, column in enumerate(columns):
        stacked[b, : len(column)] = column
    return torch.from_numpy(stacked)


def _masks(path: Path, rows: list[tuple[str, Row]], steps: list[int]) -> npt.NDArray[np.uint8] | None:
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


def _info(row: Row) -> dict[str, Any]:
    """Return the stored keys of the final info."""
    info = {name: row[name] for name in INFO_COLUMNS if row.get(name) is not None}
    info["completion_ids"], info["length"] = row["completion_ids"], len(row["completion_ids"])
    if "turns" in info:
        info["is_action"] = row.get("is_action") or [True] * info["length"]
    info["score"] = math.nan if row.get("score") is None else float(row["score"])
    if isinstance(row.get("scores"), dict):
        info["scores"] = {name: math.nan if score is None else score for name, score in row["scores"].items()}
    return info
