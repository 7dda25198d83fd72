"""Whether a text has the wanted length."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray
from textgym.scorers.text import words

__all__ = ["LengthBand"]


@dataclass(frozen=True)
class LengthBand:
    """1 where the completion's length n lies in ``[low, high]``, falling linearly to 0 outside.

    Formula: ``n / low`` below the band, ``max(0, 2 - n / high)`` above it, so 0 at length 0 and from ``2 * high`` on.
    Range: [0, 1]. An empty completion scores 0, or 1 where ``low`` is 0. Deterministic. Not incremental.

    Raises:
        ValueError: If not ``0 <= low <= high`` and ``high >= 1``, or the unit is unknown.

    >>> LengthBand(4, 8)(TextBatch.from_texts(["a", "abcd", "abcdefghij", ""]))
    array([0.25, 1.  , 0.75, 0.  ])
    """

    low: int = 8
    """Shortest wanted length, in units."""
    high: int = 24
    """Longest wanted length, in units."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """What is counted. ``"tokens"`` are the completion's ids, an EOS among them."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.high < 1:
            raise ValueError(f"expected 0 <= low <= high and high >= 1, got low={self.low!r}, high={self.high!r}")
        if self.unit not in ("tokens", "words", "characters"):
            raise unknown_name("unit", self.unit, ["tokens", "words", "characters"])

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        if self.unit == "tokens":
            counts = batch.num_new_tokens
        elif self.unit == "words":
            counts = np.array([len(words(text)) for text in batch.completions], dtype=np.int64)
        else:
            counts = np.array([len(text) for text in batch.completions], dtype=np.int64)
        rising = counts / self.low if self.low > 0 else 1.0
        return np.clip(np.minimum(rising, 2 - counts / self.high), 0.0, 1.0)
