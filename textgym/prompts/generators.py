"""Prompts made while the environment runs: by a function of a random generator, or by an iterator."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from textgym.errors import PromptsExhaustedError
from textgym.prompts.base import PromptSource, Sample, as_sample

__all__ = ["GeneratorPrompts"]


class GeneratorPrompts(PromptSource):
    """Prompts that a function or an iterator makes.

    Args:
        source: A function ``f(rng) -> str | Sample | mapping``, called once an episode. Give it no randomness but
            ``rng`` and a seed decides the prompts. Or an iterator of the same, used in order, whatever the seed:
            it cannot start again, nor be copied or pickled where Python cannot do that.

    Raises:
        TypeError: If ``source`` is neither, or what it makes is no prompt.

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
            raise TypeError(f"{source.__name__} is a generator function: call it and give what it returns, an iterator")
        if not isinstance(source, Iterator) and not callable(source):
            raise TypeError(f"expected a function of a random generator or an iterator, got {type(source).__name__}")
        self._source = source
        self._num_drawn = 0

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the next sample.

        Raises:
            PromptsExhaustedError: If the iterator has come to its end.
        """
        if not isinstance(self._source, Iterator):
            return as_sample(self._source(rng))
        try:
            spec = next(self._source)
        except StopIteration:
            raise PromptsExhaustedError(f"the iterator of prompts ended after {self._num_drawn} prompts") from None
        self._num_drawn += 1
        return as_sample(spec)
