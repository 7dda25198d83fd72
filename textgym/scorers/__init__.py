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
    from textgym.scorers.language import CommonWords, Grammar, Language, Profanity, Sentiment, Spelling
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
    from textgym.scorers.reference import (
        BLEU,
        ROUGE,
        TER,
        ChrF,
        EditSimilarity,
        EmbeddingSimilarity,
        ExactMatch,
        TokenF1,
    )
    from textgym.scorers.reward_function import as_reward_func
    from textgym.scorers.verifiable import Checker, JSONSchema, MathAnswer, NumericAnswer, ReasoningGym, ValidJSON

__all__ = [
    "BLEU",
    "ROUGE",
    "TER",
    "Affine",
    "BalancedBrackets",
    "BannedWords",
    "BradleyTerry",
    "Cached",
    "CharacterShare",
    "Checker",
    "ChrF",
    "Clip",
    "Coherence",
    "CommonWords",
    "CompositeScorer",
    "Constrained",
    "DistinctN",
    "EditSimilarity",
    "EmbeddingSimilarity",
    "ExactMatch",
    "Fluency",
    "Gate",
    "Grammar",
    "GroupPercentile",
    "IncrementalScorer",
    "JSONSchema",
    "Judge",
    "Keywords",
    "Language",
    "LengthBand",
    "MathAnswer",
    "Maximum",
    "Minimum",
    "Novelty",
    "NumericAnswer",
    "Product",
    "Profanity",
    "Readability",
    "ReasoningGym",
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
    "Spelling",
    "Syllables",
    "TimeLimit",
    "TokenF1",
    "ValidJSON",
    "WeightedSum",
    "WordShape",
    "as_reward_func",
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
    "language": ("CommonWords", "Grammar", "Language", "Profanity", "Sentiment", "Spelling"),
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
    "reference": (
        "BLEU",
        "ROUGE",
        "TER",
        "ChrF",
        "EditSimilarity",
        "EmbeddingSimilarity",
        "ExactMatch",
        "TokenF1",
    ),
    "reward_function": ("as_reward_func",),
    "verifiable": ("Checker", "JSONSchema", "MathAnswer", "NumericAnswer", "ReasoningGym", "ValidJSON"),
}
"""What is imported from where when it is first used: the classes of each folder, for the most part."""

_IDS = {
    "balanced_brackets": "BalancedBrackets",
    "banned_words": "BannedWords",
    "bleu": "BLEU",
    "character_share": "CharacterShare",
    "chrf": "ChrF",
    "coherence": "Coherence",
    "common_words": "CommonWords",
    "distinct_n": "DistinctN",
    "edit_similarity": "EditSimilarity",
    "embedding_similarity": "EmbeddingSimilarity",
    "exact_match": "ExactMatch",
    "fluency": "Fluency",
    "grammar": "Grammar",
    "keywords": "Keywords",
    "language": "Language",
    "length_band": "LengthBand",
    "math_answer": "MathAnswer",
    "novelty": "Novelty",
    "numeric_answer": "NumericAnswer",
    "profanity": "Profanity",
    "readability": "Readability",
    "repetition": "Repetition",
    "rhyme": "Rhyme",
    "rouge": "ROUGE",
    "self_bleu": "SelfBLEU",
    "sentence_shape": "SentenceShape",
    "sentiment": "Sentiment",
    "spelling": "Spelling",
    "syllables": "Syllables",
    "ter": "TER",
    "token_f1": "TokenF1",
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
