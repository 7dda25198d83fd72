"""The contract of scorers, :class:`Scorer`, and a library of them.

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

from textgym.scorers.base import Scorer, Scores, component_names, scorer_name
from textgym.scorers.evaluation import evaluate, score_part
from textgym.scorers.registry import as_scorer, register_scorer, scorer_names

if TYPE_CHECKING:
    from textgym.scorers.combine import (
        Affine,
        AgentTurns,
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
    from textgym.scorers.learned import (
        BradleyTerry,
        Judge,
        JudgeConfig,
        PreferenceSettings,
        RewardModel,
        RewardModelConfig,
        read_pairs,
    )
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
        Compression,
        EditSimilarity,
        EmbeddingSimilarity,
        ExactMatch,
        Faithfulness,
        TokenF1,
    )
    from textgym.scorers.reward_function import as_reward_func
    from textgym.scorers.verifiable import Checker, JSONSchema, MathAnswer, NumericAnswer, ReasoningGym, ValidJSON

__all__ = [
    "BLEU",
    "ROUGE",
    "TER",
    "Affine",
    "AgentTurns",
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
    "Compression",
    "Constrained",
    "DistinctN",
    "EditSimilarity",
    "EmbeddingSimilarity",
    "ExactMatch",
    "Faithfulness",
    "Fluency",
    "Gate",
    "Grammar",
    "GroupPercentile",
    "JSONSchema",
    "Judge",
    "JudgeConfig",
    "Keywords",
    "Language",
    "LengthBand",
    "MathAnswer",
    "Maximum",
    "Minimum",
    "Novelty",
    "NumericAnswer",
    "PreferenceSettings",
    "Product",
    "Profanity",
    "Readability",
    "ReasoningGym",
    "Regex",
    "Repetition",
    "RewardModel",
    "RewardModelConfig",
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
    "component_names",
    "evaluate",
    "read_pairs",
    "register_scorer",
    "score_part",
    "scorer_name",
    "scorer_names",
]

_FOLDERS = ("lexical", "combine", "language", "reference", "fluency", "verifiable", "learned", "reward_function")
"""Where a name is looked for when it is first used."""

_IDS = {
    "balanced_brackets": "lexical:BalancedBrackets",
    "banned_words": "lexical:BannedWords",
    "bleu": "reference:BLEU",
    "character_share": "lexical:CharacterShare",
    "chrf": "reference:ChrF",
    "coherence": "fluency:Coherence",
    "common_words": "language:CommonWords",
    "compression": "reference:Compression",
    "distinct_n": "lexical:DistinctN",
    "edit_similarity": "reference:EditSimilarity",
    "embedding_similarity": "reference:EmbeddingSimilarity",
    "exact_match": "reference:ExactMatch",
    "faithfulness": "reference:Faithfulness",
    "fluency": "fluency:Fluency",
    "grammar": "language:Grammar",
    "keywords": "lexical:Keywords",
    "language": "language:Language",
    "length_band": "lexical:LengthBand",
    "math_answer": "verifiable:MathAnswer",
    "novelty": "fluency:Novelty",
    "numeric_answer": "verifiable:NumericAnswer",
    "profanity": "language:Profanity",
    "readability": "lexical:Readability",
    "repetition": "lexical:Repetition",
    "rhyme": "lexical:Rhyme",
    "rouge": "reference:ROUGE",
    "self_bleu": "fluency:SelfBLEU",
    "sentence_shape": "lexical:SentenceShape",
    "sentiment": "language:Sentiment",
    "spelling": "language:Spelling",
    "syllables": "lexical:Syllables",
    "ter": "reference:TER",
    "token_f1": "reference:TokenF1",
    "valid_json": "verifiable:ValidJSON",
    "word_shape": "lexical:WordShape",
}
"""The scorers that can be built without arguments, by the name that stands for them, and where each is."""

for _id, _place in _IDS.items():
    register_scorer(_id, f"textgym.scorers.{_place}")


def __dir__() -> list[str]:
    """Name also what has not been imported yet."""
    return sorted({*globals(), *__all__, *_FOLDERS})


def __getattr__(name: str) -> Any:
    """Import the folder of a scorer when the class, or the folder, is first asked for."""
    if name in _FOLDERS:
        return import_module(f"textgym.scorers.{name}")
    if name in __all__:
        for folder in _FOLDERS:
            module = import_module(f"textgym.scorers.{folder}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
