"""Whether the words of a text exist."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.language.dictionary import common_words, frequencies, plain
from textgym.scorers.text import words

__all__ = ["Spelling"]

_has_digit = re.compile(r"\d").search
_parts = re.compile(r"['-]").split


@dataclass(frozen=True)
class Spelling(Scorer):
    """Share of the completion's words that a dictionary knows.

    Formula: ``known / checked`` words, in lower case. Not checked are words with a digit, and unknown words with a
    capital, which are taken for names. A word of one letter is known if it is common ("a", "I"), a word with apostrophe
    or hyphen also if its parts are, of which all but one may be stubs of one or two letters ("l'homme", "well-known").
    Range: [0, 1]. A completion without a word to check, an empty one among them, scores 0. Deterministic. Not
    incremental: the next token can go on with the last word.

    Easily hacked: any heap of words is spelt well, and so is nonsense that Begins With Capitals beside one known word.
    The English dictionary holds abbreviations, so about a half of all pairs of letters are words.

    Source: https://github.com/barrust/pyspellchecker

    Raises:
        ImportError: At construction, if the package pyspellchecker is missing.
        ValueError: If it has no dictionary of the language.

    >>> Spelling()(TextBatch.from_texts(["Zorba's 2nd cat doesn't sleep.", "teh cat", "x q the", "xqz", ""]))
    array([1.        , 0.5       , 0.33333333, 0.        , 0.        ])
    """

    language: str = "en"
    """ar, de, en, es, eu, fa, fr, it, lv, nl, pt or ru. An unknown German noun passes as a name."""
    skip_names: bool = True
    """Whether an unknown word with a capital is left out, not counted as wrong."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        frequencies(self.language, "spelling")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        dictionary = frequencies(self.language, "spelling")
        letters = common_words(self.language, 400, "spelling")
        texts = batch.derived(words)
        return np.array([self._share(text, dictionary, letters) for text in texts], dtype=np.float64)

    def _share(self, text: list[str], dictionary: Mapping[str, int], letters: frozenset[str]) -> float:
        known = checked = 0
        for word in text:
            written = plain(word)
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
