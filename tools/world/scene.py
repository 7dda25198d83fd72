"""Scenes: people, place, time and plot of a story, drawn by seed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from textgym.scorers.language.story_words import word_lists
from world.grammar import SLOT
from world.plots import Plot, all_plots
from world.vocabulary import Place, classes, places

WOMEN, MEN, SURNAMES = (word_lists()[title] for title in ("women", "men", "surnames"))
_TRADES, BEASTS = (word_lists()[title] for title in ("trades", "animals"))
JOBS = {"she": (*_TRADES, "doctor", "nurse"), "he": (*_TRADES, "fisherman", "postman")}
CHILD_TIES = {
    "she": ("sister", "best friend", "cousin", "friend", "mother", "grandmother", "aunt", "teacher", "neighbour"),
    "he": ("brother", "best friend", "cousin", "friend", "father", "grandfather", "uncle", "teacher", "neighbour"),
}
ADULT_TIES = {
    "she": ("sister", "friend", "old friend", "wife", "daughter", "neighbour", "mother"),
    "he": ("brother", "friend", "old friend", "husband", "son", "neighbour", "father"),
}
CHILDREN_TIES = ("sister", "brother", "best friend", "cousin", "friend")
UNNAMED_TIES = {"mother": "Mum", "father": "Dad", "grandmother": "Grandma", "grandfather": "Grandpa"}
TRAITS = ("old", "young", "quiet", "tall", "small", "busy", "shy", "clever", "careful")
BEAST_TRAITS = ("old", "young", "quiet", "busy", "shy", "clever", "careful")
ADULT_TRAITS = ("old", "young", "quiet", "tall", "busy", "clever")
FORMS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself", "theirs": "hers"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself", "theirs": "his"},
    "I": {"he": "I", "him": "me", "his": "my", "himself": "myself", "theirs": "mine"},
}


@dataclass(frozen=True)
class Person:
    """A person of a scene, or an animal of a fable."""

    name: str
    """Name after the first mention: `Nadia`, `the baker`."""
    pronoun: str
    """`she` or `he`."""
    kind: str
    """`child`, `adult` or `beast`."""
    trait: str
    """An adjective."""
    tie: str = ""
    """Relation to the hero, such as `brother`; empty for the hero."""

    @property
    def call(self) -> str:
        """Form of address."""
        if self.tie in UNNAMED_TIES:
            return UNNAMED_TIES[self.tie]
        return "my friend" if self.name.startswith("the ") else self.name


def cast_hero(kind: str, has_name: bool, rng: Random) -> Person:
    """Draw the main person: `child`, `adult`, `beast`, or `any` of the first two; `has_name` excludes mere trades."""
    pronoun = rng.choice(("she", "he"))
    if kind == "any":
        kind = rng.choice(("child", "adult"))
    if kind == "beast":
        return Person(f"the {rng.choice(BEASTS)}", pronoun, kind, rng.choice(BEAST_TRAITS))
    if kind == "adult" and not has_name and rng.random() < 0.5:
        return Person(f"the {rng.choice(JOBS[pronoun])}", pronoun, kind, rng.choice(ADULT_TRAITS))
    traits = TRAITS if kind == "adult" else TRAITS[2:]
    return Person(rng.choice(WOMEN if pronoun == "she" else MEN), pronoun, kind, rng.choice(traits))


def cast_friend(hero: Person, ties: str, rng: Random) -> Person:
    """Draw a second person, of the other pronoun; `ties` are comma-separated, empty for all that fit."""
    pronoun = "he" if hero.pronoun == "she" else "she"
    if hero.kind == "beast":
        name = rng.choice([f"the {beast}" for beast in BEASTS if f"the {beast}" != hero.name])
        return Person(name, pronoun, "beast", rng.choice(TRAITS), "friend")
    table = CHILD_TIES if hero.kind == "child" else ADULT_TIES
    wanted = ties.replace("_", " ").split(",") if ties else []
    fitting = [tie for tie in table[pronoun] if tie in wanted] or ([] if wanted else list(table[pronoun]))
    tie = rng.choice(fitting or ["friend"])
    kind = "child" if hero.kind == "child" and tie in CHILDREN_TIES else "adult"
    if tie in ("neighbour", "teacher"):
        name = ("Mrs " if pronoun == "she" else "Mr ") + rng.choice(SURNAMES)
    else:
        name = rng.choice(WOMEN if pronoun == "she" else MEN)
    return Person(name, pronoun, kind, rng.choice(TRAITS), tie)


SEASONS = {
    "spring": (("March", "April", "May"), ("sunny", "warm", "rainy", "windy", "cloudy", "foggy")),
    "summer": (("June", "July", "August"), ("sunny", "sunny", "warm", "hot", "rainy", "stormy")),
    "autumn": (("September", "October", "November"), ("sunny", "rainy", "windy", "foggy", "cloudy", "cold", "stormy")),
    "winter": (("December", "January", "February"), ("snowy", "snowy", "cold", "cloudy", "windy", "sunny")),
}
_CLEAR = ("sunny", "warm", "hot")
DAYPARTS = ("morning", "morning", "afternoon", "afternoon", "evening")
_THIRD_PERSON = re.compile(r"\b([Tt]hey|[Tt]hem|[Tt]heir|[Bb]oth|each other|Gof|gof)\b")
_LONG_AFTER = re.compile(
    r"\b(next|later|weeks?|months?|years?|spring|winter|morning|night|tomorrow|since|(n?ever|every|life|always|again)"
    r"|days|midnight|from (then|that)|long time)\b"
)
_JOY = re.compile(r"\b(happy|happily|happiest|proud|proudly|glad|joy|best)\b")
_WEATHER = re.compile(
    r"\b(rain|rained|snow|snowed|storm|stormy|sun|thunder|wind|fog|clouds?|sky|stars?|moon|wet)\b", re.I
)
_MASK = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All facts of a story."""

    plot: str
    """Name of the plot."""
    topic: str
    """Topic of the plot, such as `sea` or `friendship`."""
    hero: Person
    """The main person."""
    friend: Person | None
    """The second person, if the plot has one."""
    first_person: bool
    """Whether the hero is the narrator."""
    place: Place
    """The place."""
    season: str
    """`spring`, `summer`, `autumn` or `winter`."""
    month: str
    """A month of the season."""
    daypart: str
    """`morning`, `afternoon`, `evening` or `night`."""
    weather: str
    """An adjective that fits the season."""
    tone: str
    """Initial mood of the hero: `glad`, `low`, `calm`, or `none` where the plot states it."""
    goal: str
    """Pattern of the hero's goal, an infinitive without `to`."""
    start: str
    """Pattern of the beginning."""
    trouble: str
    """Pattern of the obstacle; empty where there is none."""
    turn: str
    """Pattern of the turn and the end."""
    outcome: str
    """`good` or `bad`."""
    things: tuple[tuple[str, str], ...]
    """Words of the plot's slots, such as `("fruit", "plums")`."""
    has_company: bool
    """Whether the friend is present from the beginning."""
    mild: bool
    """Whether strong reactions to the trouble are left out."""
    plain: bool
    """Whether general sentences are left out (letters, diaries, dreams)."""
    conditions: frozenset[str]
    """Words that hold of the scene; a general sentence states in brackets which of them it presupposes."""


