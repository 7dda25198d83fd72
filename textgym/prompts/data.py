"""Prompts from the user's data: text, JSONL and CSV files, ``datasets.Dataset`` and reasoning-gym.

Neither ``datasets`` nor ``reasoning_gym`` needs to be installed.
"""

import csv
import gzip
import io
import json
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from textgym.prompts.base import IndexedPrompts, Sample, as_sample

__all__ = ["DatasetPrompts", "FilePrompts", "ReasoningGymPrompts", "read_rows", "reasoning_gym_sample"]


class FilePrompts(IndexedPrompts):
    r"""Prompts from a UTF-8 file, drawn uniformly; the suffix of its name gives the format.

    ``.txt`` has one prompt per line, ``.jsonl`` one object per line, ``.csv`` a header and rows; a file of
    ``.jsonl.gz`` and the like is compressed by gzip. Empty lines are skipped. Columns other than the prompt and the
    references become metadata.

    Args:
        path: The file, which is read at once.
        prompt_column: Column of the prompts.
        references_column: Column of the references: one text, or in JSONL also a list of texts; by default
            ``"references"``, if there is such a column.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is unknown, the file has no prompt, or a line is malformed or lacks a column; the
            message names file and line.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "sums.csv")
    ...     _ = path.write_text("prompt,references,level\n2 + 3 =,5,easy\n")
    ...     FilePrompts(path)[0]
    Sample(prompt='2 + 3 =', references=('5',), metadata={'level': 'easy'})
    """

    def __init__(self, path: str | Path, prompt_column: str = "prompt", references_column: str | None = None) -> None:
        self.path = Path(path)
        self._samples = []
        for line, row in read_rows(self.path):
            try:
                self._samples.append(as_sample(row, prompt_column, references_column))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {line}: {error}") from None
        if not self._samples:
            raise ValueError(f"{path}: the file has no prompt")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class _LazyPrompts(IndexedPrompts):
    """The rows of a data set; a row is converted when it is first drawn."""

    def __init__(self, dataset: Any) -> None:
        if len(dataset) == 0:
            raise ValueError("the data set is empty")
        self._dataset = dataset
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self._dataset))[index]
        if index not in self._samples:
            self._samples[index] = self._sample(self._dataset[index])
        return self._samples[index]

    @abstractmethod
    def _sample(self, row: Mapping[str, Any]) -> Sample: ...


class DatasetPrompts(_LazyPrompts):
    """The rows of a ``datasets.Dataset``, drawn uniformly; a row is read when it is first drawn.

    Args:
        dataset: An object with ``column_names``, ``__len__`` and ``__getitem__(int) -> dict``. Columns other than the
            prompt and the references become metadata.
        prompt_column: Column of the prompts.
        references_column: Column of the references, each one text or a list of texts; by default ``"references"``, if
            there is such a column.
    """

    def __init__(self, dataset: Any, prompt_column: str = "prompt", references_column: str | None = None) -> None:
        columns = dataset.column_names
        if isinstance(columns, dict):
            raise ValueError(f"the data set is a dictionary of splits; pass one of them: {', '.join(columns)}")
        for column in (prompt_column, references_column):
            if column is not None and column not in columns:
                raise ValueError(f"the data set has no column {column!r}; there are: {', '.join(columns) or 'none'}")
        super().__init__(dataset)
        self._columns = (prompt_column, references_column)

    def _sample(self, row: Mapping[str, Any]) -> Sample:
        return as_sample(row, *self._columns)


class ReasoningGymPrompts(_LazyPrompts):
    """The tasks of a reasoning-gym data set, drawn uniformly; a task is generated when it is first drawn.

    The question is the prompt, the answer the reference, and the whole entry, answer included, the metadata, which
    ``textgym.scorers.ReasoningGym`` needs. Most questions exceed 32 tokens: set ``max_prompt_tokens``.

    Args:
        dataset: What ``reasoning_gym.create_dataset(name, size=..., seed=...)`` returns. Without a seed, the tasks
            differ between processes.

    Source: https://github.com/open-thought/reasoning-gym
    """

    def _sample(self, row: Mapping[str, Any]) -> Sample:
        return reasoning_gym_sample(row)


def reasoning_gym_sample(entry: Mapping[str, Any]) -> Sample:
    """Return an entry of a reasoning-gym data set as a sample.

    >>> reasoning_gym_sample({"question": "2 + 3 =", "answer": "5", "metadata": {}})
    Sample(prompt='2 + 3 =', references=('5',), metadata={'question': '2 + 3 =', 'answer': '5', 'metadata': {}})
    """
    answer = entry["answer"]
    return Sample(entry["question"], () if answer is None else (str(answer),), dict(entry))


def read_rows(path: Path, formats: Sequence[str] = (".txt", ".jsonl", ".csv")) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row) of a file: a text for ``.txt``, a mapping for ``.jsonl`` and ``.csv``.

    Each may be compressed: ``.jsonl.gz``. A ``ValueError`` for a malformed file, or one of another format, names file
    and line.
    """
    readers = {".txt": _lines, ".jsonl": _jsonl_rows, ".csv": _csv_rows}
    is_compressed = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if is_compressed else path).suffix.lower()
    if suffix not in formats:
        raise ValueError(f"{path}: expected a {', '.join(formats[:-1])} or {formats[-1]} file, got {suffix!r}")
    try:
        data = path.read_bytes()
        yield from readers[suffix](_decoded(_decompressed(data) if is_compressed else data))
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from error


def _decompressed(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"line 1: not a complete gzip file: {error}") from None


def _decoded(data: bytes) -> str:
    """Return a text without its byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.start excludes a byte order mark, whose three bytes contain no line end.
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: not UTF-8: byte {error.object[error.start]:#04x}") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _jsonl_rows(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"line {number}: malformed JSON, {error.msg} at column {error.colno}: {line:.60}"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected a JSON object of columns, got {type(row).__name__}: {line:.60}")
        yield number, row


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Yield (number of the row's last line, {column: field})."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = fields
                if len(set(header)) < len(header):
                    raise ValueError(f"line {reader.line_num}: the header has a duplicate column: {', '.join(header)}")
            elif len(fields) != len(header):
                raise ValueError(f"line {reader.line_num}: {len(fields)} fields, the header has {len(header)}")
            else:
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: malformed CSV, {error}") from None
