"""What a text is worth: the contract of scorers, and a library of them.

    lexical       what a text looks like: length, words, repetition, shape
    language      what it says and how well: sentiment, manners, spelling, grammar
    reference     how near it is to references
    verifiable    whether it is right, where that can be checked
    fluency       how it reads to a language model, or beside other texts
    learned       what a trained model says: reward models, judges, preferences
    combine       scorers that are made of other scorers

A scorer's module is imported when its name is first used, a package that it needs when it is built.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from textgym.scorers.base import (
    CompositeScorer,
    Scorer,
    Scores,
    evaluate,
    part_names,
    score_part,
    scorer_name,
    set_progress,
)
from textgym.scorers.incremental import IncrementalScorer, is_incremental
from textgym.scorers.registry import as_scorer, register_scorer, scorer_names

if TYPE_CHECKING:
    from textgym.scorers.combine import (
        Affine,
        Cached,
        Clip,
        Constrained,
        Gate,
        GroupPercentile,
        Maximum,
        Minimum,
        Product,
        RunningNormalization,
        Schedule,
        Sequential,
        TimeLimit,
        WeightedSum,
    )
    from textgym.scorers.fluency import Coherence, Fluency, Novelty, SelfBLEU
    from textgym.scorers.language import Sentiment
    from textgym.scorers.learned import BradleyTerry, Judge, RewardModel
    from textgym.scorers.lexical import (
        BalancedBrackets,
        BannedWords,
        CharacterShare,
        DistinctN,
        Keywords,
        LengthBand,
        Readability,
        Regex,
        Repetition,
        Rhyme,
        SentenceShape,
        Syllables,
        WordShape,
    )
    from textgym.scorers.verifiable import Checker, JSONSchema, MathAnswer, NumericAnswer, ValidJSON

__all__ = [
    "Affine",
    "BalancedBrackets",
    "BannedWords",
    "BradleyTerry",
    "Cached",
    "CharacterShare",
    "Checker",
    "Clip",
    "Coherence",
    "CompositeScorer",
    "Constrained",
    "DistinctN",
    "Fluency",
    "Gate",
    "GroupPercentile",
    "IncrementalScorer",
    "JSONSchema",
    "Judge",
    "Keywords",
    "LengthBand",
    "MathAnswer",
    "Maximum",
    "Minimum",
    "Novelty",
    "NumericAnswer",
    "Product",
    "Readability",
    "Regex",
    "Repetition",
    "RewardModel",
    "Rhyme",
    "RunningNormalization",
    "Schedule",
    "Scorer",
    "Scores",
    "SelfBLEU",
    "SentenceShape",
    "Sentiment",
    "Sequential",
    "Syllables",
    "TimeLimit",
    "ValidJSON",
    "WeightedSum",
    "WordShape",
    "as_scorer",
    "evaluate",
    "is_incremental",
    "part_names",
    "register_scorer",
    "score_part",
    "scorer_name",
    "scorer_names",
    "set_progress",
]

_GROUPS = {
    "combine": (
        "Affine",
        "Cached",
        "Clip",
        "Constrained",
        "Gate",
        "GroupPercentile",
        "Maximum",
        "Minimum",
        "Product",
        "RunningNormalization",
        "Schedule",
        "Sequential",
        "TimeLimit",
        "WeightedSum",
    ),
    "fluency": ("Coherence", "Fluency", "Novelty", "SelfBLEU"),
    "language": ("Sentiment",),
    "learned": ("BradleyTerry", "Judge", "RewardModel"),
    "lexical": (
        "BalancedBrackets",
        "BannedWords",
        "CharacterShare",
        "DistinctN",
        "Keywords",
        "LengthBand",
        "Readability",
        "Regex",
        "Repetition",
        "Rhyme",
        "SentenceShape",
        "Syllables",
        "WordShape",
    ),
    "verifiable": ("Checker", "JSONSchema", "MathAnswer", "NumericAnswer", "ValidJSON"),
}
"""The classes of each folder."""

_IDS = {
    "balanced_brackets": "BalancedBrackets",
    "banned_words": "BannedWords",
    "character_share": "CharacterShare",
    "coherence": "Coherence",
    "distinct_n": "DistinctN",
    "fluency": "Fluency",
    "keywords": "Keywords",
    "length_band": "LengthBand",
    "math_answer": "MathAnswer",
    "novelty": "Novelty",
    "numeric_answer": "NumericAnswer",
    "readability": "Readability",
    "repetition": "Repetition",
    "rhyme": "Rhyme",
    "self_bleu": "SelfBLEU",
    "sentence_shape": "SentenceShape",
    "sentiment": "Sentiment",
    "syllables": "Syllables",
    "valid_json": "ValidJSON",
    "word_shape": "WordShape",
}
"""The scorers that can be built without arguments, by the name that stands for them."""

for _id, _class in _IDS.items():
    register_scorer(_id, f"textgym.scorers:{_class}")


def __getattr__(name: str) -> Any:
    """Import a scorer's module when the class is first asked for."""
    for group, classes in _GROUPS.items():
        if name in classes:
            return getattr(import_module(f"textgym.scorers.{group}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
