"""Prompts from a text, JSONL or CSV file."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textgym.prompts.base import Sample, as_sample
from textgym.prompts.lists import IndexedPrompts

__all__ = ["FilePrompts"]


class FilePrompts(IndexedPrompts):
    r"""Prompts from a UTF-8 file, drawn with equal probability; the ending of its name gives the format.

    ``.txt`` holds one prompt a line, ``.jsonl`` one object a line, ``.csv`` a header and rows. Empty lines are left
    out. The columns that are neither prompt nor references become metadata.

    Args:
        path: The file, which is read at once.
        prompt_column: The column of the prompts.
        references_column: The column of the references: one text, or in JSONL also a list of texts.
            ``"references"`` by default, where there is such a column.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is not known, the file holds no prompt, a line is broken or lacks a column; the
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
        readers = {".txt": text_rows, ".jsonl": jsonl_rows, ".csv": csv_rows}
        reader = readers.get(self.path.suffix.lower())
        if reader is None:
            raise ValueError(f"{path}: prompts are read from {', '.join(readers)} files, not {self.path.suffix!r}")
        try:
            rows = reader(read_utf8(self.path))
            self._samples = [sample_at(line, row, prompt_column, references_column) for line, row in rows]
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error
        if not self._samples:
            raise ValueError(f"{path}: the file holds no prompt")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def read_utf8(path: Path) -> str:
    """Return the text of a file; a byte order mark at its start is left out."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind a byte order mark, a difference of three bytes that hold no line end.
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: not UTF-8: byte {error.object[error.start]:#04x}") from None


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) for the lines that are not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def text_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, prompt)."""
    yield from lines_of(text)


def jsonl_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, object)."""
    for number, line in lines_of(text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: broken JSON, {error.msg} at column {error.colno}: {line:.60}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected a JSON object of columns, got {type(row).__name__}: {line:.60}")
        yield number, row


def csv_rows(text: str) -> Iterator[tuple[int, Any]]:
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
                    raise ValueError(f"line {reader.line_num}: the header names a column twice: {', '.join(header)}")
            elif len(fields) != len(header):
                raise ValueError(f"line {reader.line_num}: {len(fields)} fields, the header has {len(header)}")
            else:
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: broken CSV, {error}") from None


def sample_at(line: int, row: Any, prompt_column: str, references_column: str | None) -> Sample:
    """Return the sample of a row; an error names the line."""
    try:
        return as_sample(row, prompt_column, references_column)
    except (TypeError, ValueError) as error:
        raise ValueError(f"line {line}: {error}") from None
