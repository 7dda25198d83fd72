"""How few edits are between a text and a reference."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.reference.references import best_of_references
from textgym.scorers.text import cleaned

__all__ = ["EditSimilarity"]


@cache
def _levenshtein() -> Any:
    return import_extra("rapidfuzz.distance", "edit_similarity", "rapidfuzz").Levenshtein


@dataclass(frozen=True)
class EditSimilarity(Scorer):
    """1 less the share of a text that has to be changed to get the best reference.

    Formula: ``1 - edits / max(length of the completion, length of the reference)``; an edit inserts, deletes or
    replaces a character or, by choice, a word. Range: [0, 1]. Reads the first 2,000 characters of each text. An empty
    completion scores 0, and 1 where a reference is empty too; a sample without references NaN. Deterministic. Not
    incremental. Smooth, so easy to learn from; any English is about 0.2 near to any other by characters.

    Source: Levenshtein, 1966; https://github.com/rapidfuzz/RapidFuzz

    Raises:
        ImportError: At construction, if the package rapidfuzz is missing.
        ValueError: If the unit is unknown.

    >>> batch = TextBatch.from_texts(["the cat", "the hat", "a cat", ""], references=[["the cat"]] * 4)
    >>> EditSimilarity()(batch).round(2), EditSimilarity("words")(batch)
    (array([1.  , 0.86, 0.57, 0.  ]), array([1. , 0.5, 0.5, 0. ]))
    """

    unit: Literal["characters", "words"] = "characters"
    """What an edit changes. Words are what white space separates."""
    ignore_case: bool = False
    """Whether texts are compared in lower case."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.unit not in ("characters", "words"):
            raise unknown_name("unit", self.unit, ["characters", "words"])
        _levenshtein()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return best_of_references(batch, _levenshtein().normalized_similarity, self._view)

    def _view(self, text: str) -> str | list[str]:
        text = cleaned(text)
        text = text.lower() if self.ignore_case else text
        return text if self.unit == "characters" else text.split()
