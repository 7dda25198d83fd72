"""Similarity to the best of a sample's references."""

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.embeddings import as_embedder
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["ROUGE", "EditSimilarity", "EmbeddingSimilarity", "ExactMatch", "TokenF1"]


def _best_of_references(batch: TextBatch, score: Callable[[Any, Any], float], view: Callable[[str], Any]) -> FloatArray:
    """Return (B,) the best ``score(view(completion), view(reference))``, NaN for samples without references."""
    pairs = zip(batch.derived(view), batch.references, strict=True)
    best = [max(score(text, view(reference)) for reference in refs) if refs else np.nan for text, refs in pairs]
    return np.array(best, dtype=np.float64)


_no_punctuation = str.maketrans("", "", string.punctuation)
_articles = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE).sub


@dataclass(frozen=True)
class _AnswerScorer(Scorer):
    """Scorer of answers after SQuAD's normalisation."""

    ignore_case: bool = True
    """Whether texts are compared in lower case."""
    ignore_punctuation: bool = True
    r"""Whether ``!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~`` are removed."""
    ignore_articles: bool = True
    """Whether the words a, an and the are removed."""

    score_range = (0.0, 1.0)

    @property
    def _words(self) -> Callable[[str], list[str]]:
        return _answer_words(self.ignore_case, self.ignore_punctuation, self.ignore_articles)


@dataclass(frozen=True)
class ExactMatch(_AnswerScorer):
    """1 where the completion equals a reference, ignoring case, punctuation, articles and white space; else 0.

    Formula: SQuAD's normalisation (lower case, no ASCII punctuation, no a, an or the, single spaces), then equality.
    Range: {0, 1}. Empty completion: 0, or 1 if nothing remains of a reference; NaN without references. Deterministic.
    Not incremental.

    Source: Rajpurkar et al., SQuAD, EMNLP 2016, https://arxiv.org/abs/1606.05250

    >>> references = [["The Eiffel Tower", "Paris"]] * 4
    >>> batch = TextBatch.from_texts([" eiffel tower!", "Paris", "In Paris", ""], references=references)
    >>> ExactMatch()(batch), ExactMatch(ignore_articles=False)(batch)
    (array([1., 1., 0., 0.]), array([0., 1., 0., 0.]))
    """

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return _best_of_references(batch, list.__eq__, self._words)


@dataclass(frozen=True)
class TokenF1(_AnswerScorer):
    """F1 of the words that the completion shares with its best reference, ignoring case, punctuation and articles.

    Formula: ``2 * precision * recall / (precision + recall)``, with m the common words (a multiset intersection),
    ``precision = m / words of the completion`` and ``recall = m / words of the reference``; words are separated by
    white space after the normalisation of ``ExactMatch``. Range: [0, 1]. Empty completion: 0, or 1 if nothing
    remains of a reference; NaN without references. Deterministic. Not incremental. Ignores word order.

    Source: Rajpurkar et al., SQuAD, EMNLP 2016, https://arxiv.org/abs/1606.05250

    >>> references = [["the Eiffel Tower", "Paris"]] * 3
    >>> TokenF1()(TextBatch.from_texts(["Tower Eiffel", "in Paris", ""], references=references)).round(2)
    array([1.  , 0.67, 0.  ])
    """

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return _best_of_references(batch, _f1, self._words)


@cache  # one function object per set of options, so that `TextBatch.derived` computes the words once
def _answer_words(ignore_case: bool, ignore_punctuation: bool, ignore_articles: bool) -> Callable[[str], list[str]]:
    return partial(_split, ignore_case, ignore_punctuation, ignore_articles)


def _split(ignore_case: bool, ignore_punctuation: bool, ignore_articles: bool, text: str) -> list[str]:
    text = text.lower() if ignore_case else text
    text = text.translate(_no_punctuation) if ignore_punctuation else text
    return (_articles(" ", text) if ignore_articles else text).split()


def _f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    shared = sum((Counter(words) & Counter(reference)).values())
    return 2 * shared / (len(words) + len(reference))


@cache
def _levenshtein() -> Any:
    return import_extra("rapidfuzz.distance", "edit_similarity", "rapidfuzz").Levenshtein


