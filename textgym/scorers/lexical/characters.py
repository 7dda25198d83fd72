"""Which characters a text is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer

__all__ = ["CharacterShare"]


@dataclass(frozen=True)
class CharacterShare(Scorer):
    """Share of the completion's characters that are in a set: the letter density of many a first experiment.

    Formula: ``in the set / all characters``, spaces among them. Range: [0, 1]. An empty completion scores 0.
    Deterministic. Incremental. Easily hacked, which is its use: one wanted character over and over scores 1.

    Raises:
        TypeError: If ``characters`` is no string.
        ValueError: If it is empty.

    >>> CharacterShare("ao")(TextBatch.from_texts(["a cat", "Oo", "", "why"]))
    array([0.4, 1. , 0. , 0. ])
    """

    characters: str = "aeiou"
    """The set, as a string."""
    ignore_case: bool = True
    """Whether the lower and upper case of a character in the set belong to it too."""

    score_range = (0.0, 1.0)
    incremental = True

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str):
            raise TypeError(f"characters is {self.characters!r} of type {type(self.characters).__name__}, expected str")
        if not self.characters:
            raise ValueError("characters is empty; expected at least one character")

    @cached_property
    def _wanted(self) -> frozenset[str]:
        characters = self.characters
        return frozenset(characters + characters.lower() + characters.upper() if self.ignore_case else characters)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[tuple[int, int]]:
        """Return B pairs: characters in the set, all characters."""
        is_wanted = self._wanted.__contains__
        return [(sum(map(is_wanted, text)), len(text)) for text in batch.completions]

    def advance(self, states: Sequence[tuple[int, int]], batch: TextBatch) -> list[tuple[int, int]]:
        """Return B pairs after one more token."""
        is_wanted = self._wanted.__contains__
        return [
            (num_wanted + sum(map(is_wanted, piece)), total + len(piece))
            for (num_wanted, total), piece in zip(states, batch.last_pieces, strict=True)
        ]

    def value(self, states: Sequence[tuple[int, int]], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the shares."""
        return np.array([num_wanted / (total or 1) for num_wanted, total in states], dtype=np.float64)
