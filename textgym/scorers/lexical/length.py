"""Whether a text has the wanted length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import words

__all__ = ["LengthBand"]


@dataclass(frozen=True)
class LengthBand(Scorer):
    """1 where the completion's length n lies in ``[low, high]``, falling linearly to 0 outside.

    Formula: ``n / low`` below the band, ``max(0, 2 - n / high)`` above it, so 0 at length 0 and from ``2 * high`` on.
    Range: [0, 1]. An empty completion scores 0, or 1 where ``low`` is 0. Deterministic. Incremental, except where the
    unit is words.

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

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        """Whether a token's share in the count does not depend on its neighbours."""
        return self.unit != "words"

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def begin(self, batch: TextBatch) -> list[int]:
        """Return B lengths, in units."""
        if self.unit == "tokens":
            return batch.num_new_tokens.tolist()
        measure = len if self.unit == "characters" else _num_words
        return [measure(text) for text in batch.completions]

    def advance(self, states: Sequence[int], batch: TextBatch) -> list[int]:
        """Return B lengths, in units, after one more token."""
        if self.unit == "tokens":
            return batch.num_new_tokens.tolist()
        return [count + len(piece) for count, piece in zip(states, batch.last_pieces, strict=True)]

    def value(self, states: Sequence[int], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the lengths."""
        counts = np.array(states, dtype=np.int64)
        rising = counts / self.low if self.low > 0 else 1.0
        return np.clip(np.minimum(rising, 2 - counts / self.high), 0.0, 1.0)


def _num_words(text: str) -> int:
    return len(words(text))
