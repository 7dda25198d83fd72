"""Words of the built-in data: things, their kinds, colours and places."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from textgym.errors import unknown_name

__all__ = ["NUMBERS", "Thing", "colours", "find_thing", "nouns", "things"]

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
"""English numerals, 0 to 20."""


@dataclass(frozen=True)
class Thing:
    """A countable noun."""

    singular: str
    """Singular, by which it is known."""
    plural: str
    """Plural."""
    kinds: tuple[str, ...]
    """Kinds sold in a shop, such as ``lemon`` for cakes; empty for things that come in colours."""


@cache
def _words() -> dict[str, Any]:
    text = resources.files("textgym.tasks").joinpath("data", "words.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def things() -> dict[str, Thing]:
    """Return all things by their singular."""
    return {word: Thing(word, plural, tuple(kinds)) for word, (plural, *kinds) in _words()["things"].items()}


def find_thing(singular: str) -> Thing:
    """Return a thing by its singular.

    Raises:
        ValueError: If there is no such thing.

    >>> find_thing("scarf").plural
    'scarves'
    """
    if singular not in things():
        raise unknown_name("thing", singular, things())
    return things()[singular]


@cache
def colours() -> frozenset[str]:
    """Return all colours."""
    return frozenset(_words()["colours"])


@cache
def nouns() -> tuple[str, ...]:
    """Return both forms of every thing, and the places."""
    return (*(form for thing in things().values() for form in (thing.singular, thing.plural)), *_words()["places"])
