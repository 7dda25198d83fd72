"""Parsing of a shop assistant's reply: items handed over and questions asked."""

import re
from dataclasses import dataclass, field
from functools import cache

from textgym.tasks.words import NUMBERS, colours, things

__all__ = ["ParsedReply", "parse_reply"]

_SENTENCE = re.compile(r"[^.!?\n;]+[.!?;]*")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")
_ASIDE = re.compile(
    r"[$€£] ?\d+(?:[.,]\d+)?|\d+[.,]\d+(?: ?(?:euros?|dollars?|pounds?|[$€£]))?|\d+ ?[$€£]"  # prices
    r"|\b\w+ (?:euros?|dollars?|pounds?|cents?|pence)\b"
    r"|\b(?:in|into) (?:a|your|the) (?:\w+ )?(?:bag|box)\b|\b(?:this|that|which|the) one\b"
)
_REFUSAL = re.compile(
    r"\b(?:not|never|without|unfortunately|cannot|out of|sold out|no more|(?:have|has|are|is|got) no)\b|n't\b"
)
_HERE = re.compile(
    r"\bhere(?:'s| is| are| you| we| they)\b|\btake\b|\bi(?:'ll| will) (?:get|give|hand|pack|wrap|bag)\b"
)
_HANDING = re.compile(
    r"\b(?:there (?:you|are|is)|(?:give|hand|pack|wrap|get|bring|got) you|(?:these|this|those|that) (?:is|are)|that's"
    r"|coming|enjoy|your|for you)\b"
)
_WISH = re.compile(
    r"\byou (?:want|wanted|would|asked|said|say|like|need)\b|\bi (?:like|love|want|need|had|saw|ate|would)\b"
)
_ASKS_COUNT = re.compile(r"\bhow (?:many|much)\b|\bwhat (?:number|quantity|amount)\b")
_ASKS_QUALITY = re.compile(
    r"\b(?:which|what) (?:\w+ )?(?:colou?rs?|kinds?|sorts?|types?|flavou?rs?|ones?)\b|\b(?:colou?r|flavou?r)\b.*\?"
)
_OFFERS_MORE = re.compile(r"\b(?:anything|something|what) else\b")
_FILLERS = frozenset((
    "a", "all", "an", "and", "certainly", "course", "done", "for", "fresh", "friend", "gladly", "good", "hello", "hi",
    "is", "it", "lovely", "madam", "my", "nice", "of", "ok", "okay", "one", "ones", "pleasure", "right", "sir", "sure",
    "thank", "thanks", "the", "then", "very", "well", "with", "yes", "you",
))  # fmt: skip
"""Words that may accompany items named without a verb; not ``please``, which marks a customer's line."""


@dataclass(frozen=True)
class ParsedReply:
    """The content of one reply."""

    hands_over: bool
    """Whether something is handed over."""
    counts: frozenset[int]
    """Numbers named with it; one if the reply is unambiguous."""
    qualities: frozenset[str]
    """Colours and kinds named with it."""
    things: frozenset[str]
    """Things named with it, in the singular."""
    asks_count: bool
    """Whether it asks for the number."""
    asks_quality: bool
    """Whether it asks for the colour or kind."""
    offers_more: bool
    """Whether it asks for further requests."""


@dataclass
class _Named:
    """Words of a sentence, by kind."""

    counts: set[int] = field(default_factory=set)
    qualities: set[str] = field(default_factory=set)
    things: set[str] = field(default_factory=set)
    is_bare: bool = True
    """Whether there are no other words."""


@cache
def _things() -> dict[str, tuple[str, bool]]:
    """Return the singular for each form, and whether the form is the singular."""
    found = {thing.plural: (thing.singular, False) for thing in things().values()}
    return found | {singular: (singular, True) for singular in things()}


@cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(NUMBERS)} | {"dozen": 12, "couple": 2}


@cache
def _kinds() -> frozenset[tuple[str, str]]:
    """Return pairs of a kind and a form of the thing that follows it, such as ``lemon`` and ``cakes``."""
    return frozenset(
        (kind, form) for thing in things().values() for kind in thing.kinds for form in (thing.singular, thing.plural)
    )


def _read(words: list[str]) -> _Named:
    named = _Named()
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if word.isdecimal():
            named.counts.add(int(word))
        elif word in _numbers():
            named.counts.add(_numbers()[word])
        elif word in colours() or word == "gray" or (word, following) in _kinds():
            named.qualities.add("grey" if word == "gray" else word)
        elif word in _things():
            singular, is_singular = _things()[word]
            named.things.add(singular)
            if is_singular and {"a", "an", "the", "your"}.intersection(words[max(0, position - 3) : position]):
                named.counts.add(1)
        elif word not in _FILLERS:
            named.is_bare = False
    return named


def _hands_over(sentence: str, named: _Named) -> bool:
    if not named.things or sentence.rstrip().endswith("?") or _REFUSAL.search(sentence):
        return False
    has_phrase = _HERE.search(sentence) or (_HANDING.search(sentence) and not _WISH.search(sentence))
    return bool(has_phrase) or (named.is_bare and bool(named.counts))


def parse_reply(reply: str) -> ParsedReply:
    """Parse a reply of the assistant.

    Numbers may be words or digits; prices are skipped. A sentence hands something over if it is neither a question nor
    a refusal, names a thing, and either contains a phrase of handing over (``here are``, `I will get you`) or has no
    other content. Everything named in such sentences counts as handed over.

    >>> parsed = parse_reply("Sure! Here are 3 red apples for you. That will be 2 euros.")
    >>> parsed.hands_over, set(parsed.counts), set(parsed.qualities), set(parsed.things)
    (True, {3}, {'red'}, {'apple'})
    >>> parse_reply("Which colour would you like?").asks_quality
    True
    """
    total, hands_over, asks_count, asks_quality = _Named(), False, False, False
    text = reply.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for sentence in _SENTENCE.findall(text):
        plain = _ASIDE.sub(" ", sentence)
        named = _read(_WORD.findall(plain))
        is_choice = sentence.rstrip().endswith("?") and " or " in sentence
        is_question_of_count = bool(_ASKS_COUNT.search(sentence)) or (is_choice and len(named.counts) > 1)
        is_question_of_quality = bool(_ASKS_QUALITY.search(sentence)) or (is_choice and len(named.qualities) > 1)
        asks_count |= is_question_of_count
        asks_quality |= is_question_of_quality
        if not (is_question_of_count or is_question_of_quality) and _hands_over(plain, named):
            hands_over = True
            total.counts |= named.counts
            total.qualities |= named.qualities
            total.things |= named.things
    return ParsedReply(
        hands_over=hands_over,
        counts=frozenset(total.counts),
        qualities=frozenset(total.qualities),
        things=frozenset(total.things),
        asks_count=asks_count,
        asks_quality=asks_quality,
        offers_more=bool(_OFFERS_MORE.search(text)),
    )
