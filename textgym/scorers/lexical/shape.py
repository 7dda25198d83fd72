"""Well-formedness of sentences and words."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_count
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.text import ends_with_mark, sentences, words

__all__ = ["SentenceShape", "WordShape"]


@dataclass(frozen=True)
class SentenceShape(Scorer):
    """Share of the completion's sentences that are well formed.

    Formula: ``well formed / all`` sentences. A well-formed sentence does not begin with a small letter; ends with
    ``.``, ``!``, ``?`` or an ellipsis, possibly followed by closing quotes or brackets; has an even number of straight
    double quotes and equally many opening and closing curly ones; and has ``low`` to ``high`` words. Range: [0, 1].
    Empty completion: 0. Deterministic. Not incremental. ``"A a a."`` is well formed; a quotation of several sentences
    is not.

    Raises:
        ValueError: Unless ``1 <= low <= high``.

    >>> SentenceShape()(TextBatch.from_texts(["The cat sat. Then it ran!", "The cat sat. then it ran", "No.", ""]))
    array([1. , 0.5, 0. , 0. ])
    """

    low: int = 2
    """Words of the shortest well-formed sentence."""
    high: int = 40
    """Words of the longest well-formed sentence."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ValueError(f"expected 1 <= low <= high, got low={self.low!r}, high={self.high!r}")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array(list(map(self._share, batch.derived(sentences))), dtype=np.float64)

    def _share(self, found: list[str]) -> float:
        return sum(map(self._is_well_shaped, found)) / max(len(found), 1)

    def _is_well_shaped(self, sentence: str) -> bool:
        first = _first_letter(sentence)
        return (
            ends_with_mark(sentence)
            and first is not None
            and not first[0].islower()
            and sentence.count('"') % 2 == 0
            and sentence.count("“") == sentence.count("”")
            and self.low <= len(words(sentence)) <= self.high
        )


_first_letter = re.compile(r"[^\W_]").search


@dataclass(frozen=True)
class WordShape(Scorer):
    """Share of the completion's words that are spelled like words of a language.

    Formula: ``word-like / all`` words. A word-like word has at most ``max_letters`` letters, no letter three times in a
    row, no digit next to a letter (except as in ``2nd``) and no capital after a small letter (except as in ``McKay``).
    If written in a to z and not in capitals, it also has a vowel or y, and neither seven consonants nor five vowels in
    a row. Numbers are word-like. Range: [0, 1]. Empty completion, or one without words: 0. Deterministic. Not
    incremental. ``"bab"`` is word-like; ``Spelling`` looks words up.

    Raises:
        ValueError: If ``max_letters`` is not a positive integer.

    >>> WordShape()(TextBatch.from_texts(["The 2nd cat's home", "catt xkcd aaargh", "c4t tHe cat 42", ""]))
    array([1.        , 0.33333333, 0.5       , 0.        ])
    """

    max_letters: int = 20
    """Letters of the longest word; the parts of a hyphenated word count separately, up to 100 in all."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.max_letters, "max_letters")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array(list(map(self._share, batch.derived(words))), dtype=np.float64)

    def _share(self, found: list[str]) -> float:
        longest = self.max_letters
        return sum(len(word) <= 100 and _is_word_like(word, longest) for word in found) / max(len(found), 1)


_parts = re.compile("[-'\u2019]").split
_is_number = re.compile(r"\d+(?:st|nd|rd|th|s)?\Z").match
_is_odd = re.compile(r"(.)\1\1|\d|(?<!^Mc)(?<!^Mac)(?<=[a-z])[A-Z]").search
_is_latin = re.compile("[A-Za-z]+").fullmatch
_is_unspeakable = re.compile("[aeiou]{5}|[^aeiouy]{7}|^[^aeiouy]+$").search


@lru_cache(maxsize=1 << 14)
def _is_word_like(word: str, max_letters: int) -> bool:
    return all(_is_part_word_like(part, max_letters, i > 0) for i, part in enumerate(_parts(word)))


def _is_part_word_like(part: str, max_letters: int, is_ending: bool) -> bool:
    if _is_number(part):
        return len(part) <= max_letters
    if len(part) > max_letters or (_is_odd(part) and not (part.isupper() and set(part) <= set("IVXLCDM"))):
        return False
    if _is_latin(part) is None or part.isupper() or (is_ending and part in _ENDINGS):
        return True
    return _is_unspeakable(part.lower()) is None


_ENDINGS = frozenset({"s", "t", "m", "d", "ll", "n"})
"""Parts after an apostrophe that have no vowel."""
