"""The plots of the world, read from the text files of this folder.

A file is a list of plots. `plot NAME` begins one; `key value` lines follow. `start`, `trouble`, `good` and `bad` may
repeat, one variant each; a line that begins with a space continues the line above. A variant may begin with labels,
such as `[sand wave]`: two labelled variants fit together if they share a label; one without labels fits every other.
A kind of hero, daypart, season, weather or tone in these brackets is a condition on the scene: `[child winter]`. `mild`
there marks a trouble without strong reactions.
`is WORDS` and `not WORDS` add and remove conditions for the general sentences of phrases.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from world.grammar import parse

__all__ = ["Plot", "all_plots", "read_plots"]

_VARIANTS = ("start", "trouble", "good", "bad")
_FACTS = (
    "topic", "cast", "named", "tie", "friend", "where", "when", "season", "weather", "tone", "voice", "goal", "luck",
    "plain", "mild", "is", "not",
)  # fmt: skip
_CONDITIONS = tuple(
    frozenset(words.split())
    for words in (
        "child adult beast",
        "morning afternoon evening night",
        "spring summer autumn winter",
        "sunny warm hot rainy windy foggy cloudy cold snowy stormy",
        "glad low calm",
    )
)
_LABELLED = re.compile(r"^(?:\[([a-z ]+)\] )?(.*)$")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot: beginning, trouble and possible ends."""

    name: str
    """Unique name."""
    facts: dict[str, str] = field(default_factory=dict)
    """Settings by key, such as `topic`, `where` and `goal`."""
    start: tuple[str, ...]
    """Patterns of the beginning."""
    trouble: tuple[str, ...]
    """Patterns of the trouble; may be empty."""
    good: tuple[str, ...]
    """Patterns of a happy turn and end."""
    bad: tuple[str, ...]
    """Patterns of an unhappy turn and end; may be empty."""
    labels: dict[str, frozenset[str]] = field(default_factory=dict)
    """Labels and conditions of the patterns that have some."""

    def fact(self, key: str, default: str) -> str:
        """Return a setting."""
        return self.facts.get(key, default)

    def is_set(self, key: str) -> bool:
        """Return whether the plot sets a key to `yes`."""
        return self.facts.get(key) == "yes"

    def chains(self, outcome: str, facts: frozenset[str]) -> list[tuple[str, str, str]]:
        """Return the triples of start, trouble and turn that fit together and hold in a scene with these facts."""
        starts, troubles, turns = (
            [pattern for pattern in patterns if self._holds(pattern, facts)]
            for patterns in (self.start, self.trouble or ("",), self.good if outcome == "good" else self.bad)
        )
        return [
            (start, trouble, turn)
            for start in starts
            for trouble in troubles
            for turn in turns
            if self._fit(start, trouble) and self._fit(trouble, turn) and self._fit(start, turn)
        ]

    def _holds(self, pattern: str, facts: frozenset[str]) -> bool:
        asked = self.labels.get(pattern, frozenset())
        return all(facts & asked & group for group in _CONDITIONS if asked & group)

    def _fit(self, one: str, other: str) -> bool:
        labels = [self.labels.get(pattern, frozenset()).difference(*_CONDITIONS, ("mild",)) for pattern in (one, other)]
        return not all(labels) or bool(labels[0] & labels[1])


def _build(name: str, entries: list[tuple[str, str]]) -> Plot:
    labelled = [(key, *_LABELLED.findall(value)[0]) for key, value in entries if key in _VARIANTS]
    labels = {pattern: frozenset(words.split()) for _, words, pattern in labelled if words}
    variants = {key: tuple(pattern for found, _, pattern in labelled if found == key) for key in _VARIANTS}
    facts = {key: value for key, value in entries if key in _FACTS}
    unknown = {key for key, _ in entries} - set(_VARIANTS) - set(_FACTS)
    if unknown or not variants["start"] or not (variants["good"] or variants["bad"]):
        raise ValueError(f"plot {name!r}: unknown keys {sorted(unknown)}, or no start, or no end")
    for value in (value for values in variants.values() for value in values):
        parse(value)
    return Plot(name=name, facts=facts, labels=labels, **variants)


def read_plots(text: str) -> list[Plot]:
    """Return the plots written in a text.

    Raises:
        ValueError: a line or a plot is malformed.
    """
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, _, value = line.strip().partition(" ")
        if line[0].isspace() and found and found[-1][1]:
            last_key, last_value = found[-1][1][-1]
            found[-1][1][-1] = (last_key, f"{last_value} {line.strip()}")
        elif key == "plot":
            found.append((value, []))
        elif found:
            found[-1][1].append((key, value))
        else:
            raise ValueError(f"line {number} is before the first plot: {line!r}")
    return [_build(name, entries) for name, entries in found]


@cache
def all_plots() -> dict[str, Plot]:
    """Return every plot by name, in a fixed order."""
    folder = resources.files(__package__)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".txt"))
    plots = [plot for name in names for plot in read_plots(folder.joinpath(name).read_text(encoding="utf-8"))]
    return {plot.name: plot for plot in plots}
