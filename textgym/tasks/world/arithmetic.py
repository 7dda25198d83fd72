"""Word problems with numbers up to twenty, from the facts of a scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from textgym.tasks.world.facts import Facts
from textgym.tasks.world.grammar import capitalise
from textgym.tasks.world.vocabulary import Thing, spots, things

MAX_RESULT = 20


@dataclass(frozen=True)
class Problem:
    """A sum or a difference in words."""

    passage: str
    """One or two sentences, numbers in digits."""
    question: str
    """Asks for the result."""
    numbers: tuple[int, ...]
    """The numbers told."""
    result: int
    """0 to 20."""
    kind: str
    """`sum` or `difference`."""


def _some(number: int, thing: Thing) -> str:
    return f"{number} {thing.english(number)}"


def _given(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    hero, friend = facts.hero, facts.friend
    passage = f"{capitalise(hero.name)} has {_some(a, thing)}. {friend.name} gives {hero.him} {b} more."
    return Problem(passage, f"How many {thing.plural} does {hero.name} have now?", (a, b), a + b, "sum")


def _taken(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a = rng.randint(3, MAX_RESULT)
    b = rng.randint(1, a)
    hero, he = facts.hero, capitalise(facts.hero.he)
    loss = rng.choice((f"gives {b} to {facts.friend.name}", f"loses {b} of them"))
    if "food" in thing.tags or "cake" in thing.tags:
        loss = rng.choice((loss, f"eats {b} of them"))
    passage = f"{capitalise(hero.name)} has {_some(a, thing)}. {he} {loss}."
    return Problem(passage, f"How many {thing.plural} are left?", (a, b), a - b, "difference")


def _together(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    passage = f"{capitalise(facts.hero.name)} has {_some(a, thing)}. {facts.friend.name} has {b}."
    return Problem(passage, f"How many {thing.plural} do they have together?", (a, b), a + b, "sum")


def _two_places(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    first, second = rng.sample([spot.english("at") for spot in spots()], 2)
    passage = f"{capitalise(facts.hero.name)} saw {_some(a, thing)} {first} and {b} {second}."
    return Problem(passage, f"How many {thing.plural} did {facts.hero.name} see?", (a, b), a + b, "sum")


def _more_than(facts: Facts, thing: Thing, rng: Random) -> Problem:
    b = rng.randint(1, 10)
    a = b + rng.randint(1, 10)
    hero, friend = facts.hero, facts.friend
    passage = f"{capitalise(hero.name)} has {_some(a, thing)}. {friend.name} has {b}."
    question = f"How many more {thing.plural} does {hero.name} have than {friend.name}?"
    return Problem(passage, question, (a, b), a - b, "difference")


def _colours(facts: Facts, thing: Thing, rng: Random) -> Problem:
    if len(thing.colours) < 2:
        return _together(facts, thing, rng)
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    first, second = rng.sample(thing.colours, 2)
    name = facts.hero.name
    passage = f"{capitalise(name)} has {a} {first} {thing.english(a)} and {b} {second} {thing.english(b)}."
    return Problem(passage, f"How many {thing.plural} does {name} have?", (a, b), a + b, "sum")


PROBLEMS: tuple[Callable[[Facts, Thing, Random], Problem], ...] = (
    _given, _taken, _together, _two_places, _more_than, _colours, _taken,
)  # fmt: skip


def problem(facts: Facts, rng: Random) -> Problem:
    """Return a word problem about the hero and the friend."""
    tell = rng.choice(PROBLEMS)
    can_be_owned = [thing for thing in things() if not thing.tags & {"sight", "animal"}]
    return tell(facts, rng.choice(things() if tell is _two_places else can_be_owned), rng)
