"""What a text is worth."""

from textgym.scorers.base import CompositeScorer, Scorer, Scores, evaluate, score_part, scorer_name
from textgym.scorers.combine import WeightedSum
from textgym.scorers.keywords import Keywords
from textgym.scorers.length import LengthBand
from textgym.scorers.registry import as_scorer, register_scorer, scorer_names
from textgym.scorers.repetition import Repetition
from textgym.scorers.sentiment import Sentiment

__all__ = [
    "CompositeScorer",
    "Keywords",
    "LengthBand",
    "Repetition",
    "Scorer",
    "Scores",
    "Sentiment",
    "WeightedSum",
    "as_scorer",
    "evaluate",
    "register_scorer",
    "score_part",
    "scorer_name",
    "scorer_names",
]

register_scorer("keywords", Keywords)
register_scorer("length_band", LengthBand)
register_scorer("repetition", Repetition)
register_scorer("sentiment", Sentiment)