@dataclass(frozen=True)
class EditSimilarity(Scorer):
    """1 minus the normalised edit distance to the best reference.

    Formula: ``1 - edits / max(length of the completion, length of the reference)``; an edit inserts, deletes or
    replaces one unit. Range: [0, 1]. Reads the first 2,000 characters of each text. Empty completion: 0, or 1 if a
    reference is empty; NaN without references. Deterministic. Not incremental. Unrelated English texts score about 0.2
    by characters.

    Source: Levenshtein, 1966; https://github.com/rapidfuzz/RapidFuzz

    Raises:
        ImportError: If the package rapidfuzz is missing.
        ValueError: If the unit is unknown.

    >>> batch = TextBatch.from_texts(["the cat", "the hat", "a cat", ""], references=[["the cat"]] * 4)
    >>> EditSimilarity()(batch).round(2), EditSimilarity("words")(batch)
    (array([1.  , 0.86, 0.57, 0.  ]), array([1. , 0.5, 0.5, 0. ]))
    """

    unit: Literal["characters", "words"] = "characters"
    """Unit of an edit. Words are separated by white space."""
    ignore_case: bool = False
    """Whether texts are compared in lower case."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.unit not in ("characters", "words"):
            raise unknown_name("unit", self.unit, ["characters", "words"])
        _levenshtein()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return _best_of_references(batch, _levenshtein().normalized_similarity, self._view)

    def _view(self, text: str) -> str | list[str]:
        text = cleaned(text)
        text = text.lower() if self.ignore_case else text
        return text if self.unit == "characters" else text.split()


_VARIANTS = ("rouge1", "rouge2", "rouge3", "rouge4", "rougeL", "rougeLsum")
_MEASURES = {"f1": "fmeasure", "precision": "precision", "recall": "recall"}


@cache
def _rouge(variant: str, stemmer: bool) -> Any:
    return import_extra("rouge_score.rouge_scorer", "rouge", "rouge-score").RougeScorer([variant], use_stemmer=stemmer)


@dataclass(frozen=True)
class ROUGE(Scorer):
    """ROUGE: the n-grams (ROUGE-N) or the longest common subsequence (ROUGE-L) of completion and best reference.

    Formula: with m common words, ``precision = m / words of the completion``, ``recall = m / words of the reference``,
    ``f1 = 2 * precision * recall / (precision + recall)``. Words are runs of a to z and digits in lower case, so other
    scripts score 0 and é splits a word. Range: [0, 1]. Reads the first 2,000 characters of each text. Empty completion:
    0; NaN without references. Deterministic. Not incremental. Recall alone favours long texts, precision alone short
    ones.

    Source: Lin, ROUGE, ACL 2004, https://aclanthology.org/W04-1013;
    https://github.com/google-research/google-research/tree/master/rouge

    Raises:
        ImportError: If the package rouge-score is missing.
        ValueError: If the variant or the measure is unknown.

    >>> references = [["the cat sat on the mat"]] * 3
    >>> batch = TextBatch.from_texts(["The cat sat.", "on the cat", ""], references=references)
    >>> ROUGE()(batch).round(2), ROUGE("rouge2", measure="recall")(batch)
    (array([0.67, 0.44, 0.  ]), array([0.4, 0.4, 0. ]))
    """

    variant: Literal["rouge1", "rouge2", "rouge3", "rouge4", "rougeL", "rougeLsum"] = "rougeL"
    """N-gram length, or the longest common subsequence of the text (``"rougeL"``) or of its lines (``"rougeLsum"``)."""
    measure: Literal["f1", "precision", "recall"] = "f1"
    """The measure that is returned."""
    stemmer: bool = False
    """Whether English endings are removed first by Porter's stemmer, which takes four times as long."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.variant not in _VARIANTS:
            raise unknown_name("variant", self.variant, _VARIANTS)
        if self.measure not in _MEASURES:
            raise unknown_name("measure", self.measure, _MEASURES)
        _rouge(self.variant, self.stemmer)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return _best_of_references(batch, self._score, cleaned)

    def _score(self, text: str, reference: str) -> float:
        scores = _rouge(self.variant, self.stemmer).score(reference, text)
        return float(getattr(scores[self.variant], _MEASURES[self.measure]))


class EmbeddingSimilarity(Scorer):
    """Cosine similarity of the embeddings of the completion and its best reference, clipped at 0.

    Formula: ``max(0, cos(completion, reference))``. Range: [0, 1]. Reads the first 2,000 characters of each text. Empty
    completion: 0; NaN without references. Deterministic, up to rounding of a network. Not incremental.

    wordllama takes microseconds and measures the topic: unrelated texts are near 0, but "I love it" is close to "I hate
    it", and word order is ignored. A sentence encoder such as all-MiniLM-L6-v2 is more accurate and far slower. Both
    score the reference's words in any order and number highly: combine them with a repetition or fluency scorer.

    Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, https://arxiv.org/abs/1908.10084;
    https://github.com/dleemiller/WordLlama

    Args:
        embedder: ``"wordllama"``, the name or folder of a Hugging Face encoder on this machine, a pair of a loaded one
            and its tokenizer, or a function; see ``textgym.scorers.embeddings.as_embedder``.

    Raises:
        ImportError: If wordllama, or torch or transformers for an encoder, is missing.
        TypeError: If ``embedder`` is none of these.
        ValueError: If there is no encoder of that name on this machine.

    >>> texts = ["A kitten was sitting on a rug.", "Stock prices fell.", ""]
    >>> EmbeddingSimilarity()(TextBatch.from_texts(texts, references=[["The cat sat on the mat."]] * 3)).round(1)
    array([0.4, 0. , 0. ])
    """

    score_range = (0.0, 1.0)

    def __init__(self, embedder: Any = "wordllama") -> None:
        self.embedder = as_embedder(embedder)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        scores = np.full(len(batch), np.nan)
        texts = batch.derived(cleaned)
        pairs = [(i, cleaned(reference)) for i, references in enumerate(batch.references) for reference in references]
        if pairs:
            rows = np.array([i for i, _ in pairs])
            row_of = {
                text: row for row, text in enumerate(dict.fromkeys([r for _, r in pairs] + [texts[i] for i in rows]))
            }
            vectors = self.embedder(list(row_of)).astype(np.float64)
            first = vectors[[row_of[texts[i]] for i in rows]]
            cosines = (first * vectors[[row_of[reference] for _, reference in pairs]]).sum(axis=1)
            np.fmax.at(scores, rows, np.clip(cosines, 0.0, 1.0))  # fmax ignores the initial NaN
        return scores
