"""How positive a text sounds."""

from functools import cache
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["Sentiment"]


@cache
def _analyzer() -> Any:
    return import_extra("vaderSentiment.vaderSentiment", "sentiment", "vaderSentiment").SentimentIntensityAnalyzer()


class Sentiment(Scorer):
    """VADER's compound sentiment of the completion: -1 most negative, 0 neutral, 1 most positive.

    Formula: ``x / sqrt(x**2 + 15)``, where x sums the valences of the words that a lexicon of 7,500 knows, adjusted by
    rules for negation, degree adverbs, capitals, emoji and exclamation marks. Range: [-1, 1], four decimals. Reads
    English, and the first 2,000 characters. An empty completion, or one without a word of the lexicon, scores 0.
    Deterministic. Not incremental: a later word can change the valence of an earlier one. Easily hacked: ``"great"``
    six times scores 0.98.

    Source: Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM
    2014, https://github.com/cjhutto/vaderSentiment

    Raises:
        ImportError: At construction, if the package vaderSentiment is missing.

    >>> Sentiment()(TextBatch.from_texts(["The dog was happy.", "The dog was sad.", ""]))
    array([ 0.5719, -0.4767,  0.    ])
    """

    score_range = (-1.0, 1.0)

    def __init__(self) -> None:
        _analyzer()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        polarity = _analyzer().polarity_scores
        return np.array([polarity(cleaned(text))["compound"] for text in batch.completions], dtype=np.float64)
