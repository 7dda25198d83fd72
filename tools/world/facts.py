"""Facts of the tasks: two errands (person, verb, object, number, place), times, weather, feelings."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from world.grammar import article
from world.scene import MEN, WOMEN, Person, Scene, build_scene, stable_rng
from world.vocabulary import (
    NUMBERS,
    Deed,
    Spot,
    Thing,
    deeds_at,
    nearest_spot,
    qualities,
    spots,
    things_for,
    trades,
    words,
)

FEELINGS = ("happy", "sad", "tired", "proud", "surprised")
MAX_COUNT = 9
_GLAD_DEEDS = ("buy", "find", "sell", "bring", "draw", "see", "eat")


@dataclass(frozen=True)
class Character:
    """A person of the tasks."""

    name: str
    """First name, or the trade with its article: `Nadia`, `the baker`."""
    is_female: bool
    """Whether the pronoun is `she`."""

    @property
    def he(self) -> str:
        """The pronoun of the subject."""
        return "she" if self.is_female else "he"

    @property
    def him(self) -> str:
        """The pronoun of the object."""
        return "her" if self.is_female else "him"


@dataclass(frozen=True)
class Errand:
    """A verb with its object and place."""

    deed: Deed
    """The verb."""
    thing: Thing
    """The object."""
    count: int
    """Number of objects, 1 to 9."""
    colour: str
    """English colour, or empty."""
    quality: str
    """Another English adjective, or empty."""
    place: Spot
    """Place or destination."""

    @property
    def object(self) -> str:
        """The object in English: `a red hat`, `three old keys`."""
        return noun_phrase(self.thing, self.count, " ".join((self.quality, self.colour)))

    @property
    def where(self) -> str:
        """The place in English: `at the market`, `to the station`."""
        return self.place.english(self.deed.relation)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of the sentences, questions and summaries of one index."""

    scene: Scene
    """The scene of the story with the same seed and index."""
    hero: Character
    """Person of the first errand; the scene's hero if it has a first name or a known trade."""
    friend: Character
    """Person of the second errand; the scene's friend if it has a first name."""
    errand: Errand
    """The hero's errand, at the scene's place or the nearest one of the tasks."""
    other: Errand
    """The friend's errand: another place, number and colour."""
    weekday: str
    """Day of the first errand, in English."""
    other_weekday: str
    """Day of the second errand, another one."""
    daypart: str
    """`morning`, `afternoon`, `evening` or `night`, as in the scene."""
    weather: str
    """As in the scene."""
    feeling: str
    """The hero's final feeling."""
    other_feeling: str
    """The friend's final feeling, another one."""


def noun_phrase(thing: Thing, count: int, modifiers: str = "") -> str:
    """Return an English noun phrase with article or number.

    >>> from world.vocabulary import things
    >>> noun_phrase(things()[0], 1, "old"), noun_phrase(things()[0], 3, "red")
    ('an old apple', 'three red apples')
    """
    noun = " ".join((*modifiers.split(), thing.english(count)))
    return f"{article(noun) if count == 1 else NUMBERS[count]} {noun}"


def _character(person: Person | None, taken: str, is_female: bool, rng: Random) -> Character:
    if person is not None and person.name.startswith("the "):
        found = trades().get(person.name[4:])
        if found and found[1] == (person.pronoun == "she"):
            return Character(person.name, found[1])
    names = WOMEN if is_female else MEN
    if person is not None and person.name in names and person.name != taken:
        return Character(person.name, is_female)
    name = rng.choice(names)
    return Character(name if name != taken else names[(names.index(name) + 1) % len(names)], is_female)


def _errand(place: Spot, wanted: Deed | None, taken: Thing | None, rng: Random) -> Errand:
    """Draw an errand at a place, often with the wanted verb, and with another thing than `taken`."""
    possible = [deed for deed in deeds_at(place) if things_for(deed) != (taken,)]
    deed = wanted if wanted in possible and rng.random() < 0.5 else rng.choice(possible)
    thing = rng.choice([thing for thing in things_for(deed) if thing is not taken])
    count = 1 if rng.random() < 0.35 else rng.randint(2, MAX_COUNT)
    colour = rng.choice(thing.colours) if thing.colours and rng.random() < 0.7 else ""
    fitting = [found for found in qualities(thing) if found.stands_before or not colour]
    quality = rng.choice(fitting).word if fitting and rng.random() < (0.2 if colour else 0.5) else ""
    return Errand(deed, thing, count, colour, quality, place)


def _other_errand(errand: Errand, rng: Random) -> Errand:
    """Draw the friend's errand: another place, thing, number and colour, often the same verb."""
    place = rng.choice([spot for spot in spots() if spot is not errand.place])
    other = _errand(place, errand.deed, errand.thing, rng)
    count = other.count if other.count != errand.count else other.count % MAX_COUNT + 1
    colours = [colour for colour in other.thing.colours if colour != errand.colour]
    colour = other.colour if other.colour != errand.colour else rng.choice(colours or [""])
    quality = "" if colour and colour != other.colour else other.quality
    return Errand(other.deed, other.thing, count, colour, quality, place)


def build_facts(seed: int, index: int) -> Facts:
    """Return the facts for scene number `index` of the world with this seed."""
    scene = build_scene(seed, index)
    rng = stable_rng(seed, index, 3)
    hero = _character(scene.hero, "", scene.hero.pronoun == "she", rng)
    has_female_friend = (scene.friend.pronoun == "she") if scene.friend else rng.random() < 0.5
    errand = _errand(nearest_spot()[scene.place.name], None, None, rng)
    weekday, other_weekday = rng.sample(list(words("weekday")), 2)
    feeling = rng.choice(("happy", "proud", "tired", "surprised", "happy"))
    if errand.deed.verb not in _GLAD_DEEDS:
        feeling = (
            rng.choice(("tired", "sad")) if errand.deed.verb == "lose" else rng.choice(("tired", "happy", "proud"))
        )
    return Facts(
        scene=scene,
        hero=hero,
        friend=_character(
            scene.friend if scene.friend and not scene.friend.name.startswith("the ") else None,
            hero.name,
            has_female_friend,
            rng,
        ),
        errand=errand,
        other=_other_errand(errand, rng),
        weekday=weekday,
        other_weekday=other_weekday,
        daypart=scene.daypart,
        weather=scene.weather,
        feeling=feeling,
        other_feeling=rng.choice([other for other in FEELINGS if other != feeling]),
    )
