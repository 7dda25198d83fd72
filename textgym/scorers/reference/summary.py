"""Scorers of summaries, which compare a text with its source."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import lines, phrases_of_column, whole_phrase, words

__all__ = ["Compression", "Faithfulness"]

_tokens = re.compile(
    r"\d+(?:,\d{3})*(?:\.\d+)?(?![^\W_])"  # 1,234.5; but the 2 of 2nd belongs to a word
    r"|[^\W_]+(?:['\u2019][^\W_]+)*|[.!?\u2026:;\"\u201c\u00ab(]"
).findall
_is_number = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?").fullmatch
_ending = re.compile(r"(?:n['\u2019]t|['\u2019](?:s|m|d|re|ve|ll))$").sub  # of possessives and contractions
_NUMBER_WORDS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
_NUMBERS = {word: Decimal(i) for i, word in enumerate(_NUMBER_WORDS.split())}
_FUNCTION_WORDS = """
    a about above after again all already also although always an and another any are as at back be because been before
    behind below beside between both but by can could did do does down dr during each early either even ever every
    everybody everyone everything few finally first for from had has have he her here hers him his how however i if in
    inside instead into is it its just last late later many maybe me meanwhile might mine more most mr mrs ms much must
    my near neither never next no nobody none nor not nothing now of off often on once only or other our out outside
    over perhaps please shall she should since so some somebody someone something sometimes soon still such suddenly
    than that the their theirs them then there these they this those though through to today together tomorrow too under
    until up us very was we well were what when where which while who whose why will with without wo would yes yesterday
    yet you your yours
"""
"""Words, without endings such as n't, that are not names although capitalised at the start of a sentence."""
_NEVER_NAMES = frozenset(("i", "mr", "mrs", "ms", "dr"))
"""Words that are capitalised anywhere and are not names."""
_NOT_AT_A_START = frozenset(_FUNCTION_WORDS.split())


class _ParsedText(NamedTuple):
    """Words and entities of a text."""

    words: frozenset[str | Decimal]
    """All words in folded case, without endings such as 's, and all numbers."""
    entities: frozenset[str | Decimal]
    """The capitalised ones and the numbers."""
    folded: str


class _WordList(NamedTuple):
    """Words of a metadata column."""

    words: frozenset[str | Decimal]
    find_phrases: Any
    """Finds, in a folded text, the entries that are more than a plain word."""


