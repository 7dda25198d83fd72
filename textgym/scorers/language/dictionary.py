"""The words of a language with their frequencies, which several scorers look up."""

from collections.abc import Mapping
from functools import cache

from textgym.errors import unknown_name
from textgym.scorers.extras import import_extra

__all__ = ["common_words", "frequencies", "plain"]


@cache
def frequencies(language: str, scorer: str) -> Mapping[str, int]:
    """Return how often each word of ``language`` occurs in film subtitles, in lower case; rare ones are all at 50.

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
def common_words(language: str, count: int, scorer: str) -> frozenset[str]:
    """Return the ``count`` most frequent words of ``language``."""
    counts = frequencies(language, scorer)
    return frozenset(sorted(counts, key=lambda word: (-counts[word], word))[:count])


def plain(word: str) -> str:
    """Return a word as the dictionaries write it: in lower case, with straight apostrophes."""
    return word.lower().replace("\u2019", "'")
