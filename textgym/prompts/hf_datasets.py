"""Prompts from a ``datasets.Dataset`` of Hugging Face, which need not be installed."""

from typing import Any

from textgym.prompts.base import Sample, as_sample
from textgym.prompts.lists import IndexedPrompts

__all__ = ["DatasetPrompts"]


class DatasetPrompts(IndexedPrompts):
    """The rows of a data set, drawn with equal probability; a row is read when it is first drawn.

    Args:
        dataset: An object with ``column_names``, ``__len__`` and ``__getitem__(int) -> dict``, such as a
            ``datasets.Dataset``. Columns that are neither prompt nor references become metadata.
        prompt_column: The column of the prompts.
        references_column: The column of the references, each one text or a list of texts. ``"references"`` by
            default, where there is such a column.

    Raises:
        ValueError: If the data set is empty, is a dictionary of splits, or lacks a column.
        TypeError: When a row is drawn whose prompt is not text.
    """

    def __init__(self, dataset: Any, prompt_column: str = "prompt", references_column: str | None = None) -> None:
        columns = dataset.column_names
        if isinstance(columns, dict):
            raise ValueError(f"the data set is a dictionary of splits; take one of them: {', '.join(columns)}")
        for column in (prompt_column, references_column):
            if column is not None and column not in columns:
                raise ValueError(f"the data set has no column {column!r}; there are: {', '.join(columns) or 'none'}")
        if len(dataset) == 0:
            raise ValueError("the data set is empty")
        self._dataset = dataset
        self._columns = (prompt_column, references_column)
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self._dataset))[index]
        sample = self._samples.get(index)
        if sample is None:
            sample = self._samples[index] = as_sample(self._dataset[index], *self._columns)
        return sample
