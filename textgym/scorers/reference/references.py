"""What scorers that compare with references have in common: a score for each sample that has some, else NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray
from textgym.scorers.text import cleaned

__all__ = ["best_of_references", "over_references"]


def over_references(batch: TextBatch, score: Callable[[str, list[str]], float]) -> FloatArray:
    """Return (B,) ``score(completion, references)`` of cleaned texts, NaN where a sample has no references."""
    pairs = zip(batch.derived(cleaned), batch.references, strict=True)
    return np.array([score(text, [cleaned(r) for r in refs]) if refs else np.nan for text, refs in pairs], np.float64)


def best_of_references(batch: TextBatch, score: Callable[[Any, Any], float], view: Callable[[str], Any]) -> FloatArray:
    """Return (B,) the best ``score(view(completion), view(reference))``, NaN where a sample has no references."""
    pairs = zip(batch.derived(view), batch.references, strict=True)
    best = [max(score(text, view(reference)) for reference in refs) if refs else np.nan for text, refs in pairs]
    return np.array(best, dtype=np.float64)
