"""How scorers read a text: what counts as a word, and what is safe to hand to a library."""

import re

from textgym.tokenizers.base import as_utf8

__all__ = ["OUTSIDE_A_WORD", "cleaned", "words", "words_and_marks"]

# Scripts written without spaces: kana and CJK ideographs. Each of their characters counts as a word.
_UNSPACED = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTER = rf"[^\W_{_UNSPACED}]"
_WORD = rf"[{_UNSPACED}]|{_LETTER}+(?:['\u2019-]{_LETTER}+)*"
_find_words = re.compile(_WORD).findall
_find_words_and_marks = re.compile(rf"{_WORD}|[^\w\s]|_").findall

OUTSIDE_A_WORD = (rf"(?<!{_LETTER})", rf"(?!{_LETTER})")
"""Regular expressions that hold at the start and at the end of a whole word."""


def words(text: str) -> list[str]:
    """Return the words of ``text``: runs of letters and digits, joined by single apostrophes and hyphens.

    >>> words("Don't stop: a well-known 2nd time!")
    ["Don't", 'stop', 'a', 'well-known', '2nd', 'time']
    """
    return _find_words(text)


def words_and_marks(text: str) -> list[str]:
    """Return the words of ``text`` and, each by itself, its punctuation marks, symbols and emoji.

    >>> words_and_marks("No way!!")
    ['No', 'way', '!', '!']
    """
    return _find_words_and_marks(text)


def cleaned(text: str, max_characters: int = 2_000) -> str:
    """Return the first ``max_characters`` of ``text``, lone surrogates as U+FFFD and NUL as a space.

    Libraries fail on both, and some take minutes for a long text.
    """
    return as_utf8(text[:max_characters]).replace("\0", " ")
