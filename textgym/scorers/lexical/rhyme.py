"""Rhymes between the lines of a text, detected by spelling rules.

No pronouncing dictionary is used: the packages that contain one are under the GPL, and it lacks the invented words that
an untrained policy mostly writes.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.lexical.syllables import count_syllables
from textgym.scorers.text import lines, words

__all__ = ["Rhyme", "rhyme_ending"]


@dataclass(frozen=True)
class Rhyme(Scorer):
    r"""Share of the completion's pairs of lines that rhyme as a scheme requires.

    Formula: ``rhyming / required`` pairs. Each line forms a pair with the previous line of the same letter. The scheme
    restarts after its last letter; an unfinished stanza requires all its pairs. Two lines rhyme if their last words
    differ and have the same ``rhyme_ending``. Blank lines are skipped. Range: [0, 1]. Empty completion: 0.
    Deterministic. Not incremental. Reads English. One word per line is enough.

    Raises:
        TypeError: If ``scheme`` is not a string.
        ValueError: If no letter occurs twice in it.

    >>> poem = "The cat sat on the mat\nand wore a hat.\nIt ran into the night\nto fly a kite"
    >>> Rhyme()(TextBatch.from_texts([poem, "a cat\na cat", "a cat\na hat", ""]))
    array([1. , 0. , 0.5, 0. ])
    >>> Rhyme("ABAB")(TextBatch.from_texts(["my cat\nis high\nmy hat\na tree"]))
    array([0.5])
    """

    scheme: str = "AABB"
    """One letter per line of a stanza; lines with the same letter rhyme. Some letter occurs twice."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.scheme, str):
            raise TypeError(f"scheme is {self.scheme!r} of type {type(self.scheme).__name__}, expected a string")
        if not self._pairs():
            raise ValueError(f"scheme is {self.scheme!r}; expected some letter twice, as in 'AABB'")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        pairs, size = self._pairs(), len(self.scheme)
        return np.array([_share(last, pairs, size) for last in batch.derived(last_words)], dtype=np.float64)

    def _pairs(self) -> list[tuple[int, int]]:
        pairs, seen = [], dict[str, int]()
        for i, letter in enumerate(self.scheme):
            if letter in seen:
                pairs.append((seen[letter], i))
            seen[letter] = i
        return pairs


def _share(last: list[str], pairs: list[tuple[int, int]], size: int) -> float:
    starts = range(0, len(last), size)
    rhyming = sum(
        start + second < len(last) and _do_rhyme(last[start + first], last[start + second])
        for start in starts
        for first, second in pairs
    )
    return rhyming / max(len(starts) * len(pairs), 1)


def _do_rhyme(first: str, second: str) -> bool:
    return first != second and first != "" and rhyme_ending(first) == rhyme_ending(second)


def last_words(text: str) -> list[str]:
    """Return the last word of each non-blank line in lower case; "" for a line without words."""
    return [(found[-1].lower() if (found := words(line)) else "") for line in lines(text)]


def rhyme_ending(word: str) -> str:
    """Return an English word's approximate sound from its last stressed vowel on, derived from its spelling.

    Takes the letters from the last vowel on, or from the last but one before an unstressed ending such as "ing", and
    maps common spellings of a sound to one form. It accepts some near rhymes ("office", "notice"), misses rare
    spellings ("sweat", "upset"), and cannot separate "lost" from "post". Only the last 40 letters are read.

    >>> rhyme_ending("night"), rhyme_ending("kite"), rhyme_ending("letter"), rhyme_ending("better")
    ('It', 'It', 'etter', 'etter')
    """
    return _ending(word[-40:].lower())


