"""Expansion of text patterns.

A pattern is English with `(this|that|)` for a free choice, which may nest, and `{slot}` for a word that a function
fills in. A slot whose name starts with a capital is capitalised: `{he}` gives `she`, `{He}` gives `She`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

SLOT = re.compile(r"\{([A-Za-z_]+[0-9]?)\}")
_MARK = re.compile(r"[(|)]|\{[A-Za-z_]+[0-9]?\}")
_ARTICLE = re.compile(r"\b([Aa])n?(?= (\w+))")
_AN_DESPITE_CONSONANT = ("hour", "honest", "heir")
_A_DESPITE_VOWEL = ("one", "once", "uni", "use", "usu", "europe")
_SENTENCE_START = re.compile(r'(^"?|[.!?] "?|[.]" "?|: ")([a-z])')


@dataclass(frozen=True)
class Slot:
    """A placeholder."""

    name: str


@dataclass(frozen=True)
class Choice:
    """Alternatives, each a sequence of nodes."""

    options: tuple[tuple[Node, ...], ...]


Node = str | Slot | Choice


@cache
def parse(pattern: str) -> tuple[Node, ...]:
    """Return the nodes of a pattern.

    Raises:
        ValueError: a bracket is unbalanced or a brace does not hold a slot name.
    """
    stack: list[list[list[Node]]] = [[[]]]
    position = 0

    def literal(text: str) -> None:
        if "{" in text or "}" in text:
            raise ValueError(f"a brace that holds no slot name in pattern {pattern!r}")
        if text:
            stack[-1][-1].append(text)

    for mark in _MARK.finditer(pattern):
        literal(pattern[position : mark.start()])
        position = mark.end()
        token = mark.group()
        if token == "(":
            stack.append([[]])
        elif token[0] == "{":
            stack[-1][-1].append(Slot(token[1:-1]))
        elif len(stack) == 1:
            raise ValueError(f"{token!r} outside brackets in pattern {pattern!r}")
        elif token == "|":
            stack[-1].append([])
        else:
            options = stack.pop()
            stack[-1][-1].append(Choice(tuple(tuple(option) for option in options)))
    literal(pattern[position:])
    if len(stack) != 1:
        raise ValueError(f"an open bracket in pattern {pattern!r}")
    return tuple(stack[0][0])


def expand(pattern: str, fill: Callable[[str], str], rng: Random) -> str:
    """Return a pattern with choices drawn and slots filled, from left to right."""

    def walk(nodes: tuple[Node, ...]) -> str:
        parts = []
        for node in nodes:
            if isinstance(node, str):
                parts.append(node)
            elif isinstance(node, Slot):
                parts.append(fill(node.name))
            else:
                parts.append(walk(rng.choice(node.options)))
        return "".join(parts)

    return walk(parse(pattern))


def article(word: str) -> str:
    """Return the indefinite article before a word.

    >>> article("owl"), article("hour"), article("useful")
    ('an', 'an', 'a')
    """
    lowered = word.lower()
    if lowered.startswith(_AN_DESPITE_CONSONANT):
        return "an"
    if lowered.startswith(_A_DESPITE_VOWEL):
        return "a"
    return "an" if lowered[0] in "aeiou" else "a"


def capitalise(text: str) -> str:
    """Return the text with its first letter in upper case and the rest as it was."""
    return text[:1].upper() + text[1:]


def polish(text: str) -> str:
    """Normalise spaces, indefinite articles and capitals at the starts of sentences.

    After `?"` and `!"` nothing is capitalised, since `she asked` may follow.

    >>> polish('a owl saw  a ant. it said, "eat!" and flew.')
    'An owl saw an ant. It said, "eat!" and flew.'
    """
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" +([,.!?])", r"\1", text)
    text = _ARTICLE.sub(lambda match: match.group(1) + article(match.group(2))[1:], text)
    return _SENTENCE_START.sub(lambda match: match.group(1) + match.group(2).upper(), text)
