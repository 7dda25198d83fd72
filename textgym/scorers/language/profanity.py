"""Whether a text is free of swear words."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["Profanity"]


@cache
def _filter(extra: tuple[str, ...], allowed: tuple[str, ...]) -> Any:
    profanity = import_extra("better_profanity_rs", "profanity", "better-profanity-rs").Profanity()
    profanity.load_censor_words(whitelist_words=list(allowed))
    profanity.add_censor_words(extra)
    return profanity


@dataclass(frozen=True)
class Profanity(Scorer):
    """1 where the completion is clean, 0 where it holds a word of a list of 916 that are rude, sexual or about drugs.

    Formula: 0 if any word of the list occurs, in any case, as a whole word or phrase, some letters possibly written as
    digits or signs ("cr4p"), else 1. Range: {0, 1}. Reads English, and the first 2,000 characters. An empty completion
    scores 1, so to say nothing is safe: join it with a scorer that wants something said. Deterministic. Not
    incremental: a later letter can make a harmless word of a rude one.

    It is a list of words, not a judge of manners. Flagged wrongly: "kill the process", "the cock crowed", "Dick Van
    Dyke", and all of god, sex, gay, stupid, drunk and vodka; ``allowed`` takes such words off the list. Missed: insults
    and threats in plain words ("you worthless loser"), spaced or stretched spelling ("c r a p", "craaap"), letters of
    other alphabets that look alike, and all other languages.

    Source: https://pypi.org/project/better-profanity-rs, a Rust port of https://github.com/snguyenthanh/better_profanity

    Raises:
        ImportError: At construction, if the package better-profanity-rs is missing.
        TypeError: If ``extra`` or ``allowed`` is not a sequence of strings.
        ValueError: If one of their words is blank.

    >>> Profanity()(TextBatch.from_texts(["What a nice day.", "What a crap day.", "It is Cr4p!", "a scrap", ""]))
    array([1., 0., 0., 1., 1.])
    >>> Profanity(extra=("loser",), allowed=("kill",))(TextBatch.from_texts(["kill the process", "a Loser"]))
    array([1., 0.])
    """

    extra: tuple[str, ...] = ()
    """Further words that are unwanted."""
    allowed: tuple[str, ...] = ()
    """Words of the list that are fine; each form of a word is an entry of its own."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("extra", "allowed"):
            entries = getattr(self, name)
            if isinstance(entries, str) or not all(isinstance(word, str) for word in entries):
                raise TypeError(f"{name} is {entries!r}; expected a sequence of strings")
            if not all(word.strip() for word in entries):
                raise ValueError(f"{name} holds a blank word: {entries!r}")
            object.__setattr__(self, name, tuple(word.strip().lower() for word in entries))
        _filter(self.extra, self.allowed)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        is_rude = _filter(self.extra, self.allowed).contains_profanity
        return np.array([not is_rude(text) for text in batch.derived(cleaned)], dtype=np.float64)
