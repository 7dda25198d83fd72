"""The things and places of the world, read from the text files beside this module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Place:
    """Somewhere to be."""

    name: str
    """Bare noun, told with `the`."""
    preposition: str
    """`at`, `in` or `on`."""
    tags: frozenset[str]
    """What kind of place it is, such as `town` or `water`."""
    view: str
    """Something to look at there."""
    glimpse: str
    """One neutral sentence about it."""


def read_lines(*path: str) -> list[str]:
    """Return the lines of a text file of this package, without comments and blank lines."""
    text = resources.files(__package__).joinpath(*path).read_text(encoding="utf-8")
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@cache
def classes() -> dict[str, tuple[str, ...]]:
    """Return the word classes by name."""
    pairs = (line.split(":", 1) for line in read_lines("lexicon.txt"))
    return {name.strip(): tuple(word.strip() for word in words.split(",")) for name, words in pairs}


@cache
def places() -> tuple[Place, ...]:
    """Return all places."""
    found = []
    for line in read_lines("places.txt"):
        name, preposition, tags, view, glimpse = (field.strip() for field in line.split("|"))
        found.append(Place(name, preposition, frozenset(tags.split()), view, glimpse))
    return tuple(found)
