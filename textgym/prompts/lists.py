"""Prompts held in memory, and subsets of other sources."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.prompts.base import PromptSource, Sample, as_sample

__all__ = ["IndexedPrompts", "ListPrompts", "SubsetPrompts"]


class IndexedPrompts(PromptSource):
    """A prompt source whose samples have numbers; the same number gives the same object each time."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return one of the samples, each with the same probability."""
        return self[int(rng.integers(len(self)))]


class ListPrompts(IndexedPrompts):
    """Prompts from a list, drawn with equal probability.

    Args:
        samples: Texts, ``Sample`` objects, or mappings with the keys ``prompt``, optionally ``references``, and any
            others, which become metadata.

    Raises:
        ValueError: If the list is empty or a mapping has no prompt.
        TypeError: If an entry is something else.

    >>> prompts = ListPrompts(["Once upon a time", {"prompt": "2 + 3 =", "references": ["5"]}])
    >>> len(prompts), prompts[1].references
    (2, ('5',))
    """

    def __init__(self, samples: Sequence[str | Sample | Mapping[str, Any]]) -> None:
        if isinstance(samples, str):
            raise TypeError(f"expected a list of prompts, got one text; write [{samples!r:.60}]")
        self._samples = [numbered_sample(i, spec) for i, spec in enumerate(samples)]
        if not self._samples:
            raise ValueError("the list of prompts is empty")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class SubsetPrompts(IndexedPrompts):
    """Some of the samples of an indexed source, drawn with equal probability.

    Args:
        source: The source.
        indices: Numbers of samples in the source.

    Raises:
        ValueError: If there are no indices.
        IndexError: If an index is not in the source.

    >>> SubsetPrompts(ListPrompts(["a", "b", "c"]), [2, 0])[0].prompt
    'c'
    """

    def __init__(self, source: IndexedPrompts, indices: Sequence[int]) -> None:
        if len(indices) == 0:
            raise ValueError("the subset of prompts is empty")
        self._source = source
        self._indices = [range(len(source))[i] for i in indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._indices[index]]


def numbered_sample(number: int, spec: Any) -> Sample:
    """Return ``as_sample(spec)``; an error says which entry of the list it is about."""
    try:
        return as_sample(spec)
    except (TypeError, ValueError) as error:
        raise type(error)(f"prompt {number} of the list: {error}") from None
