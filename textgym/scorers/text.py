"""Words, sentences, lines and phrases of a text, and text that is safe to pass to libraries."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from textgym.tokenizers.base import as_utf8

__all__ = [
    "cleaned",
    "distinct_phrases",
    "ends_with_mark",
    "lines",
    "lower_words_and_marks",
    "phrases_of_column",
    "sentences",
    "whole_phrase",
    "words",
    "words_and_marks",
]

# Scripts written without spaces: kana and CJK ideographs. Each of their characters counts as a word.
_UNSPACED = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTER = rf"[^\W_{_UNSPACED}]"
_WORD = rf"[{_UNSPACED}]|{_LETTER}+(?:['\u2019-]{_LETTER}+)*"
_find_words = re.compile(_WORD).findall
_find_words_and_marks = re.compile(rf"{_WORD}|[^\w\s]|_").findall
_MARKS, _CLOSING = r".!?\u2026", r"\"')\]\u00bb\u2019\u201d"
_CJK_MARKS, _CJK_CLOSING = r"\u3002\uff01\uff1f", r"\u300d\u300f\u201d\u2019\uff09"
# A match starts at the beginning of a run of marks only, so that a long run does not cost quadratic time.
_split_sentences = re.compile(
    rf"((?<![{_MARKS}])[{_MARKS}]+[{_CLOSING}]*(?=\s|\Z)|[{_CJK_MARKS}]+[{_CJK_CLOSING}]*|\n\s*\n)"
).split
_end_mark = re.compile(rf"[{_MARKS}{_CJK_MARKS}][{_CLOSING}{_CJK_CLOSING}]*\Z").search


def words(text: str) -> list[str]:
    """Return the words of ``text``: runs of letters and digits, joined by single apostrophes and hyphens.

    >>> words("Don't stop: a well-known 2nd time!")
    ["Don't", 'stop', 'a', 'well-known', '2nd', 'time']
    """
    return _find_words(text)


def words_and_marks(text: str) -> list[str]:
    """Return the words, punctuation marks, symbols and emoji of ``text``, one by one.

    >>> words_and_marks("No way!!")
    ['No', 'way', '!', '!']
    """
    return _find_words_and_marks(text)


def cleaned(text: str, max_characters: int = 2_000) -> str:
    """Return the first ``max_characters`` of ``text``, with lone surrogates as U+FFFD and NUL as a space.

    Libraries fail on both, and some take minutes for a long text.
    """
    return as_utf8(text[:max_characters]).replace("\0", " ")


def lower_words_and_marks(text: str) -> list[str]:
    """Return ``words_and_marks`` of ``text`` in lower case."""
    return _find_words_and_marks(text.lower())


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``, each with its end marks; the last one may lack them.

    A sentence ends at ``.``, ``!``, ``?`` or an ellipsis, with closing quotes and brackets, before white space or the
    end of the text; at a Chinese or Japanese end mark; and at an empty line. Abbreviations such as "Mr." end one too.

    >>> sentences('He said "No." Then... gone! And')
    ['He said "No."', 'Then...', 'gone!', 'And']
    """
    parts = _split_sentences(text)
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return [sentence for body, end in pairs if (sentence := (body + end).strip())]


def ends_with_mark(sentence: str) -> bool:
    """Return whether a text ends with an end mark, apart from closing quotes and brackets.

    >>> ends_with_mark("(Yes?)"), ends_with_mark("Yes,")
    (True, False)
    """
    return _end_mark(sentence) is not None


def lines(text: str) -> list[str]:
    """Return the non-blank lines of ``text``."""
    return [line for line in text.splitlines() if line and not line.isspace()]


def distinct_phrases(phrases: Iterable[object], kind: str) -> tuple[str, ...]:
    """Return the distinct phrases in folded case, with single spaces between words.

    Args:
        phrases: Words and phrases.
        kind: Their name in error messages (``"keyword"``).

    Raises:
        TypeError: If one is not a string.
        ValueError: If one is blank.
    """
    distinct: dict[str, None] = {}
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise TypeError(f"a {kind} is {phrase!r}, expected a string")
        if not phrase.strip():
            raise ValueError(f"a {kind} is blank: {phrase!r}")
        distinct[" ".join(phrase.casefold().split())] = None
    return tuple(distinct)


def phrases_of_column(value: Any, kind: str) -> tuple[str, ...]:
    """Return the phrases in a cell of a metadata column: a list, a comma-separated string, or None.

    Raises:
        TypeError: If it is none of these.
        ValueError: If a phrase in a list is blank.
    """
    if isinstance(value, str):
        value = [phrase for phrase in value.split(",") if phrase.strip()]
    elif value is not None and (not isinstance(value, Iterable) or isinstance(value, Mapping | bytes)):
        raise TypeError(f"the {kind}s of a sample are {value!r:.80}, expected a list or a comma-separated string")
    return () if value is None else distinct_phrases(value, kind)


def whole_phrase(*phrases: str) -> str:
    """Return a regular expression for any of ``distinct_phrases``, as whole words of a text in folded case."""
    spaced = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases]
    return f"(?<!{_LETTER})(?:{'|'.join(spaced)})(?!{_LETTER})"
