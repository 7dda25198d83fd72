"""Surface realisation of a scene as a story: order of sentences, names and pronouns, free choices of words.

Slots of the patterns, besides the word classes of lexicon.txt and the purposes of phrases.txt:
`h` the hero, by name or pronoun; `ho` the same as an object, `hs` with 's, `hn` always by name; `he him his himself`
pronouns of the hero; `f` and `F` the second person, at first with the tie to the hero; `fs`, `fhe` and so on likewise;
`f2` the same as the first word of a story; `fnew` and `fgirl` a person whom the hero meets; `fcall` and `call` how they
address each other; `time place at to view glimpse sky weather season month daypart` the setting.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from random import Random

from world.grammar import capitalise, expand, polish
from world.scene import FORMS, UNNAMED_TIES, Person, Scene, build_scene, draw_thing, stable_rng
from world.vocabulary import classes, read_lines

_TIMES = (
    "one {weather} {daypart}",
    "one {weather} {daypart}",
    "one {daypart} in {month}",
    "on {weekday} {daypart}",
    "on a {weather} {daypart} in {season}",
    "late one {daypart}",
    "last {weekday}",
)
_FEELING = {"glad": 0.75, "calm": 0.5, "low": 0.45, "none": 0.0}
_NOUNS = {"child": {"she": "girl", "he": "boy"}, "adult": {"she": "woman", "he": "man"}, "beast": {}}
_NIGHT_TIMES = (
    "one night",
    "late at night",
    "in the middle of the night",
    "one {weather} night",
    "one night in {month}",
)


@cache
def phrases() -> dict[str, tuple[tuple[str, frozenset[str]], ...]]:
    """Return the general sentences by purpose, each with its conditions; `!word` is a condition that must not hold."""
    found: dict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for line in read_lines("phrases.txt"):
        key, _, pattern = line.partition(": ")
        purpose, _, conditions = key.removesuffix("]").partition("[")
        found[purpose].append((pattern, frozenset(conditions.split())))
    return {purpose: tuple(patterns) for purpose, patterns in found.items()}


class Realiser:
    """State of the realisation of one scene."""

    def __init__(self, scene: Scene, rng: Random) -> None:
        self.scene = scene
        self.rng = rng
        self.things = dict(scene.things)
        self.known: set[str] = set()
        self.focus = ""
        self.used: set[str] = set()

    def text(self) -> str:
        """Return the story, one paragraph."""
        scene, rng = self.scene, self.rng
        patterns = [scene.start]
        if rng.random() < 0.15 and scene.hero.kind != "beast" and not scene.first_person and not scene.plain:
            patterns = [self._phrase("who"), *patterns]
        if rng.random() < _FEELING[scene.tone]:
            patterns += [self._phrase(scene.tone)]
            if rng.random() < 0.1:
                patterns += [self._phrase(scene.tone)]
        if rng.random() < 0.2 and not scene.plain and "no_weather" in scene.conditions:
            patterns += ["{Sky}"]
        if scene.trouble:
            patterns += [scene.trouble, *self._reaction()]
        patterns += [scene.turn]
        if rng.random() < 0.4 and not scene.plain:
            patterns += [self._phrase("cheer" if scene.outcome == "good" else "sorrow")]
        if scene.first_person:
            patterns = [pattern.replace("{H} and {f}", "{F} and I") for pattern in patterns]
            patterns = [pattern.replace("{h} and {f}", "{f} and I") for pattern in patterns]
        return polish(" ".join(expand(pattern, self.fill, rng) for pattern in patterns if pattern))

    def _reaction(self) -> list[str]:
        if self.scene.plain or not self.scene.trouble:
            return []
        found = [self._phrase("hurt")] if self.rng.random() < 0.6 and not self.scene.mild else []
        if self.rng.random() < 0.4 and not self.scene.turn.startswith("But"):
            found.append(self._phrase("rise" if self.scene.outcome == "good" else "fall"))
        return found

    def _phrase(self, purpose: str) -> str:
        """Return a fresh sentence whose conditions hold, also one about the friend; empty if there is none."""
        scene = self.scene
        options = list(phrases()[purpose])
        if scene.has_company and not scene.first_person:
            options += phrases().get(f"{purpose}f", ())
        fresh = [
            pattern
            for pattern, conditions in options
            if pattern not in self.used
            and all((word.lstrip("!") in scene.conditions) != word.startswith("!") for word in conditions)
        ]
        if not fresh:
            return ""
        chosen = self.rng.choice(fresh)
        self.used.add(chosen)
        return chosen

    def fill(self, slot: str) -> str:
        """Return the words for a slot."""
        lowered = slot[0].lower() + slot[1:]
        if slot in ("F", "H"):
            lowered += "subject"
        text = self._fill(lowered)
        return capitalise(text) if slot[0].isupper() else text

    def _fill(self, slot: str) -> str:
        scene = self.scene
        forms = FORMS["I" if scene.first_person else scene.hero.pronoun]
        if slot in ("h", "hsubject", "hs", "hn", "ho"):
            return self._hero(slot)
        if slot in forms:
            self.focus = "hero"
            return forms[slot]
        if slot in ("f", "fsubject", "f2", "fs", "fnew", "fgirl", "tie", "fcall") or slot[1:] in forms:
            return self._friend(slot)
        if slot in _FACTS:
            return str(_FACTS[slot](scene))
        if slot == "time":
            options = _NIGHT_TIMES if scene.daypart == "night" else _TIMES
            return expand(self.rng.choice(options), self.fill, self.rng)
        if slot in phrases() or slot == "sky":
            weather = "dark" if "dark" in scene.conditions else scene.weather
            purpose = f"sky.{weather}" if slot == "sky" else slot
            return expand(self._phrase(purpose), self.fill, self.rng)
        if slot.rstrip("0123456789") not in classes():
            raise ValueError(f"unknown slot {slot!r} in plot {scene.plot!r}")
        if slot not in self.things:
            self.things[slot] = draw_thing(slot, self.things, self.rng)
        return self.things[slot]

    def _hero(self, slot: str) -> str:
        scene, hero = self.scene, self.scene.hero
        if scene.first_person:
            self.known.add("hero")
            return {"hs": "my", "ho": "me"}.get(slot, "I")
        if "hero" not in self.known:
            self.known.add("hero")
            self.focus = "hero"
            return _introduced(hero, slot == "hsubject", self.rng) + ("'s" if slot == "hs" else "")
        likely = 0.75 if self.focus == "hero" else 0.0 if hero.kind == "beast" else 0.8 if slot == "ho" else 0.4
        self.focus = "hero"
        if slot != "hn" and self.rng.random() < likely:
            return FORMS[hero.pronoun][{"hs": "his", "ho": "him"}.get(slot, "he")]
        return hero.name + ("'s" if slot == "hs" else "")

    def _friend(self, slot: str) -> str:
        scene, friend = self.scene, self.scene.friend
        if friend is None:
            raise ValueError(f"slot {slot!r} in plot {scene.plot!r}, which has no second person")
        forms = FORMS[friend.pronoun]
        if slot == "fcall":
            return friend.call
        if slot == "fgirl":
            return _NOUNS["child"][friend.pronoun]
        if slot == "fnew" and "friend" not in self.known:
            self.known.add("friend")
            self.focus = "friend"
            return f"a {friend.name[4:]}" if friend.kind == "beast" else friend.name
        if slot[1:] in forms:
            self.focus = "friend"
            return forms[slot[1:]]
        owner = FORMS["I" if scene.first_person else scene.hero.pronoun]["his"]
        if "hero" not in self.known and not scene.first_person:
            owner = self._hero("hn") + "'s"
        tie = f"{owner} {friend.tie}"
        if slot == "tie":
            return tie
        ending = "'s" if slot == "fs" else ""
        unnamed = friend.tie in UNNAMED_TIES
        if "friend" not in self.known:
            self.known.add("friend")
            self.focus = "friend"
            return (tie if unnamed else f"{tie} {friend.name}") + ending
        likely = 0.6 if self.focus == "friend" and friend.kind != "beast" and slot == "fsubject" else 0.0
        self.focus = "friend"
        if self.rng.random() < likely:
            return forms["he"]
        return (tie if unnamed else friend.name) + ending


def _introduced(hero: Person, is_subject: bool, rng: Random) -> str:
    if hero.name.startswith("the "):
        return f"{rng.choice(('the', 'a')) if is_subject else 'the'} {hero.trait} {hero.name[4:]}"
    if is_subject and rng.random() < 0.1:
        return f"a {rng.choice(('', hero.trait + ' '))}{_NOUNS[hero.kind][hero.pronoun]} called {hero.name}"
    return hero.name


_FACTS = {
    "call": lambda scene: scene.hero.call,
    "place": lambda scene: f"the {scene.place.name}",
    "at": lambda scene: f"{scene.place.preposition} the {scene.place.name}",
    "to": lambda scene: f"to the {scene.place.name}",
    "to2": lambda scene: f"for the {scene.place.name}",
    "view": lambda scene: scene.place.view,
    "glimpse": lambda scene: scene.place.glimpse,
    "hcall": lambda scene: "old friend" if scene.hero.name.startswith("the ") else scene.hero.name,
    "daypart": lambda scene: scene.daypart,
    "season": lambda scene: scene.season,
    "month": lambda scene: scene.month,
    "weather": lambda scene: (
        "clear" if scene.daypart in ("evening", "night") and scene.weather == "sunny" else scene.weather
    ),
    "trait": lambda scene: scene.hero.trait,
    "woman": lambda scene: _NOUNS[scene.hero.kind].get(scene.hero.pronoun, "friend"),
    "girl": lambda scene: "girl" if scene.hero.pronoun == "she" else "boy",
    "creature": lambda scene: _NOUNS[scene.hero.kind].get(scene.hero.pronoun, scene.hero.name.removeprefix("the ")),
}


def realise(scene: Scene, variant: int = 0) -> str:
    """Return the text of a scene; another variant has the same facts in other words."""
    return Realiser(scene, stable_rng(variant, 2)).text()


def story(seed: int, index: int) -> str:
    """Return story number `index` of the world with this seed: one paragraph of about 50 to 150 words."""
    return Realiser(build_scene(seed, index), stable_rng(seed, index, 2)).text()
