"""Episodes on disk, one a row: JSON lines that a person can read, or Parquet that any data tool can."""

import base64
import io
import json
import math
import weakref
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from typing_extensions import Self

from textgym_agents.callbacks import Callback
from textgym_agents.episodes import Episodes
from textgym_agents.reader import INFO_COLUMNS, Row, import_pyarrow, read_episodes

__all__ = ["EpisodeRecorder", "append_whole", "read_episodes"]


class EpisodeRecorder(Callback):
    """Writes episodes, one a row, into a file that ``read_episodes`` and other programs read.

    | column | type | meaning |
    | --- | --- | --- |
    | ``prompt_ids`` | list of int | tokens of the prompt |
    | ``completion_ids`` | list of int, C | tokens after the prompt |
    | ``is_action`` | list of bool, C | which of them were chosen, T; the others a user wrote; null where all were |
    | ``rewards`` | list of float, T | the reward of each step |
    | ``log_probs`` | list of float, T | log-probability under the policy that chose, in nats; null where unknown |
    | ``values`` | list of float, T | V(s) of that policy; 0 where it has none |
    | ``truncated`` | bool | cut off by the budget rather than ended |
    | ``action_masks`` | bytes, base64 in JSON | (T, ceil(V / 8)) bits of the legal actions; null where all were legal |
    | ``prompt``, ``completion``, ``end_reason`` | text | as in ``info`` |
    | ``score``, ``scores`` | float, object | as in ``info``, in total and by component; null for NaN |
    | ``group``, ``kl``, ``scorer_error`` | int, float, text | as in ``info``; null where it has none |
    | ``turns`` | list of objects | as in ``info``: ``role`` and ``content`` of each; null where there is no user |

    As a callback of ``learn`` it writes the episodes of each update; ``write`` takes episodes directly. JSON lines are
    recommended: what was written is on disk at once, in whole lines. A Parquet file can be read when it is complete:
    after the training, however that ended, or else after ``close``, a ``with`` block or the end of the program, but not
    after the program was killed. Lone surrogates, which UTF-8 cannot encode, are written as escapes.

    Args:
        path: A file that ends in ``.jsonl``, or in ``.parquet``, which needs the extra ``parquet``.
        append: Continue a file of JSON lines if it exists. Parquet cannot be continued.

    Raises:
        ValueError: If the suffix is another, Parquet is to be continued, or the last line of the file is cut off.
        FileExistsError: If the file exists and is not to be continued.
        ImportError: If pyarrow is needed and not installed.

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
            raise FileExistsError(f"{self.path} exists and is not written over; choose another file, or append=True")
        self._file: _Writer
        if self.path.suffix == ".jsonl":
            self._file = _JsonLines(self.path, append)
        elif self.path.suffix == ".parquet":
            self._file = _Parquet(self.path, append)
        else:
            raise ValueError(f"episodes are written to .jsonl or .parquet, got {self.path.name!r}")

    def write(self, episodes: Episodes) -> None:
        """Write episodes.

        Raises:
            ValueError: If it is a Parquet file that is complete.
        """
        self._file.write([_row(episodes, b) for b in range(len(episodes))])

    def close(self) -> None:
        """Complete a Parquet file; a second call does nothing. JSON lines are complete after each ``write``."""
        self._file.close()

    def on_training_start(self, agent: Any) -> None:
        """Check that the file can still be written.

        Raises:
            ValueError: If it is a Parquet file that is complete.
        """
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


def append_whole(file: io.FileIO, data: bytes) -> None:
    """Append all of the data to an unbuffered file; if that fails, none of it."""
    start, rest = file.seek(0, io.SEEK_END), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:
        file.truncate(start)
        raise


class _Writer(Protocol):
    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    """Whole lines, or none."""

    def __init__(self, path: Path, append: bool) -> None:
        if append and path.exists() and path.stat().st_size:
            with path.open("rb") as before:
                before.seek(-1, 2)
                if before.read() != b"\n":
                    raise ValueError(f"{path} is cut off in its last line: remove that line before appending")
        path.touch(exist_ok=append)
        self._path = path

    def write(self, rows: list[Row]) -> None:
        lines = (json.dumps(_jsonable(row), ensure_ascii=False) + "\n" for row in rows)
        with self._path.open("ab", buffering=0) as file:
            append_whole(file, "".join(lines).encode())

    def close(self) -> None:
        pass


class _Parquet:
    """One row group per write; the list of row groups, without which it cannot be read, is written by ``close``."""

    def __init__(self, path: Path, append: bool) -> None:
        self._arrow, parquet = import_pyarrow()
        if append:
            raise ValueError("a Parquet file cannot be continued: write .jsonl, or another file")
        self._schema = _schema(self._arrow)
        self._file = path.open("xb")
        self._writer = parquet.ParquetWriter(self._file, self._schema)
        weakref.finalize(self, _complete, self._writer, self._file)  # at the latest when the program ends

    def write(self, rows: list[Row]) -> None:
        if self._file.closed:
            raise ValueError("this Parquet file is complete and cannot be continued: write .jsonl, or another file")
        if not rows:
            return
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        _complete(self._writer, self._file)


def _complete(writer: Any, file: io.BufferedWriter) -> None:
    writer.close()
    file.close()


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
    """Return one episode as plain Python values; floats are float32 numbers, so nothing is rounded."""
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
    """Return numpy's numbers as Python's, NaN, which JSON does not know, as None, and text that UTF-8 can encode."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _jsonable(row: Row) -> Row:
    masks = row["action_masks"]
    return row | {"action_masks": None if masks is None else base64.b64encode(masks).decode()}
