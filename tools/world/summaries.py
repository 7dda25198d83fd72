"""Passages with a one-sentence summary, from the facts of a scene, and named entities of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from world.facts import Errand, Facts, build_facts
from world.grammar import capitalise
from world.scene import MEN, WOMEN, stable_rng
from world.vocabulary import check_level, spots, things, trades, weathers

GLIMPSES = {
    "out": (
        "A bird sat in a tree.", "Two dogs ran past.", "A cat slept on a wall.", "A horse looked over a fence.",
        "A dog barked behind a wall.", "Some children had a ball.",
    ),
    "in": (
        "A clock struck ten.", "An old dog slept by the door.", "Somebody dropped a book.", "A lamp hung by the door.",
    ),
}  # fmt: skip
"""Irrelevant sentences, for outdoor and indoor places."""


@dataclass(frozen=True)
class Entities:
    """Named entities of a text, in their dictionary form."""

    names: frozenset[str]
    """First names and trades, such as `Nadia` and `baker`."""
    places: frozenset[str]
    """Known places."""
    things: frozenset[str]
    """Known things, in the singular."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A passage and its summary in one sentence."""

    passage: str
    """3, 4 or 5 to 6 sentences at levels 1, 2 and 3; at 2 and 3 with irrelevant details."""
    summary: str
    """One sentence of at most 14 words: person, action, place, outcome."""
    level: int
    """1, 2 or 3."""
    entities: Entities
    """Named entities of the passage."""
    sentences: tuple[str, ...]
    """The sentences of the passage."""
    details: tuple[str, ...]
    """Its irrelevant sentences."""


@cache
def _dictionary() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    forms = {name: ("names", name) for name in (*WOMEN, *MEN, *trades())}
    forms |= {spot.name: ("places", spot.name) for spot in spots()}
    for thing in things():
        forms |= {thing.singular: ("things", thing.singular), thing.plural: ("things", thing.singular)}
    return re.compile(r"\b(?:" + "|".join(map(re.escape, forms)) + r")\b"), forms


def entities(text: str) -> Entities:
    """Return the known names, places and things in a text.

    >>> found = entities("Nadia bought two red scarves at the market.")
    >>> sorted(found.names), sorted(found.places), sorted(found.things)
    (['Nadia'], ['market'], ['scarf'])
    """
    pattern, forms = _dictionary()
    found: dict[str, set[str]] = {"names": set(), "places": set(), "things": set()}
    for match in pattern.finditer(text):
        kind, word = forms[match.group()]
        found[kind].add(word)
    return Entities(frozenset(found["names"]), frozenset(found["places"]), frozenset(found["things"]))


def _plain(errand: Errand) -> Errand:
    return replace(errand, quality="") if errand.colour else errand


def _ending(facts: Facts, errand: Errand, rng: Random) -> tuple[str, str]:
    """Return the last sentence of level 3 and the last clause of its summary."""
    friend, hero = facts.friend, facts.hero
    them = "it" if errand.count == 1 else "them"
    if errand.deed.verb == "lose":
        return f"In the end {friend.name} found {them}.", f", but {friend.name} found {them}"
    if errand.deed.verb in ("buy", "find", "draw", "bring") and rng.random() < 0.6:
        return f"Later {hero.he} gave {them} to {friend.name}.", f" and gave {them} to {friend.name}"
    if errand.deed.verb == "see":
        return f"Later {hero.he} showed {them} to {friend.name}.", f" and showed {them} to {friend.name}"
    if errand.deed.verb == "eat":
        return f"Then {friend.name} joined {hero.him}.", f", and {friend.name} joined {hero.him}"
    if errand.deed.verb == "hide":
        return f"In the end {friend.name} found {them}.", f", and {friend.name} found {them}"
    return f"{friend.name} came and helped {hero.him}.", f", and {friend.name} helped {hero.him}"


def _passage(facts: Facts, level: int, rng: Random) -> tuple[list[str], list[str], str]:
    """Return the sentences, the irrelevant ones among them, and the summary."""
    hero, errand = facts.hero, _plain(facts.errand)
    name, he = capitalise(hero.name), capitalise(hero.he)
    sky = capitalise(weathers()[facts.weather][0])
    going = f"{name} went to the {errand.place.name} on {facts.weekday}."
    deed = f"{he} {errand.deed.past} {errand.object}{' there' if errand.deed.relation == 'to' else ''}."
    core = f"{name} {errand.deed.past} {errand.object} {errand.where}"
    feeling = rng.choice((f"In the end {hero.he} was {facts.feeling}.", f"{he} went home and was {facts.feeling}."))
    if level == 1:
        if rng.random() < 0.5:
            going = f"{sky}, and {hero.name} went to the {errand.place.name}."
        return [going, deed, feeling], [], f"{core} and was {facts.feeling}."
    weather = f"{sky}."
    if level == 2:
        has_company = rng.random() < 0.6
        going = going.replace(f" on {facts.weekday}", f" with {facts.friend.name}") if has_company else going
        company = f" with {facts.friend.name}" if has_company else ""
        return [going, weather, deed, feeling], [weather], f"{core}{company} and was {facts.feeling}."
    glimpse = rng.choice(GLIMPSES["out" if "out" in errand.place.tags else "in"])
    last, clause = _ending(facts, errand, rng)
    sentences, details = [going, weather, deed, glimpse, last], [weather, glimpse]
    if rng.random() < 0.4:
        details.append(f"It was {rng.choice(('late', 'still early', 'a long day'))}.")
        sentences.insert(2, details[-1])
    return sentences, details, f"{core}{clause}."


def summary(seed: int, index: int, level: int) -> Summary:
    """Return passage number `index` of a level with its summary.

    Raises:
        ValueError: If level is not 1, 2 or 3.

    >>> len(summary(7, 1, 2).sentences)
    4
    """
    check_level(level)
    sentences, details, text = _passage(build_facts(seed, index), level, stable_rng(seed, index, 6, level))
    passage = " ".join(sentences)
    return Summary(
        passage=passage,
        summary=text,
        level=level,
        entities=entities(passage),
        sentences=tuple(sentences),
        details=tuple(details),
    )