def stable_rng(*numbers: int) -> Random:
    """Return a platform-independent random generator seeded by the numbers (splitmix64 steps)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return Random(state)


def draw_thing(slot: str, taken: dict[str, str], rng: Random) -> str:
    """Return a word for a slot such as `fruit2`, different from those of other slots of its class."""
    kind = slot.rstrip("0123456789")
    used = {word for other, word in taken.items() if other.rstrip("0123456789") == kind}
    return rng.choice([word for word in classes()[kind] if word not in used])


def _things(patterns: tuple[str, ...], rng: Random) -> tuple[tuple[str, str], ...]:
    taken: dict[str, str] = {}
    for name in (found.lower() for pattern in patterns for found in SLOT.findall(pattern)):
        if name not in taken and name.rstrip("0123456789") in classes():
            taken[name] = draw_thing(name, taken, rng)
    return tuple(taken.items())


def _fitting_places(plot: Plot) -> list[Place]:
    where = plot.fact("where", "town nature").replace("_", " ")
    named = [place for place in places() if place.name in where.split(",")]
    return named or [place for place in places() if place.tags & set(where.split())]


def _fitting_weather(plot: Plot, skies: tuple[str, ...]) -> list[str]:
    allowed = plot.fact("weather", "").split()
    return [sky for sky in skies if not allowed or sky in allowed] or allowed


def _conditions(
    plot: Plot,
    hero: Person,
    friend: Person | None,
    place: Place,
    daypart: str,
    weather: str,
    patterns: tuple[str, str, str],
) -> frozenset[str]:
    """Return the words that hold of a scene; `is` and `not` of the plot add and remove some."""
    start, trouble, turn = patterns
    slots = set(SLOT.findall(start.lower()))
    near = plot.fact("friend", "near") == "near"
    found = {
        "day": daypart in ("morning", "afternoon"),
        "dark": daypart in ("evening", "night") and weather in _CLEAR,
        "fair": weather not in ("rainy", "stormy", "foggy"),
        "roofs": "nature" not in place.tags and "water" not in place.tags,
        "alone": not _needs_friend((start,)),
        "there": bool(slots & {"at", "to", "go", "gof", "glimpse"}),
        "going": bool(slots & {"to", "go"}),
        "no_weather": not _WEATHER.search(f"{start} {trouble} {turn}") and not slots & {"go", "gof", "sky"},
        "same_day": not _LONG_AFTER.search(turn),
        "laughter": "laugh" in turn,
        "anger": _needs_friend((trouble,)),
        "but": turn.startswith("But "),
        "joy": not _JOY.search(turn),
        "calm_friend": near and not _needs_friend((trouble,)),
        "friend_stays": near and (_needs_friend((turn,)) or bool(_THIRD_PERSON.search(turn))),
        "friends": friend is not None and friend.tie in ("friend", "cousin", "neighbour") and "friend" not in turn,
    }  # fmt: skip
    usual = {"ordinary", "quiet", "still", "food", "home", "struggle"}
    words = {hero.kind, daypart, weather, place.name.replace(" ", "_"), *place.tags, *usual}
    words |= {word for word, holds in found.items() if holds} | set(plot.fact("is", "").split())
    return frozenset(words - set(plot.fact("not", "").split()))


def _needs_friend(patterns: tuple[str, ...]) -> bool:
    names = {name.lower() for pattern in patterns for name in SLOT.findall(pattern)}
    return bool(
        names & {"f", "f2", "fs", "fn", "fhe", "fhim", "fhis", "fhimself", "fcall", "fnew", "fgirl", "tie", "gof"}
    )


def build_scene(seed: int, index: int) -> Scene:
    """Return scene number `index` of the world with this seed."""
    rng = stable_rng(seed, index, 1)
    plot = rng.choice(list(all_plots().values()))
    season = rng.choice(plot.fact("season", "").split() or list(SEASONS))
    months, skies = SEASONS[season]
    weather = rng.choice(_fitting_weather(plot, skies))
    outcome = "good" if plot.good and (not plot.bad or rng.random() < float(plot.fact("luck", "0.52"))) else "bad"
    tone = rng.choice(plot.fact("tone", "glad low calm").split())
    hero = cast_hero(plot.fact("cast", "any"), plot.is_set("named"), rng)
    daypart = rng.choice(plot.fact("when", "").split() or DAYPARTS)
    facts = frozenset((hero.kind, daypart, season, weather, tone))
    start, trouble, turn = rng.choice(plot.chains(outcome, facts))
    patterns = (start, trouble, turn, plot.fact("goal", ""))
    may_be_narrator = hero.kind != "beast" and not _THIRD_PERSON.search(" ".join(patterns))
    voice = plot.fact("voice", "any" if may_be_narrator else "he")
    friend = cast_friend(hero, plot.fact("tie", ""), rng) if _needs_friend(patterns) else None
    is_narrator = voice == "I" or (voice == "any" and rng.random() < 0.15)
    place = rng.choice(_fitting_places(plot))
    month = rng.choice(months)
    return Scene(
        plot=plot.name,
        topic=plot.fact("topic", ""),
        hero=hero,
        friend=friend,
        first_person=is_narrator,
        place=place,
        season=season,
        month=month,
        daypart=daypart,
        weather=weather,
        tone=tone,
        goal=plot.fact("goal", ""),
        start=start,
        trouble=trouble,
        turn=turn,
        outcome=outcome,
        things=_things(patterns, rng),
        has_company=_needs_friend((start,)) and plot.fact("friend", "near") == "near",
        mild=plot.is_set("mild") or "mild" in plot.labels.get(trouble, ()),
        plain=plot.is_set("plain"),
        conditions=_conditions(plot, hero, friend, place, daypart, weather, (start, trouble, turn)),
    )
