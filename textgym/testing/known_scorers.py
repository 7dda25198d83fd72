"""Pairs of completions that textgym's own scorers have to rank, by class name."""

from typing import Any

import textgym.scorers
from textgym.scorers import Scorer

__all__ = ["preferences_of"]

Pairs = tuple[tuple[str, str], ...]
"""Pairs of completions (better, worse)."""

_PREFERS: dict[str, Pairs] = {
    "BalancedBrackets": (("(a) cat", "(a cat"), ("[(a)]", "[(a])")),
    "CharacterShare": (("aeiou", "bcdfg"), ("I see you.", "Why try?")),
    "Consistency": (
        ("Tom sat down. He sang.", "Tom sat down. She sang."),
        ("Tom sat down. Then Tom sang.", "Tom sat down. Then he and Leo sang. Then Ben sang."),
    ),
    "DistinctN": (("A cat saw the old dog.", "A cat saw a cat saw a cat."),),
    "Fluency": (("The dog ran home.", "Home dog the ran."), ("She was happy.", "Shx wqs hzppy.")),
    "Profanity": (("What a nice day.", "What a crap day."), ("", "crap")),
    "Readability": (("The cat sat on the mat.", "Institutional considerations predominate."),),
    "Rhyme": (("the cat\nthe hat\nmy light\nthe night", "the cat\nthe dog\nmy light\nthe sun"),),
    "SentenceShape": (("The cat sat.", "the cat sat"), ('"Stop it," she said.', '"Stop it, she said.')),
    "Sentiment": (("What a happy day.", "What a sad day."), ("I love it!", "I love it.")),
    "Syllables": (
        ("An old silent pond\nA frog jumps into the pond\nSplash! Silence again", "A pond\nA frog\nSplash!"),
    ),
    "WordShape": (("the cat sat", "thx ctt zzzzat"), ("a cat", "a c4t")),
}


def preferences_of(scorer: Scorer) -> Pairs:
    """Return pairs of completions (better, worse) of a scorer of textgym; none for any other.

    >>> preferences_of(textgym.scorers.ValidJSON(kind="array"))
    (('[1, 2]', '[1, 2'),)
    """
    name = type(scorer).__name__
    if type(scorer) is not getattr(textgym.scorers, name, None):
        return ()
    if name == "Grammar":
        return _of_grammar(scorer)
    if name == "ValidJSON":
        return _of_json(scorer)
    return _PREFERS.get(name, ())


def _of_grammar(scorer: Any) -> Pairs:
    pairs = {
        "Agreement": ("He goes to school.", "He go to school."),
        "Repetition": ("He sat on the mat.", "He sat on the the mat."),
    }
    return tuple(pair for kind, pair in pairs.items() if scorer.kinds is None or kind in scorer.kinds)


def _of_json(scorer: Any) -> Pairs:
    return (("[1, 2]", "[1, 2"),) if scorer.kind == "array" else (('{"a": [1, 2]}', '{"a": [1, 2'),)
