"""How much shorter than its source a summary is."""

from dataclasses import dataclass
from math import isfinite

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.reference.sources import sources_of
from textgym.scorers.text import words

__all__ = ["Compression"]


@dataclass(frozen=True)
class Compression(Scorer):
    """1 where a summary is as much shorter than its source as wanted, less where it is longer, or hardly there.

    Formula: ``clip(min(ratio / low, (1 - ratio) / (1 - high)), 0, 1)`` with ``ratio = words of the completion / words
    of the source``: 1 from ``low`` to ``high``, falling to 0 at the length of the source, and to 0 at no words. Range:
    [0, 1]; NaN where the source has no words. An empty completion scores 0, also with ``low=0``. Deterministic. Not
    incremental. It counts words and reads none: it is a counterweight to a recall, such as ROUGE's, and no goal.

    Source: the compression ratio of Grusky et al., Newsroom, NAACL 2018, https://arxiv.org/abs/1804.11283

    Raises:
        ValueError: Unless ``0 <= low <= high < 1``.

    >>> metadata = [{"source": "The dog ran to the park and sat down there."}] * 4
    >>> batch = TextBatch.from_texts(["A dog ran.", "It ran to a park and sat.", "", "dog " * 10], metadata=metadata)
    >>> Compression(low=0.1, high=0.5)(batch).round(2)
    array([1. , 0.6, 0. , 0. ])
    """

    low: float = 0.05
    """The least share of the source's words that scores 1."""
    high: float = 0.5
    """The greatest share that does."""
    column: str | None = "source"
    """The metadata column with the source; the prompt where a sample has none, or where this is None."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and 0 <= self.low <= self.high < 1):
            raise ValueError(f"expected 0 <= low <= high < 1, got low={self.low!r}, high={self.high!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        pairs = zip(batch.derived(words), sources_of(batch, self.column), strict=True)
        return np.array([self._score(len(found), len(words(source))) for found, source in pairs], dtype=np.float64)

    def _score(self, num_words: int, num_source: int) -> float:
        if num_source == 0:
            return np.nan
        ratio = num_words / num_source
        enough = ratio / self.low if self.low > 0 else float(num_words > 0)
        return min(1.0, enough, max(0.0, (1 - ratio) / (1 - self.high)))
