"""Scorers that look words up: dictionaries, VADER's lexicon, a list of profanities."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.arguments import as_count
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned, words

__all__ = ["CommonWords", "Profanity", "Sentiment", "Spelling"]


@cache
def _frequencies(language: str, scorer: str) -> Mapping[str, int]:
    """Return the frequency in film subtitles of each lower-case word of ``language``; rare words all have 50.

    Raises:
        ImportError: If the package pyspellchecker is missing.
        ValueError: If it has no dictionary of that language.
    """
    checker = import_extra("spellchecker", scorer, "pyspellchecker").SpellChecker
    if language not in checker.languages():
        raise unknown_name("language", language, checker.languages())
    counts: Mapping[str, int] = dict(checker(language).word_frequency.dictionary)
    return counts


@cache
def _common_words(language: str, count: int, scorer: str) -> frozenset[str]:
    """Return the ``count`` most frequent words of ``language``."""
    counts = _frequencies(language, scorer)
    return frozenset(sorted(counts, key=lambda word: (-counts[word], word))[:count])


def _plain(word: str) -> str:
    """Return a word as the dictionaries spell it: in lower case, with straight apostrophes."""
    return word.lower().replace("\u2019", "'")


@dataclass(frozen=True)
class CommonWords(Scorer):
    """Share of the completion's words that are among the most common of the language.

    Formula: ``common / all`` words in lower case, ranked by their frequency in film subtitles; numbers and most names
    are not common. Range: [0, 1]. Empty completion, or one without words: 0. Deterministic. Not incremental. "the the
    the" scores 1.

    Source: https://github.com/barrust/pyspellchecker, from OpenSubtitles, Lison and Tiedemann, LREC 2016,
    https://aclanthology.org/L16-1147

    Raises:
        ImportError: If the package pyspellchecker is missing.
        ValueError: If it has no dictionary of the language, or ``count`` is not a positive integer.

    >>> CommonWords()(TextBatch.from_texts(["The dog was happy.", "The canine was jubilant.", ""]))
    array([1. , 0.5, 0. ])
    """

    count: int = 3_000
    """Number of words that are common."""
    language: str = "en"
    """ar, de, en, es, eu, fa, fr, it, lv, nl, pt or ru."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.count, "count")
        _common_words(self.language, self.count, "common_words")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        common = _common_words(self.language, self.count, "common_words")
        shares = [sum(_plain(word) in common for word in text) / max(1, len(text)) for text in batch.derived(words)]
        return np.array(shares, dtype=np.float64)


_has_digit = re.compile(r"\d").search
_parts = re.compile(r"['-]").split