@dataclass(frozen=True)
class Faithfulness(Scorer):
    """Share of the entities named in the completion that its source supports: names, numbers, listed words.

    Formula: ``supported / entities``, over the distinct entities of the completion. An entity is a capitalised word,
    except a function word at the start of a sentence; a number, in digits or as a word from zero to twenty
    (equivalent); or a word or phrase of the columns ``entities`` and ``vocabulary``, in any case. It is supported if it
    is a whole word of the source, in any case, or listed in the column ``entities``. Range: [0, 1]; NaN if the source
    is blank. Empty completion, or one without entities: ``none``. Deterministic. Not incremental.

    With ``none`` at 1 or NaN, vague and empty texts would be the safest answer; at 0, the cheapest full score is one
    name of the source or a copy of it, which ROUGE and ``Compression`` penalise. Relations are not checked ("Anna
    met Ben", "Ben left Anna"), nor lower-case names that are not listed. Written for English; in German every noun is
    an entity.

    Source: entity precision against the source, Nan et al., Entity-level Factual Consistency of Abstractive Text
    Summarization, EACL 2021, https://arxiv.org/abs/2102.09130, with capitals and lists instead of a named-entity
    recogniser.

    Raises:
        ValueError: If ``none`` is neither in [0, 1] nor NaN.

    >>> metadata = [{"source": "Nadia met 2 cats in Rome.", "vocabulary": ["cats", "dogs"]}] * 4
    >>> texts = ["Nadia met two cats.", "Then Nadia met Bob.", "She met dogs in Rome.", "She met them."]
    >>> Faithfulness()(TextBatch.from_texts(texts, metadata=metadata))
    array([1. , 0.5, 0.5, 0. ])
    """

    none: float = 0.0
    """Score of a completion without entities: in [0, 1], or NaN."""
    source: str | None = "source"
    """Metadata column of the source. The prompt is the source if a sample has none, or if this is None."""
    entities: str | None = "entities"
    """Column of the entities of the source, also in other forms than its own: a list, or a string with commas."""
    vocabulary: str | tuple[str, ...] | None = "vocabulary"
    """All entities that occur in texts of this kind, in the source or not: a column in the same format, or a tuple of
    them that applies to every text."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not (np.isnan(self.none) or 0 <= self.none <= 1):
            raise ValueError(f"none must be in [0, 1] or NaN, got {self.none!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        columns = zip(batch.derived(_parse), _sources_of(batch, self.source), batch.metadata, strict=True)
        scores = []
        for summary, source, metadata in columns:
            own = _word_list(self.entities and metadata.get(self.entities))
            domain = _word_list(metadata.get(self.vocabulary) if isinstance(self.vocabulary, str) else self.vocabulary)
            scores.append(self._score(summary, source, own, domain) if source.strip() else np.nan)
        return np.array(scores, dtype=np.float64)

    def _score(self, summary: _ParsedText, source: str, own: _WordList, domain: _WordList) -> float:
        plain = summary.entities | (summary.words & (own.words | domain.words))
        own_phrases = _phrases_in(summary.folded, own)
        phrases = _phrases_in(summary.folded, domain) - own_phrases
        num_entities = len(plain) + len(phrases) + len(own_phrases)
        if num_entities == 0:
            return self.none
        named = _parse_source(source)
        num_supported = len(plain & (named.words | own.words)) + len(own_phrases)
        if phrases:
            num_supported += len(phrases & _phrases_in(named.folded, domain))
        return num_supported / num_entities


def _parse(text: str) -> _ParsedText:
    found: set[str | Decimal] = set()
    entities: set[str | Decimal] = set()
    for line in lines(text):
        is_start = True
        for token in _tokens(line):
            if not token[0].isalnum():
                is_start = True
                continue
            word = _normalised(token)
            found.add(word)
            is_name = token[0].isupper() and word not in (_NOT_AT_A_START if is_start else _NEVER_NAMES)
            if isinstance(word, Decimal) or is_name:
                entities.add(word)
            is_start = False
    return _ParsedText(frozenset(found), frozenset(entities), text.casefold())


_parse_source = lru_cache(maxsize=1024)(_parse)  # many completions share a source


def _normalised(token: str) -> str | Decimal:
    if _is_number(token):
        return Decimal(token.replace(",", ""))
    word = _ending("", token.casefold())
    return _NUMBERS.get(word, word)


def _word_list(value: Any) -> _WordList:
    value = tuple(value) if isinstance(value, list) else value
    try:
        return _parse_list(value)
    except TypeError:  # unhashable, or not a list, which the next call reports
        return _parse_list.__wrapped__(value)


@lru_cache(maxsize=1024)
def _parse_list(value: Any) -> _WordList:
    phrases = phrases_of_column(value, "listed word")
    words = {phrase: _normalised(phrase) for phrase in phrases if _tokens(phrase) == [phrase]}
    return _WordList(frozenset(words.values()), _finder(phrase for phrase in phrases if phrase not in words))


def _finder(phrases: Iterable[str]) -> Any:
    longest_first = sorted(phrases, key=len, reverse=True)
    return re.compile(whole_phrase(*longest_first)).findall if longest_first else None


def _phrases_in(folded: str, listed: _WordList) -> set[str]:
    if listed.find_phrases is None:
        return set()
    return {" ".join(found.split()) for found in listed.find_phrases(folded)}


@dataclass(frozen=True)
class Compression(Scorer):
    """1 where a summary is shorter than its source by the right ratio, less where it is too long or too short.

    Formula: ``clip(min(ratio / low, (1 - ratio) / (1 - high)), 0, 1)`` with ``ratio = words of the completion / words
    of the source``. Range: [0, 1]; NaN if the source has no words. Empty completion: 0, also if ``low`` is 0.
    Deterministic. Not incremental. It only counts words: use it to balance a recall such as ROUGE's.

    Source: the compression ratio of Grusky et al., Newsroom, NAACL 2018, https://arxiv.org/abs/1804.11283

    Raises:
        ValueError: Unless ``0 <= low <= high < 1``.

    >>> metadata = [{"source": "The dog ran to the park and sat down there."}] * 4
    >>> batch = TextBatch.from_texts(["A dog ran.", "It ran to a park and sat.", "", "dog " * 10], metadata=metadata)
    >>> Compression(low=0.1, high=0.5)(batch).round(2)
    array([1. , 0.6, 0. , 0. ])
    """

    low: float = 0.05
    """Least ratio that scores 1."""
    high: float = 0.5
    """Greatest ratio that scores 1, below 1 itself."""
    column: str | None = "source"
    """Metadata column of the source. The prompt is the source if a sample has none, or if this is None."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and 0 <= self.low <= self.high < 1):
            raise ValueError(f"expected 0 <= low <= high < 1, got low={self.low!r}, high={self.high!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        pairs = zip(batch.derived(words), _sources_of(batch, self.column), strict=True)
        return np.array([self._score(len(found), len(words(source))) for found, source in pairs], dtype=np.float64)

    def _score(self, num_words: int, num_source: int) -> float:
        if num_source == 0:
            return np.nan
        ratio = num_words / num_source
        enough = ratio / self.low if self.low > 0 else float(num_words > 0)
        return min(1.0, enough, max(0.0, (1 - ratio) / (1 - self.high)))


def _sources_of(batch: TextBatch, column: str | None) -> list[str]:
    """Return B texts: the metadata column ``column``, or the prompt where a sample has none."""
    sources = []
    for sample in batch.samples:
        source = None if column is None else sample.metadata.get(column)
        source = sample.prompt if source is None else source
        if not isinstance(source, str):
            raise TypeError(f"the column {column!r} of a sample is {source!r:.80}, expected the source as a text")
        sources.append(source)
    return sources
