"""Whether the wanted words occur in a text."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray
from textgym.scorers.text import OUTSIDE_A_WORD

__all__ = ["Keywords"]


class Keywords:
    """Share of the wanted words that occur in the completion, as whole words in any case.

    Formula: ``found / wanted``, over distinct words; a word may be a phrase, between whose parts any white space may
    stand. Range: [0, 1]. An empty completion scores 0. Deterministic. Not incremental.

    Args:
        words: The wanted words. Without them, each sample brings its own in the metadata column ``column``: a list, or
            a string with commas between the words. A sample that has none scores NaN: the scorer does not apply.
        column: Name of that column.

    Raises:
        TypeError: If ``words`` is one string, or holds something else than strings.
        ValueError: If ``words`` is empty, or one of them is blank.

    >>> Keywords(["cat", "red hat"])(TextBatch.from_texts(["A Red  Hat.", "the cat's red hat", "concat"]))
    array([0.5, 1. , 0. ])
    >>> Keywords()(TextBatch.from_texts(["a cat", "a cat"], metadata=[{"keywords": "cat, dog"}, {}]))
    array([0.5, nan])
    """

    score_range = (0.0, 1.0)

    def __init__(self, words: Iterable[str] | None = None, column: str = "keywords") -> None:
        self.column = column
        self.words = None
        if words is not None:
            if isinstance(words, str):
                raise TypeError(f"words is one string, {words!r}; expected a list of strings")
            self.words = _distinct(words)
            if not self.words:
                raise ValueError("words is empty; leave it out to take each sample's own")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        if self.words is not None:
            wanted = [self.words] * len(batch)
        else:
            wanted = [_distinct(_as_list(row.get(self.column))) for row in batch.metadata]
        return np.array(list(map(_share, batch.completions, wanted)), dtype=np.float64)


def _share(text: str, wanted: tuple[str, ...]) -> float:
    if not wanted:
        return np.nan
    text = text.casefold()
    return sum(_finder(word)(text) is not None for word in wanted) / len(wanted)


def _as_list(value: Any) -> Iterable[str]:
    if value is None:
        return ()
    return [word for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _distinct(words: Iterable[Any]) -> tuple[str, ...]:
    distinct: dict[str, None] = {}
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"a keyword is {word!r}, expected a string")
        if not word.strip():
            raise ValueError(f"a keyword is blank: {word!r}")
        distinct[" ".join(word.casefold().split())] = None
    return tuple(distinct)


@lru_cache(maxsize=4096)
def _finder(word: str) -> Callable[[str], re.Match[str] | None]:
    start, end = OUTSIDE_A_WORD
    return re.compile(start + r"\s+".join(map(re.escape, word.split())) + end).search