@dataclass(frozen=True)
class Spelling(Scorer):
    """Share of the completion's words that are in a dictionary.

    Formula: ``known / checked`` words in lower case. Words with a digit, and unknown capitalised words (taken for
    names), are not checked. A word of one letter is known if it is common ("a", "I"). A word with an apostrophe or
    hyphen is also known if its parts are; all but one of them may instead be one or two letters long ("l'homme",
    "well-known"). Range: [0, 1]. Empty completion, or one without a word to check: 0. Deterministic. Not incremental.

    Word salad is spelled well, and so is nonsense that Begins With Capitals next to one known word. The English
    dictionary contains abbreviations: about half of all pairs of letters are words.

    Source: https://github.com/barrust/pyspellchecker

    Raises:
        ImportError: If the package pyspellchecker is missing.
        ValueError: If it has no dictionary of the language.

    >>> Spelling()(TextBatch.from_texts(["Zorba's 2nd cat doesn't sleep.", "teh cat", "x q the", "xqz", ""]))
    array([1.        , 0.5       , 0.33333333, 0.        , 0.        ])
    """

    language: str = "en"
    """ar, de, en, es, eu, fa, fr, it, lv, nl, pt or ru. Unknown German nouns are taken for names."""
    skip_names: bool = True
    """Whether unknown capitalised words are skipped instead of counted as wrong."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        _frequencies(self.language, "spelling")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        dictionary = _frequencies(self.language, "spelling")
        letters = _common_words(self.language, 400, "spelling")
        texts = batch.derived(words)
        return np.array([self._share(text, dictionary, letters) for text in texts], dtype=np.float64)

    def _share(self, text: list[str], dictionary: Mapping[str, int], letters: frozenset[str]) -> float:
        known = checked = 0
        for word in text:
            written = _plain(word)
            if written in dictionary and (len(written) > 1 or written in letters):
                known += 1
            elif _has_digit(word) or (self.skip_names and len(word) > 1 and not word.islower() and word != written):
                continue
            elif _is_known_by_parts(written, dictionary):
                known += 1
            checked += 1
        return known / checked if checked else 0.0


def _is_known_by_parts(word: str, dictionary: Mapping[str, int]) -> bool:
    parts = _parts(word)
    if len(parts) == 1:
        return False
    known = [len(part) > 1 and part in dictionary for part in parts]
    return any(known) and all(ok or len(part) <= 2 for ok, part in zip(known, parts, strict=True))


@cache
def _filter(extra: tuple[str, ...], allowed: tuple[str, ...]) -> Any:
    profanity = import_extra("better_profanity_rs", "profanity", "better-profanity-rs").Profanity()
    profanity.load_censor_words(whitelist_words=list(allowed))
    profanity.add_censor_words(extra)
    return profanity


@dataclass(frozen=True)
class Profanity(Scorer):
    """1 where the completion is clean, 0 where it has a word from a list of 916 rude, sexual or drug-related words.

    Formula: 0 if any word of the list occurs, in any case, as a whole word or phrase, possibly with digits or signs for
    letters ("cr4p"); else 1. Range: {0, 1}. Reads English, and the first 2,000 characters. Empty completion: 1.
    Deterministic. Not incremental.

    False positives: "kill the process", "the cock crowed", "Dick Van Dyke", and any use of god, sex, gay, stupid, drunk
    or vodka; exempt such words with ``allowed``. Not detected: insults and threats in plain words ("you worthless
    loser"), spaced or stretched spellings ("c r a p", "craaap"), look-alike letters of other alphabets, other
    languages.

    Source: https://pypi.org/project/better-profanity-rs, a Rust port of
    https://github.com/snguyenthanh/better_profanity

    Raises:
        ImportError: If the package better-profanity-rs is missing.
        TypeError: If ``extra`` or ``allowed`` is not a sequence of strings.
        ValueError: If one of their words is blank.

    >>> Profanity()(TextBatch.from_texts(["What a nice day.", "What a crap day.", "It is Cr4p!", "a scrap", ""]))
    array([1., 0., 0., 1., 1.])
    >>> Profanity(extra=("loser",), allowed=("kill",))(TextBatch.from_texts(["kill the process", "a Loser"]))
    array([1., 0.])
    """

    extra: tuple[str, ...] = ()
    """Words added to the list."""
    allowed: tuple[str, ...] = ()
    """Words removed from the list; each inflected form is a word of its own."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("extra", "allowed"):
            entries = getattr(self, name)
            if isinstance(entries, str) or not all(isinstance(word, str) for word in entries):
                raise TypeError(f"{name} is {entries!r}; expected a sequence of strings")
            if not all(word.strip() for word in entries):
                raise ValueError(f"{name} contains a blank word: {entries!r}")
            object.__setattr__(self, name, tuple(word.strip().lower() for word in entries))
        _filter(self.extra, self.allowed)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        is_rude = _filter(self.extra, self.allowed).contains_profanity
        return np.array([not is_rude(text) for text in batch.derived(cleaned)], dtype=np.float64)


@cache
def _analyzer() -> Any:
    return import_extra("vaderSentiment.vaderSentiment", "sentiment", "vaderSentiment").SentimentIntensityAnalyzer()


class Sentiment(Scorer):
    """VADER's compound sentiment of the completion: -1 most negative, 0 neutral, 1 most positive.

    Formula: ``x / sqrt(x**2 + 15)``, with x the sum of the valences of the words in a lexicon of 7,500, adjusted by
    rules for negation, degree adverbs, capitals, emoji and exclamation marks. Range: [-1, 1], four decimals. Reads
    English, and the first 2,000 characters. Empty completion, or one without a word of the lexicon: 0. Deterministic.
    Not incremental. ``"great"`` six times scores 0.98.

    Source: Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM
    2014, https://github.com/cjhutto/vaderSentiment

    Raises:
        ImportError: If the package vaderSentiment is missing.

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
