"""Prompts from lists, functions and iterators, subsets of sources, and their split into training and evaluation."""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from textgym.errors import PromptsExhaustedError
from textgym.prompts.base import IndexedPrompts, PromptSource, Sample, as_sample

__all__ = ["GeneratorPrompts", "ListPrompts", "SubsetPrompts", "prompt_hash", "train_eval_split"]


class ListPrompts(IndexedPrompts):
    """Prompts from a list, drawn uniformly.

    Args:
        samples: Texts, ``Sample`` objects, or mappings with the key ``prompt``, optionally ``references``, and any
            others, which become metadata.

    >>> prompts = ListPrompts(["Once upon a time", {"prompt": "2 + 3 =", "references": ["5"]}])
    >>> len(prompts), prompts[1].references
    (2, ('5',))
    """

    def __init__(self, samples: Sequence[str | Sample | Mapping[str, Any]]) -> None:
        if isinstance(samples, str):
            raise TypeError(f"expected a list of prompts, got one text; write [{samples!r:.60}]")
        self._samples = []
        for i, spec in enumerate(samples):
            try:
                self._samples.append(as_sample(spec))
            except (TypeError, ValueError) as error:
                raise type(error)(f"prompt {i} of the list: {error}") from None
        if not self._samples:
            raise ValueError("the list of prompts is empty")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class SubsetPrompts(IndexedPrompts):
    """A subset of an indexed source, drawn uniformly.

    Args:
        source: The source.
        indices: Indices into the source.

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


class GeneratorPrompts(PromptSource):
    """Prompts from a function of a random generator, or from an iterator.

    Args:
        source: A function ``f(rng) -> str | Sample | mapping``, called once per episode; if ``rng`` is its only source
            of randomness, the prompts are reproducible by seed. Or an iterator of the same, consumed in order whatever
            the seed; it cannot restart, and can be copied or pickled only if Python can do so.

    >>> prompts = GeneratorPrompts(lambda rng: f"{rng.integers(10)} + {rng.integers(10)} =")
    >>> prompts.draw(np.random.default_rng(0)).prompt
    '8 + 6 ='
    """

    def __init__(
        self,
        source: Callable[[np.random.Generator], str | Sample | Mapping[str, Any]]
        | Iterator[str | Sample | Mapping[str, Any]],
    ) -> None:
        if inspect.isgeneratorfunction(source):
            raise TypeError(f"{source.__name__} is a generator function: call it and pass the iterator that it returns")
        if not isinstance(source, Iterator) and not callable(source):
            raise TypeError(f"expected a function of a random generator or an iterator, got {type(source).__name__}")
        self._source = source
        self._num_drawn = 0

    @property
    def is_iterator(self) -> bool:
        """Whether drawing uses the source up."""
        return isinstance(self._source, Iterator)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the next sample.

        Raises:
            PromptsExhaustedError: If the iterator is exhausted.
        """
        if not isinstance(self._source, Iterator):
            return as_sample(self._source(rng))
        try:
            spec = next(self._source)
        except StopIteration:
            raise PromptsExhaustedError(f"the iterator of prompts ended after {self._num_drawn} prompts") from None
        self._num_drawn += 1
        return as_sample(spec)


def train_eval_split(
    source: IndexedPrompts, eval_share: float = 0.1, seed: int = 0
) -> tuple[SubsetPrompts, SubsetPrompts]:
    """Split a source into training and evaluation prompts.

    Prompts are ordered by a hash of seed and text, and the first of them are for evaluation. So equal prompts are on
    the same side, the order of the source does not matter, and an added prompt moves few others.

    Args:
        source: An indexed source with at least two distinct prompts. Every prompt is read.
        eval_share: Fraction of the distinct prompts that are for evaluation, in (0, 1). Each side gets at least one.
        seed: Seed of the split.

    Returns:
        The training and the evaluation prompts, disjoint and together the source.

    >>> train, held_out = train_eval_split(ListPrompts(["a", "b", "c", "d"]), eval_share=0.25)
    >>> len(train), len(held_out)
    (3, 1)
    """
    if not isinstance(source, IndexedPrompts):
        raise TypeError(f"only an indexed source can be split, got {type(source).__name__}")
    if not 0.0 < eval_share < 1.0:
        raise ValueError(f"eval_share must be between 0 and 1, exclusive, got {eval_share}")
    prompts = [source[i].prompt for i in range(len(source))]
    ordered = sorted(set(prompts), key=lambda prompt: (prompt_hash(prompt, seed), prompt))
    if len(ordered) < 2:
        raise ValueError("a source of fewer than two distinct prompts cannot be split into training and evaluation")
    num_eval = min(max(round(eval_share * len(ordered)), 1), len(ordered) - 1)
    held_out = set(ordered[:num_eval])
    train_indices = [i for i, prompt in enumerate(prompts) if prompt not in held_out]
    eval_indices = [i for i, prompt in enumerate(prompts) if prompt in held_out]
    return SubsetPrompts(source, train_indices), SubsetPrompts(source, eval_indices)


def prompt_hash(prompt: str, seed: int) -> bytes:
    """Return a hash that does not depend on the machine or process."""
    return hashlib.sha256(f"{seed}:{prompt}".encode("utf-8", "surrogatepass")).digest()
