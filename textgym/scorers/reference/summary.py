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
"""Words, without endings such as n't, that are no names although they have a capital at the start of a sentence."""
_NEVER_NAMES = frozenset(("i", "mr", "mrs", "ms", "dr"))
"""Words that have a capital anywhere and are no names."""
_NOT_AT_A_START = frozenset(_FUNCTION_WORDS.split())


class _Read(NamedTuple):
    """What a text names and says."""

    words: frozenset[str | Decimal]
    """All words in folded case, without endings such as 's, and all numbers."""
    entities: frozenset[str | Decimal]
    """Those that are capitalised, or numbers."""
    folded: str


class _Listed(NamedTuple):
    """The words of a metadata column."""

    words: frozenset[str | Decimal]
    find_phrases: Any
    """Finds those that are more than a plain word in a folded text."""


@dataclass(frozen=True)
class Faithfulness(Scorer):
    """Share of what the completion names that its source names too: names, numbers, places, things.

    Formula: ``supported / entities``, over the distinct entities of the completion. An entity is a capitalised word,
    but for a common function word at the start of a sentence; a number, in digits or as a word from zero to twenty,
    which are the same; and a word or phrase of the columns ``entities`` and ``vocabulary``, in any case. It is
    supported where the source has it as a whole word, in any case, or where the column ``entities`` lists it. Range:
    [0, 1]; NaN where the source is blank. Deterministic. Not incremental.

    An empty completion scores ``none``, as every text without entities does. That is 0 by default, not 1 and not NaN: a
    text that names nothing cannot be wrong, so that paying it, or leaving it out of a product, would make vague and
    empty texts the safest answer, against which ROUGE alone had to hold. With 0 the cheapest full score is one name of
    the source, or a copy of it: both are what ROUGE and :class:`Compression` punish. What is said of the entities is
    not read: "Anna met Ben" and "Ben left Anna" are as faithful; nor are names in small letters that no list has.
    Written for English; in German every noun is an entity.

    Source: precision of entities against the source, Nan et al., Entity-level Factual Consistency of Abstractive Text
    Summarization, EACL 2021, https://arxiv.org/abs/2102.09130, with capitals and lists for the recogniser of names.

    Raises:
        ValueError: If ``none`` is neither in [0, 1] nor NaN.

    >>> metadata = [{"source": "Nadia met 2 cats in Rome.", "vocabulary": ["cats", "dogs"]}] * 4
    >>> texts = ["Nadia met two cats.", "Then Nadia met Bob.", "She met dogs in Rome.", "She met them."]
    >>> Faithfulness()(TextBatch.from_texts(texts, metadata=metadata))
    array([1. , 0.5, 0.5, 0. ])
    """

    none: float = 0.0
    """The score of a completion without entities."""
    source: str | None = "source"
    """The metadata column with the source; the prompt where a sample has none, or where this is None."""
    entities: str | None = "entities"
    """The column with what the source names, perhaps in other forms than its own: a list, or a text with commas."""
    vocabulary: str | None = "vocabulary"
    """The column with all that texts of this kind can name, whether the source does or not, in the same form."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not (np.isnan(self.none) or 0 <= self.none <= 1):
            raise ValueError(f"none must be a score from 0 to 1, or NaN, got {self.none!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        columns = zip(batch.derived(_read), _sources_of(batch, self.source), batch.metadata, strict=True)
        scores = []
        for said, source, metadata in columns:
            own, domain = (_listed(name and metadata.get(name)) for name in (self.entities, self.vocabulary))
            scores.append(self._score(said, source, own, domain) if source.strip() else np.nan)
        return np.array(scores, dtype=np.float64)

    def _score(self, said: _Read, source: str, own: _Listed, domain: _Listed) -> float:
        plain = said.entities | (said.words & (own.words | domain.words))
        own_phrases = _phrases_in(said.folded, own)
        phrases = _phrases_in(said.folded, domain) - own_phrases
        num_entities = len(plain) + len(phrases) + len(own_phrases)
        if num_entities == 0:
            return self.none
        told = _read_source(source)
        num_supported = len(plain & (told.words | own.words)) + len(own_phrases)
        if phrases:
            num_supported += len(phrases & _phrases_in(told.folded, domain))
        return num_supported / num_entities


def _read(text: str) -> _Read:
    words: set[str | Decimal] = set()
    entities: set[str | Decimal] = set()
    for line in lines(text):
        is_start = True
        for token in _tokens(line):
            if not token[0].isalnum():
                is_start = True
                continue
            word = _normalised(token)
            words.add(word)
            is_name = token[0].isupper() and word not in (_NOT_AT_A_START if is_start else _NEVER_NAMES)
            if isinstance(word, Decimal) or is_name:
                entities.add(word)
            is_start = False
    return _Read(frozenset(words), frozenset(entities), text.casefold())


_read_source = lru_cache(maxsize=1024)(_read)  # many completions have the same source


def _normalised(token: str) -> str | Decimal:
    if _is_number(token):
        return Decimal(token.replace(",", ""))
    word = _ending("", token.casefold())
    return _NUMBERS.get(word, word)


def _listed(value: Any) -> _Listed:
    value = tuple(value) if isinstance(value, list) else value
    try:
        return _read_list(value)
    except TypeError:  # what cannot be remembered; or what is no list, of which this says so
        return _read_list.__wrapped__(value)


@lru_cache(maxsize=1024)
def _read_list(value: Any) -> _Listed:
    phrases = phrases_of_column(value, "listed word")
    words = {phrase: _normalised(phrase) for phrase in phrases if _tokens(phrase) == [phrase]}
    return _Listed(frozenset(words.values()), _finder(phrase for phrase in phrases if phrase not in words))


def _finder(phrases: Iterable[str]) -> Any:
    longest_first = sorted(phrases, key=len, reverse=True)
    return re.compile(whole_phrase(*longest_first)).findall if longest_first else None


def _phrases_in(folded: str, listed: _Listed) -> set[str]:
    if listed.find_phrases is None:
        return set()
    return {" ".join(found.split()) for found in listed.find_phrases(folded)}


@dataclass(frozen=True)
class Compression(Scorer):
    """1 where a summary is as much shorter than its source as wanted, less where it is longer, or hardly there.

    Formula: ``clip(min(ratio / low, (1 - ratio) / (1 - high)), 0, 1)`` with ``ratio = words of the completion / words
    of the source``: 1 from ``low`` to ``high``, falling to 0 at the length of the source, and to 0 at no words. Range:
    [0, 1]; NaN where the source has no words. An empty completion scores 0, also with ``low=0``. Deterministic. Not
    incremental. It counts words and reads none: it is a counterweight to a recall, such as ROUGE's, and no goal.

    Source: the compression ratio of Grusky et al., Newsroom, NAACL 2018, https://arxiv.org/abs/1804.11283

    Raises:
        ValueError: Unless ``0 <= low <= high < 1``.

    >>> metadata = [{"source": "The dog ran to the park and sat down there."}] * 4
    >>> batch = TextBatch.from_texts(["A dog ran.", "It ran to a park and sat.", "", "dog " * 10], metadata=metadata)
    >>> Compression(low=0.1, high=0.5)(batch).round(2)
    array([1. , 0.6, 0. , 0. ])
    """

    low: float = 0.05
    """The least share of the source's words that scores 1."""
    high: float = 0.5
    """The greatest share that does."""
    column: str | None = "source"
    """The metadata column with the source; the prompt where a sample has none, or where this is None."""

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
    """Return, for each episode, the text in the metadata column ``column``, the prompt where a sample has none.

    Raises:
        TypeError: If something else than a text stands there.

    >>> _sources_of(TextBatch.from_texts(["", ""], prompts=["A.", "B."], metadata=[{"source": "C."}, {}]), "source")
    ['C.', 'B.']
    """
    sources = []
    for sample in batch.samples:
        source = None if column is None else sample.metadata.get(column)
        source = sample.prompt if source is None else source
        if not isinstance(source, str):
            raise TypeError(f"the column {column!r} of a sample is {source!r:.80}, expected the source as a text")
        sources.append(source)
    return sources
