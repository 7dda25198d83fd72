"""Prompt sources of a task: its own data by split and level, or the user's."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from textgym.errors import unknown_name
from textgym.prompts import IndexedPrompts, Sample, train_eval_split
from textgym.prompts.data import read_rows
from textgym.tasks.base import Row, Task, find_task

__all__ = ["SPLITS", "data_prompts", "task_prompts"]

SPLITS = ("train", "eval")

NumberedRow = tuple[str, Row]
"""Where a row stands, for messages, and the row."""


class _RowPrompts(IndexedPrompts):
    """Rows as samples; they are read at first use, and a row is converted when it is first drawn.

    A pickle or deep copy does not hold what ``read`` returned, but reads again.
    """

    def __init__(self, read: Callable[[], Sequence[NumberedRow]], to_sample: Callable[[Row], Sample]) -> None:
        self._read = read
        self._to_sample = to_sample
        self._rows: Sequence[NumberedRow] | None = None
        self._samples: dict[int, Sample] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": None, "_samples": {}}

    def rows(self) -> Sequence[NumberedRow]:
        """Return the rows."""
        if self._rows is None:
            self._rows = self._read()
        return self._rows

    def __len__(self) -> int:
        return len(self.rows())

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        if index not in self._samples:
            place, row = self.rows()[index]
            try:
                self._samples[index] = self._to_sample(row)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{place}: {error}") from error
        return self._samples[index]


def task_prompts(
    task: str | Task,
    split: str = "train",
    level: int | None = None,
    to_sample: Callable[[Row], Sample] | None = None,
) -> IndexedPrompts:
    """Return the samples of a task's own data, which are read at first use.

    Args:
        task: A task, or the name or id of one.
        split: ``"train"`` or ``"eval"``.
        level: Level from 1 on; None for all of them, one row of each in turn.
        to_sample: Function from a row to a sample, by default ``Task.sample``. The row has the column ``level``.

    Raises:
        ValueError: If there is no such task, split or level; at first use, if there are no rows or a file is malformed.

    >>> task_prompts("translation", "eval", level=2)[0].metadata["level"]
    2
    """
    task = find_task(task)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    levels = range(1, task.num_levels + 1)
    if level is not None:
        if not isinstance(level, int | np.integer) or level not in levels:
            raise ValueError(
                f"level is {level!r}; expected 1 to {task.num_levels} for task {task.name!r}, or None for all of them; "
                "level='auto' of an environment is a curriculum"
            )
        levels = range(int(level), int(level) + 1)
    return _RowPrompts(partial(_task_rows, task, split, levels), to_sample or task.sample)


def _task_rows(task: Task, split: str, levels: Sequence[int]) -> Sequence[NumberedRow]:
    """Return the rows of the levels, one of each in turn."""
    if callable(task.data):
        by_level = [_rows_of_level(task.data(split, level), level) for level in levels]
    else:
        rows = _rows_of_split(task, split)
        by_level = [[row for row in rows if row[1]["level"] == level] for level in levels]
    for level, found in zip(levels, by_level, strict=True):
        if not found:
            raise ValueError(f"task {task.name!r} has no row of level {level} in the split {split!r}")
    if len(by_level) == 1:
        return by_level[0]
    return [row for group in zip_longest(*by_level) for row in group if row is not None]


def _rows_of_level(data: Any, level: int) -> Sequence[NumberedRow]:
    if not isinstance(data, str | Path):
        return _with_level(_numbered_rows(data), level)
    status = Path(data).stat()
    return _rows_of_file(Path(data), level, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=32)
def _rows_of_file(path: Path, level: int, version: tuple[int, int]) -> Sequence[NumberedRow]:
    """Return the rows of a file, which is read once per process and version."""
    return _with_level(_numbered_rows(path), level)


def _with_level(rows: Iterable[NumberedRow], level: int) -> Sequence[NumberedRow]:
    return [(place, {**row, "level": level}) for place, row in rows]


def _rows_of_split(task: Task, split: str) -> Sequence[NumberedRow]:
    """Return the rows of all levels in a split that is decided by their plain prompts."""
    if isinstance(task.data, Iterator):
        raise TypeError(f"data of task {task.name!r} is an iterator, which can be read only once; pass list(...) of it")
    rows = [(place, {**row, "level": _level(task, place, row)}) for place, row in _numbered_rows(task.data)]
    prompts = _RowPrompts(partial(tuple, rows), task.sample)
    try:
        chosen = train_eval_split(prompts)[split == "eval"]
    except ValueError as error:
        raise ValueError(f"data of task {task.name!r}: {error}") from error
    texts = {chosen[i].prompt for i in range(len(chosen))}
    return [row for i, row in enumerate(rows) if prompts[i].prompt in texts]


def _level(task: Task, place: str, row: Row) -> int:
    level = row.get("level", 1)
    if str(level) not in map(str, range(1, task.num_levels + 1)):
        raise ValueError(f"{place}: level is {level!r}; expected 1 to {task.num_levels}, the task's num_levels")
    return int(level)


def data_prompts(
    data: Any, columns: Mapping[str, str], to_sample: Callable[[Row], Sample], split: str | None
) -> IndexedPrompts:
    """Return the samples of the user's own rows, all of which are checked.

    Args:
        data: The path of a JSONL or CSV file, compressed (``.jsonl.gz``) or not, a ``datasets.Dataset``, or an iterable
            of mappings.
        columns: ``{task's column: data's column}`` where the names differ; ``"translation.en"`` is the column ``en``
            nested in the column ``translation``.
        to_sample: Function from a row to a sample.
        split: None for all rows, ``"train"`` for nine tenths of them, ``"eval"`` for the rest.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``data`` is of another type.
        ValueError: If there are no rows, one lacks a column, or a file is malformed; the message names the row.
    """
    rows = _numbered_rows(data)
    if not rows:
        raise ValueError(f"data={data!r:.60} has no rows; expected at least one")
    prompts = _RowPrompts(partial(list, rows), partial(_sample_of_renamed, columns, to_sample))
    for i in range(len(rows)):
        prompts[i]
    return prompts if split is None else train_eval_split(prompts)[split == "eval"]


def _numbered_rows(data: Any) -> Sequence[NumberedRow]:
    if isinstance(data, str | Path):
        return [(f"{data}, line {line}", row) for line, row in read_rows(Path(data), (".jsonl", ".csv"))]
    if isinstance(getattr(data, "column_names", None), dict):
        raise ValueError(f"data is a dictionary of splits; pass one of them: {', '.join(data.column_names)}")
    if not isinstance(data, Iterable) or isinstance(data, Mapping):
        raise TypeError(
            f"data is {data!r:.60} of type {type(data).__name__}; expected the path of a JSONL or CSV file, "
            "a datasets.Dataset or a list of mappings"
        )
    rows = [(f"row {i} of the data", row) for i, row in enumerate(data)]
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"{place}: expected a mapping of columns, got {type(row).__name__} {row!r:.60}")
    return rows


def _sample_of_renamed(columns: Mapping[str, str], to_sample: Callable[[Row], Sample], row: Row) -> Sample:
    return to_sample(_renamed(row, columns))


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    return {**row, **{ours: _column(row, theirs) for ours, theirs in columns.items()}}


def _column(row: Any, name: str) -> Any:
    if not isinstance(row, Mapping):
        raise ValueError(f"no column {name!r} in {row!r:.60}, which is not a mapping")
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    if not dot or outer not in row:
        raise ValueError(f"no column {name!r}; there are: {', '.join(map(str, row)) or 'none'}")
    return _column(row[outer], inner)
