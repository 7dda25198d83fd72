"""How much of a reference a text covers: the measures of summaries."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.reference.references import best_of_references
from textgym.scorers.text import cleaned

__all__ = ["ROUGE"]

_VARIANTS = ("rouge1", "rouge2", "rouge3", "rouge4", "rougeL", "rougeLsum")
_MEASURES = {"f1": "fmeasure", "precision": "precision", "recall": "recall"}


@cache
def _rouge(variant: str, stemmer: bool) -> Any:
    return import_extra("rouge_score.rouge_scorer", "rouge", "rouge-score").RougeScorer([variant], use_stemmer=stemmer)


@dataclass(frozen=True)
class ROUGE(Scorer):
    """ROUGE: the n-grams (ROUGE-N) or the longest common subsequence (ROUGE-L) that completion and reference share.

    Formula: with m words in common, ``precision = m / words of the completion``, ``recall = m / words of the
    reference``, ``f1 = 2 * precision * recall / (precision + recall)``; the best reference counts. Words are runs of
    the letters a to z and digits, in lower case: other scripts score 0, and é parts a word. Range: [0, 1]. Reads the
    first 2,000 characters of each text. An empty completion scores 0; a sample without references NaN. Deterministic.
    Not incremental. Recall alone is hacked by length, precision by brevity.

    Source: Lin, ROUGE, ACL 2004, https://aclanthology.org/W04-1013;
    https://github.com/google-research/google-research/tree/master/rouge

    Raises:
        ImportError: At construction, if the package rouge-score is missing.
        ValueError: If the variant or the measure is unknown.

    >>> references = [["the cat sat on the mat"]] * 3
    >>> batch = TextBatch.from_texts(["The cat sat.", "on the cat", ""], references=references)
    >>> ROUGE()(batch).round(2), ROUGE("rouge2", measure="recall")(batch)
    (array([0.67, 0.44, 0.  ]), array([0.4, 0.4, 0. ]))
    """

    variant: Literal["rouge1", "rouge2", "rouge3", "rouge4", "rougeL", "rougeLsum"] = "rougeL"
    """Words of an n-gram; or the common subsequence, of the text or (``"rougeLsum"``) line by line."""
    measure: Literal["f1", "precision", "recall"] = "f1"
    """What is returned."""
    stemmer: bool = False
    """Whether English endings are cut off first (Porter's stemmer), which takes four times as long."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.variant not in _VARIANTS:
            raise unknown_name("variant", self.variant, _VARIANTS)
        if self.measure not in _MEASURES:
            raise unknown_name("measure", self.measure, _MEASURES)
        _rouge(self.variant, self.stemmer)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return best_of_references(batch, self._score, cleaned)

    def _score(self, text: str, reference: str) -> float:
        scores = _rouge(self.variant, self.stemmer).score(reference, text)
        return float(getattr(scores[self.variant], _MEASURES[self.measure]))