@lru_cache(maxsize=1 << 14)
def _ending(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    is_weak = count_syllables(word) > 1 and _has_weak_end(word) is not None
    sound = word
    for pattern, replacement in _SOUNDS:
        sound = pattern.sub(replacement, sound)
    match = (_from_last_but_one(sound) if is_weak else None) or _from_last(sound)
    return match[0] if match else sound


_VOWELS = "aeiouyAEIOUW"
_from_last = re.compile(f"[{_VOWELS}]+[^{_VOWELS}]*$").search
_from_last_but_one = re.compile(f"[{_VOWELS}]+[^{_VOWELS}]+[{_VOWELS}]+[^{_VOWELS}]*$").search
_has_weak_end = re.compile(
    r"(?:ings?|e[rnl]s?|e[rn]ed|y|ies|[td]ed|les?|[st]ions?|[aeo]ns?|al|ors?|ous|[ie]st?|ish|ness|ful|me?nts?"
    r"|[aei]ble|ages?|ive|ic|ow|[ae]n[ct]e?)$"
).search
_IRREGULAR = {
    word: sound
    for sound, spelled in {
        "A": "hey they",
        "Ak": "break steak",
        "Ar": "their there where",
        "At": "eight great",
        "art": "heart",
        "av": "have",
        "ed": "said",
        "end": "friend",
        "er": "her were",
        "erd": "heard word",
        "erk": "work",
        "erld": "world",
        "I": "buy eye guy i",
        "Is": "buys eyes",
        "in": "been",
        "iv": "give live",
        "O": "go no so though",
        "U": "do shoe through to too two who you",
        "ud": "could good should would",
        "um": "come some",
        "un": "done none one son won",
        "uv": "above dove glove love of",
        "W": "allow bow brow cow how now plow vow wow",
        "Wn": "brown clown crown down drown frown gown town",
    }.items()
    for word in spelled.split()
}
# Long vowels become capitals, in this order: A as in day, E see, I my, O go, U you, W how.
_SOUNDS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[^a-z]", ""),
        (r"qu", "kw"),
        (r"c(?=[eiy])|z", "s"),
        (r"gu(?=[aeiy])", "g"),
        (r"igh(?=[ts]?s?$)|uy$|ye$|^([^aeiouy]*)(?:y|ie)(?=[sd]?$)", r"\1I"),
        (r"(?<![aeiou])i([^aeiouyrx])e(?=[sd]?$)|ig(n)(?=(?:ed)?s?$)|i(nd|ld)(?=s?$)", r"I\1\2\3"),
        (r"y([^aeiouyr])e(?=[sd]?$)", r"I\1"),
        (r"eigh|ai(?!r)|ay", "A"),
        (r"(?<![aeiou])a([^aeiouyrx]|ng|st)e(?=[sd]?$)", r"A\1"),
        (r"ead$", "ed"),
        (r"ea(?!r)|ee(?!r)|ie(?=[^rs])|ey$|(?<=^[^aeiouy])e$|(?<=^[^aeiouy][^aeiouy])e$", "E"),
        (r"e([^aeiouyrx])e(?=[sd]?$)", r"E\1"),
        (r"oa(?!r)|owe?(?=n?s?$)|oe$|o$", "O"),
        (r"(?<![aeiou])o([^aeiouyrx])e(?=[sd]?$)|o(l[dt])", r"O\1\2"),
        (r"oo(?![rk])|i?ew|ue$|ou$", "U"),
        (r"(?<![aeiou])u([^aeiouyrx])e(?=[sd]?$)", r"U\1"),
        (r"ou(?!r)|ow", "W"),
        (r"oy", "oi"),
        (r"air|are$|(?<=[bw])ear$", "Ar"),
        (r"eer|ear$|ere$", "Er"),
        (r"o[ou]r|oar|ore$", "or"),
        (r"[iu]r(?=[^aeiou])|ear(?=[lnt])", "er"),
        (r"(?<=[a-zA-Z])([pkfx]|ss|[cs]h)ed$", r"\1t"),
        (r"(?<=[aeiouyAEIOUW][^aeioutdy])ed$|(?<=[aeiouyAEIOUW][^aeiouy][^aeioutdy])ed$", "d"),
        (r"ck", "k"),
        (r"tch", "ch"),
        (r"c$", "k"),
        (r"ph", "f"),
        (r"mb$", "m"),
        (r"([^aeiouy])\1(?=[td]?s?$)", r"\1"),
        (r"(?<=[^aeiouyAEIOUW])e$|y(?=[aeou])", ""),
        (r"all?$", "oll"),
    )
]
