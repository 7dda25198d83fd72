"""Words of the world, read from the text files of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from textgym.tasks.words import NUMBERS as NUMBERS


@dataclass(frozen=True)
class Place:
    """A place of the stories."""

    name: str
    """Noun, used with `the`."""
    preposition: str
    """`at`, `in` or `on`."""
    tags: frozenset[str]
    """Kinds of place, such as `town` or `water`."""
    view: str
    """A sight there."""
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


LEVELS = (1, 2, 3)
"""Levels of difficulty, the easiest first."""
FRENCH_NUMBERS = (
    "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze",
    "treize", "quatorze", "quinze", "seize", "dix-sept", "dix-huit", "dix-neuf", "vingt",
)  # fmt: skip
"""French numerals, 0 to 20."""


@dataclass(frozen=True)
class Thing:
    """A countable noun."""

    singular: str
    """English singular."""
    plural: str
    """English plural."""
    french: str
    """French singular."""
    french_plural: str
    """French plural."""
    is_feminine: bool
    """Grammatical gender in French."""
    tags: frozenset[str]
    """Kinds of thing and shops that sell it, such as `food` and `market`."""
    colours: tuple[str, ...]
    """Possible English colours; may be empty."""
    kinds: tuple[str, ...]
    """Kinds sold by a bakery, such as `lemon` for cakes; empty for other things."""

    def english(self, count: int) -> str:
        """Return the singular for 1, else the plural."""
        return self.singular if count == 1 else self.plural


@dataclass(frozen=True)
class Spot:
    """A place of the tasks, in both languages."""

    name: str
    """English noun, used with `the`."""
    preposition: str
    """English `at`, `in` or `on`."""
    french: str
    """French noun."""
    is_feminine: bool
    """Grammatical gender in French."""
    french_at: str
    """French preposition of rest: `à`, `dans` or `sur`."""
    french_to: str
    """French preposition of direction."""
    tags: frozenset[str]
    """Kinds of place: `shop`, `bakery`, `out` or `in`."""

    def english(self, relation: str) -> str:
        """Return `at the market`, `in the park`; with relation `to`, `to the market`."""
        return f"{'to' if relation == 'to' else self.preposition} the {self.name}"


@dataclass(frozen=True)
class Deed:
    """A verb with an object, and the things and places that it applies to."""

    verb: str
    """English infinitive."""
    past: str
    """English past tense."""
    french: str
    """French present tense, third person singular."""
    french_plural: str
    """French present tense, third person plural."""
    participle: str
    """French past participle, masculine singular; all of these verbs take `avoir`."""
    relation: str
    """`at` for an action in a place, `to` for one that takes something there."""
    things: frozenset[str]
    """Tags of possible objects."""
    places: frozenset[str]
    """Tags of possible places."""


@dataclass(frozen=True)
class Adjective:
    """An adjective in both languages."""

    word: str
    """English."""
    forms: tuple[str, ...]
    """French: masculine, feminine, their plurals, and the masculine before a vowel (where the word may stand there)."""
    stands_before: bool
    """Whether it precedes the noun in French."""
    things: frozenset[str]
    """Tags of the things that it applies to; empty for colours and feelings."""

    @property
    def is_colour(self) -> bool:
        """Whether it is a colour."""
        return not self.things and len(self.forms) == 5


@cache
def _records(kind: str) -> tuple[tuple[str, ...], ...]:
    lines = (line.split(":", 1) for line in read_lines("bilingual.txt"))
    return tuple(tuple(part.strip() for part in fields.split("|")) for name, fields in lines if name == kind)


@cache
def things() -> tuple[Thing, ...]:
    """Return all things."""
    found = []
    for singular, plural, french, french_plural, gender, tags, variants in _records("thing"):
        names, is_baked = tuple(variants.split()), "bakery" in tags.split()
        colours, kinds = ((), names) if is_baked else (names, ())
        tag_set = frozenset(tags.split())
        found.append(Thing(singular, plural, french, french_plural, gender == "f", tag_set, colours, kinds))
    return tuple(found)


@cache
def spots() -> tuple[Spot, ...]:
    """Return all places."""
    return tuple(
        Spot(name, at, french, gender == "f", french_at, french_to, frozenset(tags.split()))
        for name, at, french, gender, french_at, french_to, tags, _ in _records("place")
    )


@cache
def nearest_spot() -> dict[str, Spot]:
    """Return the place of the tasks that stands for each place of the stories, by name."""
    found: dict[str, Spot] = {}
    for spot, record in zip(spots(), _records("place"), strict=True):
        found |= {name.strip(): spot for name in (spot.name, *record[7].split(",")) if name.strip()}
    return found


@cache
def deeds() -> tuple[Deed, ...]:
    """Return all verbs with an object, one entry per combination."""
    return tuple(
        Deed(verb, past, french, plural, participle, relation, frozenset(with_what.split()), frozenset(where.split()))
        for verb, past, french, plural, participle, relation, with_what, where in _records("verb")
    )


@cache
def adjectives() -> dict[str, Adjective]:
    """Return the adjectives, colours and feelings by English word."""
    found = {
        word: Adjective(word, tuple(forms.split()), place == "before", frozenset(tags.split()))
        for word, forms, place, tags in _records("adjective")
    }
    for word, forms in (*_records("colour"), *_records("feeling")):
        found[word] = Adjective(word, tuple(forms.split()), False, frozenset())
    return found


@cache
def words(kind: str) -> dict[str, str]:
    """Return the English words of the class `weekday` or `daypart` with their French."""
    return {record[0]: record[1] for record in _records(kind)}


@cache
def trades() -> dict[str, tuple[str, bool]]:
    """Return each trade with its French word and whether that is feminine."""
    return {word: (french, gender == "f") for word, french, gender in _records("trade")}


@cache
def weathers() -> dict[str, tuple[str, str]]:
    """Return the sentence for each weather in both languages, without capital and full stop."""
    return {word: (english, french) for word, english, french in _records("weather")}


@cache
def qualities(thing: Thing) -> tuple[Adjective, ...]:
    """Return the adjectives, other than colours, that a thing can have."""
    return tuple(adjective for adjective in adjectives().values() if adjective.things & thing.tags)


@cache
def deeds_at(spot: Spot) -> tuple[Deed, ...]:
    """Return the verbs that apply in a place."""
    return tuple(deed for deed in deeds() if deed.places & spot.tags)


@cache
def things_for(deed: Deed) -> tuple[Thing, ...]:
    """Return the possible objects of a verb."""
    return tuple(thing for thing in things() if deed.things & thing.tags)


@cache
def shops() -> dict[str, tuple[Thing, ...]]:
    """Return shop name -> things sold."""
    return {name: tuple(thing for thing in things() if tag in thing.tags) for name, tag in _records("shop")}


def check_level(level: int) -> None:
    """Raise ValueError for anything but 1, 2 and 3."""
    if level not in LEVELS:
        raise ValueError(f"level must be 1, 2 or 3, got {level!r}")
