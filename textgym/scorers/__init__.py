"""The contract of scorers, :class:`Scorer`, and a library of them.

    lexical       surface form: length, words, repetition, shape
    language      sentiment, profanity, spelling, grammar
    reference     similarity to references
    verifiable    correctness of answers that can be verified
    fluency       likelihood under a language model, and novelty among other texts
    learned       reward models, judges, preferences
    combine       compositions of scorers

A scorer's module is imported when its name is first used, a package that it needs when it is built.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from textgym.scorers.base import Scorer, Scores, component_names, scorer_name
from textgym.scorers.catalogue import CATALOGUE as _CATALOGUE
from textgym.scorers.catalogue import FOLDERS as _FOLDERS
from textgym.scorers.evaluation import evaluate, observe_episodes, score_batch
from textgym.scorers.registry import as_scorer, register_scorer, scorer_names

if TYPE_CHECKING:  # the names of the catalogue, for type checkers
    from textgym.scorers.combine.adaptive import Constrained as Constrained
    from textgym.scorers.combine.adaptive import GroupPercentile as GroupPercentile
    from textgym.scorers.combine.adaptive import RunningNormalization as RunningNormalization
    from textgym.scorers.combine.composition import Gate as Gate
    from textgym.scorers.combine.composition import Maximum as Maximum
    from textgym.scorers.combine.composition import Minimum as Minimum
    from textgym.scorers.combine.composition import Product as Product
    from textgym.scorers.combine.composition import Sequential as Sequential
    from textgym.scorers.combine.composition import WeightedSum as WeightedSum
    from textgym.scorers.combine.transforms import Affine as Affine
    from textgym.scorers.combine.transforms import Clip as Clip
    from textgym.scorers.combine.transforms import Schedule as Schedule
    from textgym.scorers.combine.wrappers import AgentTurns as AgentTurns
    from textgym.scorers.combine.wrappers import Cached as Cached
    from textgym.scorers.combine.wrappers import TimeLimit as TimeLimit
    from textgym.scorers.fluency.coherence import Coherence as Coherence
    from textgym.scorers.fluency.fluency import Fluency as Fluency
    from textgym.scorers.fluency.novelty import Novelty as Novelty
    from textgym.scorers.fluency.novelty import SelfBLEU as SelfBLEU
    from textgym.scorers.language.grammar import Grammar as Grammar
    from textgym.scorers.language.identification import Language as Language
    from textgym.scorers.language.word_lists import CommonWords as CommonWords
    from textgym.scorers.language.word_lists import Profanity as Profanity
    from textgym.scorers.language.word_lists import Sentiment as Sentiment
    from textgym.scorers.language.word_lists import Spelling as Spelling
    from textgym.scorers.learned.bradley_terry import BradleyTerry as BradleyTerry
    from textgym.scorers.learned.judge import Judge as Judge
    from textgym.scorers.learned.judge import JudgeUsage as JudgeUsage
    from textgym.scorers.learned.judge_config import JudgeConfig as JudgeConfig
    from textgym.scorers.learned.preferences import PreferencePair as PreferencePair
    from textgym.scorers.learned.preferences import PreferenceReport as PreferenceReport
    from textgym.scorers.learned.preferences import PreferenceSettings as PreferenceSettings
    from textgym.scorers.learned.preferences import read_pairs as read_pairs
    from textgym.scorers.learned.reward_model import RewardModel as RewardModel
    from textgym.scorers.learned.reward_model import RewardModelConfig as RewardModelConfig
    from textgym.scorers.lexical.format import BalancedBrackets as BalancedBrackets
    from textgym.scorers.lexical.format import CharacterShare as CharacterShare
    from textgym.scorers.lexical.format import LengthBand as LengthBand
    from textgym.scorers.lexical.format import Regex as Regex
    from textgym.scorers.lexical.phrases import BannedWords as BannedWords
    from textgym.scorers.lexical.phrases import Keywords as Keywords
    from textgym.scorers.lexical.repetition import DistinctN as DistinctN
    from textgym.scorers.lexical.repetition import Repetition as Repetition
    from textgym.scorers.lexical.rhyme import Rhyme as Rhyme
    from textgym.scorers.lexical.shape import SentenceShape as SentenceShape
    from textgym.scorers.lexical.shape import WordShape as WordShape
    from textgym.scorers.lexical.syllables import Readability as Readability
    from textgym.scorers.lexical.syllables import Syllables as Syllables
    from textgym.scorers.reference.similarity import ROUGE as ROUGE
    from textgym.scorers.reference.similarity import EditSimilarity as EditSimilarity
    from textgym.scorers.reference.similarity import EmbeddingSimilarity as EmbeddingSimilarity
    from textgym.scorers.reference.similarity import ExactMatch as ExactMatch
    from textgym.scorers.reference.similarity import TokenF1 as TokenF1
    from textgym.scorers.reference.summary import Compression as Compression
    from textgym.scorers.reference.summary import Faithfulness as Faithfulness
    from textgym.scorers.reference.translation import BLEU as BLEU
    from textgym.scorers.reference.translation import TER as TER
    from textgym.scorers.reference.translation import ChrF as ChrF
    from textgym.scorers.reward_function import as_reward_func as as_reward_func
    from textgym.scorers.verifiable.answers import MathAnswer as MathAnswer
    from textgym.scorers.verifiable.answers import NumericAnswer as NumericAnswer
    from textgym.scorers.verifiable.checker import Checker as Checker
    from textgym.scorers.verifiable.reasoning_gym import ReasoningGym as ReasoningGym
    from textgym.scorers.verifiable.valid_json import JSONSchema as JSONSchema
    from textgym.scorers.verifiable.valid_json import ValidJSON as ValidJSON

__all__ = [
    "Scorer",
    "Scores",
    "as_scorer",
    "component_names",
    "evaluate",
    "observe_episodes",
    "register_scorer",
    "score_batch",
    "scorer_name",
    "scorer_names",
]
__all__ += _CATALOGUE
__all__.sort(key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


def __dir__() -> list[str]:
    """Name also what has not been imported yet."""
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__, *_FOLDERS})


def __getattr__(name: str) -> Any:
    """Import a scorer's module, or a folder, when it is first asked for."""
    if name in _FOLDERS:
        return import_module(f"textgym.scorers.{name}")
    if name in _CATALOGUE:
        return getattr(import_module(f"textgym.scorers.{_CATALOGUE[name].module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
