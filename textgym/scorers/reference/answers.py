"""Whether a text is one of the expected answers: the measures of question answering."""

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.reference.references import best_of_references

__all__ = ["ExactMatch", "TokenF1"]

_no_punctuation = str.maketrans("", "", string.punctuation)
_articles = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE).sub


@dataclass(frozen=True)
class ExactMatch(Scorer):
    """1 where the completion equals a reference, up to case, punctuation, articles and white space; else 0.

    Formula: SQuAD's: lower case; without the ASCII punctuation marks; without the words a, an and the; white space
    counts as one space, and none at the ends. Range: {0, 1}. An empty completion scores 0, and 1 where nothing is left
    of a reference either; a sample without references NaN. Deterministic. Not incremental. A short answer can be luck.

    Source: Rajpurkar et al., SQuAD, EMNLP 2016, https://arxiv.org/abs/1606.05250

    >>> references = [["The Eiffel Tower", "Paris"]] * 4
    >>> batch = TextBatch.from_texts([" eiffel tower!", "Paris", "In Paris", ""], references=references)
    >>> ExactMatch()(batch), ExactMatch(ignore_articles=False)(batch)
    (array([1., 1., 0., 0.]), array([0., 1., 0., 0.]))
    """

    ignore_case: bool = True
    """Whether capitals make no difference."""
    ignore_punctuation: bool = True
    """Whether the marks ``!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~`` make none."""
    ignore_articles: bool = True
    """Whether the words a, an and the make none."""

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        view = _answer_words(self.ignore_case, self.ignore_punctuation, self.ignore_articles)
        return best_of_references(batch, list.__eq__, view)


@dataclass(frozen=True)
class TokenF1(Scorer):
    """The words that the completion shares with its best reference, up to case, punctuation and articles.

    Formula: ``2 * precision * recall / (precision + recall)``, with m words in common, each as often as both have it,
    ``precision = m / words of the completion`` and ``recall = m / words of the reference``; words are what white space
    separates, after SQuAD's normalisation (see :class:`ExactMatch`). Range: [0, 1]. An empty completion scores 0, and 1
    where nothing is left of a reference either; a sample without references NaN. Deterministic. Not incremental. Order
    makes no difference.

    Source: Rajpurkar et al., SQuAD, EMNLP 2016, https://arxiv.org/abs/1606.05250

    >>> references = [["the Eiffel Tower", "Paris"]] * 3
    >>> TokenF1()(TextBatch.from_texts(["Tower Eiffel", "in Paris", ""], references=references)).round(2)
    array([1.  , 0.67, 0.  ])
    """

    ignore_case: bool = True
    """Whether capitals make no difference."""
    ignore_punctuation: bool = True
    """Whether the marks ``!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~`` make none."""
    ignore_articles: bool = True
    """Whether the words a, an and the make none."""

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        view = _answer_words(self.ignore_case, self.ignore_punctuation, self.ignore_articles)
        return best_of_references(batch, _f1, view)


@cache  # one function for equal options, so that a batch computes the words once for all who want them
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
