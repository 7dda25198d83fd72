"""Prompt sources of a task: its built-in data by level and split, or the user's own data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from textgym.prompts import IndexedPrompts, ListPrompts, PromptSource, Sample, train_eval_split
from textgym.prompts.data import read_rows
from textgym.prompts.sources import prompt_hash
from textgym.tasks.base import Row, Task, fill_template

__all__ = ["SEEDS", "SIZES", "Mixture", "TaskPrompts", "data_prompts", "split_of"]

SEEDS = {"train": 11, "eval": 12}
"""Seeds of ``Task.rows`` by split. The embedded LM was trained on seed 1."""
SIZES = {"train": 2**20, "eval": 1000}
"""Samples of the splits, per level."""
NUM_TRIES = 32
"""Attempts to find a row of the split; the probability that all fail is 2^-32."""


class TaskPrompts(IndexedPrompts):
    """The samples of one level and split of a task's built-in data, generated on demand.

    The splits have different seeds and no prompt in common: since short prompts recur, a hash of the plain prompt
    decides the split of a row. Only a task with a handful of prompts may have some of them in both splits.

    Levels count from 1; ``to_sample`` is a function from a row to a sample.
    """

    def __init__(self, task: Task, to_sample: Callable[[Row], Sample], level: int, split: str) -> None:
        self._task = task
        self._to_sample = to_sample
        self._level = level
        self._split = split

    def __len__(self) -> int:
        return SIZES[self._split]

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        row = row_of_split(self._task.rows, self._task.prompt, self._level, self._split, index)
        return self._to_sample({**row, "level": self._level})


@lru_cache(maxsize=4096)  # each environment checks the length of its first 1024 samples
def row_of_split(rows: Callable[[int, int, int], Row], prompt: str, level: int, split: str, index: int) -> Row:
    """Return the first of the rows assigned to an index whose prompt belongs to the split."""
    row: Row = {}
    for attempt in range(NUM_TRIES):
        row = rows(SEEDS[split], index + attempt * SIZES["train"], level)
        if split_of(fill_template(prompt, row)) == split:
            break
    return row


def split_of(prompt: str) -> str:
    """Return the split of a prompt of the built-in data; platform-independent."""
    return "eval" if prompt_hash(prompt, seed=0)[0] % 2 else "train"


class Mixture(IndexedPrompts):
    """Interleaves several sources of equal length."""

    def __init__(self, sources: Sequence[IndexedPrompts]) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources) * len(self._sources[0])

    def __getitem__(self, index: int) -> Sample:
        place, source = divmod(range(len(self))[index], len(self._sources))
        return self._sources[source][place]


def data_prompts(
    data: Any, columns: Mapping[str, str], to_sample: Callable[[Row], Sample], split: str | None
) -> PromptSource:
    """Return the samples of the user's own rows.

    Args:
        data: The path of a JSONL or CSV file, a ``datasets.Dataset``, or an iterable of mappings.
        columns: ``{task's column: data's column}`` where the names differ; ``"translation.en"`` is the column ``en``
            nested in the column ``translation``.
        to_sample: Function from a row to a sample.
        split: None for all rows, ``"train"`` for nine tenths of them, ``"eval"`` for the rest.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``data`` is of another type.
        ValueError: If there are no rows, one lacks a column, or a file is malformed; the message names the row.
    """
    samples = []
    for place, row in _numbered_rows(data):
        try:
            samples.append(to_sample(_renamed(row, columns)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{place}: {error}") from error
    if not samples:
        raise ValueError(f"data={data!r:.60} has no rows; expected at least one")
    prompts = ListPrompts(samples)
    return prompts if split is None else train_eval_split(prompts)[split == "eval"]


def _numbered_rows(data: Any) -> Iterable[tuple[str, Row]]:
    if isinstance(data, str | Path):
        return [(f"{data}, line {line}", row) for line, row in read_rows(Path(data), (".jsonl", ".csv"))]
    if isinstance(getattr(data, "column_names", None), dict):
        raise ValueError(f"data is a dictionary of splits; pass one of them: {', '.join(data.column_names)}")
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        return ((f"row {i} of the data", row) for i, row in enumerate(data))
    raise TypeError(
        f"data is {data!r:.60} of type {type(data).__name__}; expected the path of a JSONL or CSV file, "
        "a datasets.Dataset or a list of mappings"
    )


def _renamed(row: Any, columns: Mapping[str, str]) -> Row:
    if not isinstance(row, Mapping):
        raise TypeError(f"expected a mapping of columns, got {type(row).__name__} {row!r:.60}")
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
