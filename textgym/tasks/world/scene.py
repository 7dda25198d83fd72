"""What is the case in a story: who, where, when, what and how it ends. The words come later, in telling.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from textgym.tasks.world.cast import Person, cast_friend, cast_hero
from textgym.tasks.world.grammar import SLOT
from textgym.tasks.world.lexicon import Place, classes, places
from textgym.tasks.world.plots import Plot, all_plots

SEASONS = {
    "spring": (("March", "April", "May"), ("sunny", "warm", "rainy", "windy", "cloudy", "foggy")),
    "summer": (("June", "July", "August"), ("sunny", "sunny", "warm", "hot", "rainy", "stormy")),
    "autumn": (("September", "October", "November"), ("sunny", "rainy", "windy", "foggy", "cloudy", "cold", "stormy")),
    "winter": (("December", "January", "February"), ("snowy", "snowy", "cold", "cloudy", "windy", "sunny")),
}
DAYPARTS = ("morning", "morning", "afternoon", "afternoon", "evening")
_SPEAKS_OF_THEM = re.compile(r"\b([Tt]hey|[Tt]hem|[Tt]heir|[Bb]oth|each other|Gof|gof)\b")
_MASK = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a telling, a question or a summary may refer to."""

    plot: str
    """Name of the plot."""
    topic: str
    """What the plot is about, such as `sea` or `friendship`."""
    hero: Person
    """The person whom the story is about."""
    friend: Person | None
    """The second person, where the plot has one."""
    first_person: bool
    """Whether the hero tells the story."""
    place: Place
    """Where it happens."""
    season: str
    """`spring`, `summer`, `autumn` or `winter`."""
    month: str
    """A month of the season."""
    daypart: str
    """`morning`, `afternoon`, `evening` or `night`."""
    weather: str
    """An adjective that fits the season."""
    tone: str
    """How the hero feels at first: `glad`, `low`, `calm` or `none` where the plot says it itself."""
    goal: str
    """Pattern of what the hero wants, an infinitive without `to`."""
    start: str
    """Pattern of the beginning."""
    trouble: str
    """Pattern of the obstacle; empty where there is none."""
    turn: str
    """Pattern of the turn and the end."""
    outcome: str
    """`good` or `bad`."""
    things: tuple[tuple[str, str], ...]
    """The things that the plot names: slot and word, such as `("fruit", "plums")`."""
    has_company: bool
    """Whether the friend is at the hero's side from the beginning."""
    mild: bool
    """Whether the trouble is too small, or the hero too composed, for tears."""
    plain: bool
    """Whether the plot is told as it stands, without general sentences (letters, diaries, dreams)."""


def stable_rng(*numbers: int) -> Random:
    """Return a generator that depends on the numbers alone, on every machine (splitmix64 steps)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return Random(state)


def draw_thing(slot: str, taken: dict[str, str], rng: Random) -> str:
    """Return a word for a slot such as `fruit2`, another one than the slots of the same class have."""
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
    outcome = "good" if plot.good and (not plot.bad or rng.random() < float(plot.fact("luck", "0.55"))) else "bad"
    tone = rng.choice(plot.fact("tone", "glad low calm").split())
    start = rng.choice(plot.start)
    trouble = rng.choice(plot.trouble) if plot.trouble else ""
    turn = rng.choice(plot.good if outcome == "good" else plot.bad)
    hero = cast_hero(plot.fact("cast", "any"), plot.says("named"), rng)
    patterns = (start, trouble, turn, plot.fact("goal", ""))
    may_say_i = hero.kind != "beast" and not _SPEAKS_OF_THEM.search(" ".join(patterns))
    voice = plot.fact("voice", "any" if may_say_i else "he")
    return Scene(
        plot=plot.name,
        topic=plot.fact("topic", ""),
        hero=hero,
        friend=cast_friend(hero, plot.fact("tie", ""), rng) if _needs_friend(patterns) else None,
        first_person=voice == "I" or (voice == "any" and rng.random() < 0.15),
        place=rng.choice(_fitting_places(plot)),
        season=season,
        month=rng.choice(months),
        daypart=rng.choice(plot.fact("when", "").split() or DAYPARTS),
        weather=weather,
        tone=tone,
        goal=plot.fact("goal", ""),
        start=start,
        trouble=trouble,
        turn=turn,
        outcome=outcome,
        things=_things(patterns, rng),
        has_company=_needs_friend((start,)) and plot.fact("friend", "near") == "near",
        mild=plot.says("mild"),
        plain=plot.says("plain"),
    )
