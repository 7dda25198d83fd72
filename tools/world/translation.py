"""Pairs of an English and a French sentence from the facts of a scene, by a synchronous grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from world.facts import Character, Facts, build_facts
from world.french import FLUENT, Habits, Things, agree, at_place, finish, participle, person
from world.grammar import article, capitalise
from world.scene import stable_rng
from world.vocabulary import NUMBERS, Spot, adjectives, check_level, weathers, words

Pair = tuple[str, str]
"""The same phrase in English and in French."""


class Writer:
    """Phrases from the facts of one scene, in both languages; nouns have at most `max_adjectives`, 0 to 2."""

    def __init__(self, facts: Facts, rng: Random, habits: Habits, max_adjectives: int) -> None:
        self.facts, self.rng, self.habits = facts, rng, habits
        self.max_adjectives = max_adjectives
        self.hero, self.friend = facts.hero, facts.friend
        self.errand, self.other = facts.errand, facts.other

    def who(self, *characters: Character) -> Pair:
        """Return one or two names."""
        names = [person(character, self.habits) for character in characters]
        return " and ".join(character.name for character in characters), " et ".join(names)

    def things(self, determiner: str = "number", *, of_friend: bool = False, plain: bool = False) -> Pair:
        """Return the object of an errand; without adjectives if `plain`."""
        errand = self.other if of_friend else self.errand
        most = 0 if plain else self.max_adjectives
        colour = errand.colour if most else ""
        quality = errand.quality if most > bool(colour) else ""
        phrase = Things(errand.thing, errand.count, determiner, quality, colour)
        noun = " ".join(word for word in (quality, colour, errand.thing.english(errand.count)) if word)
        start = article(noun)
        if phrase.is_plural:
            start = {"number": NUMBERS[errand.count], "none": "any"}.get(determiner, "some")
        if determiner == "the":
            start = "the"
        return f"{start} {noun}", phrase.french(self.habits)

    def place(self, spot: Spot, relation: str) -> Pair:
        """Return `at the market` or `to the market`."""
        return spot.english(relation), at_place(spot, relation, self.habits)

    def did(self, *, of_friend: bool = False) -> Pair:
        """Return the verb of an errand in the past."""
        deed = (self.other if of_friend else self.errand).deed
        return deed.past, self.auxiliary("a", deed.participle)

    def auxiliary(self, verb: str, done: str) -> str:
        """Return a participle with its auxiliary, `a acheté`."""
        return f"{verb} {done}" if self.habits.uses_auxiliaries else done

    def went(self, *characters: Character) -> Pair:
        """Return the verb `go` in the past for these subjects."""
        are_all_female = all(character.is_female for character in characters)
        ending = participle("allé", are_all_female, len(characters) > 1, self.habits)
        return "went", self.auxiliary("sont" if len(characters) > 1 else "est", ending)

    def felt(self, character: Character, feeling: str) -> Pair:
        """Return a subject with its feeling."""
        english, french = self.who(character)
        return f"{english} was {feeling}", f"{french} était {self.adjective(feeling, character.is_female, False)}"

    def adjective(self, word: str, is_feminine: bool, is_plural: bool) -> str:
        """Return the French form of an adjective."""
        return agree(adjectives()[word], is_feminine, is_plural, self.habits)

    def he(self, character: Character) -> Pair:
        """Return the pronoun of the subject."""
        return character.he, "elle" if character.is_female else "il"

    def close(self, english: str, french: str) -> Pair:
        """Return complete sentences."""
        return capitalise(english) + ".", finish(french, self.habits) + "."


@dataclass(frozen=True)
class SentencePair:
    """An English sentence and its French translation."""

    english: str
    """The sentence to translate, 3 to 14 words."""
    french: str
    """Its translation."""
    level: int
    """1 subject, verb, object; 2 with number, adjective, place or time; 3 two clauses, a question or a negation."""

    def __iter__(self) -> Iterator[str]:
        """Unpack as (english, french)."""
        return iter((self.english, self.french))


def _sentence(writer: Writer, *parts: Pair | str) -> Pair:
    """Join pairs, and strings of the form `english/french`, to a sentence."""
    pairs = [tuple(part.split("/")) if isinstance(part, str) else part for part in parts]
    english, french = (" ".join(pair[side] for pair in pairs if pair[side]) for side in (0, 1))
    return writer.close(english.replace(" ,", ","), french.replace(" ,", ","))


def _past(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), w.did(), w.things("a", plain=True))


def _past_definite(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), w.did(), w.things("the", plain=True))


def _likes(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), "likes/aime", w.things("the", plain=w.rng.random() < 0.5))


def _has(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), "has/a", w.things("a", plain=w.rng.random() < 0.5))


def _wants(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), "wants/veut", w.things("the", plain=w.rng.random() < 0.5))


def _went(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), w.went(w.hero), w.place(w.errand.place, "to"))


def _was(w: Writer) -> Pair:
    return w.close(*w.felt(w.hero, w.facts.feeling))


def _is_so(w: Writer) -> Pair:
    errand = w.errand
    word = errand.colour or errand.quality or "beautiful"
    form = w.adjective(word, errand.thing.is_feminine, errand.count > 1)
    verb = "are/sont" if errand.count > 1 else "is/est"
    return _sentence(w, w.things("the", plain=True), verb, (word, form))


def _deed_at(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), w.did(), w.things(), w.place(w.errand.place, w.errand.deed.relation))


def _deed_on_day(w: Writer) -> Pair:
    day = w.facts.weekday
    return _sentence(w, (f"on {day},", f"{words('weekday')[day]},"), w.who(w.hero), w.did(), w.things())


def _deed_in_the_morning(w: Writer) -> Pair:
    when = (f"on {w.facts.weekday}", words("weekday")[w.facts.weekday])
    if w.facts.daypart in words("daypart"):
        when = (f"{when[0]} {w.facts.daypart}", f"{when[1]} {words('daypart')[w.facts.daypart]}")
    return _sentence(w, w.who(w.hero), w.did(), w.things("the"), when)


def _went_with(w: Writer) -> Pair:
    return _sentence(w, w.who(w.hero), w.went(w.hero), w.place(w.errand.place, "to"), "with/avec", w.who(w.friend))


def _both_went(w: Writer) -> Pair:
    day = w.facts.weekday
    return _sentence(
        w,
        w.who(w.hero, w.friend),
        w.went(w.hero, w.friend),
        w.place(w.errand.place, "to"),
        (f"on {day}", words("weekday")[day]),
    )


def _both_did(w: Writer) -> Pair:
    deed = w.errand.deed
    return _sentence(w, w.who(w.hero, w.friend), (deed.past, w.auxiliary("ont", deed.participle)), w.things())


def _gave(w: Writer) -> Pair:
    if w.errand.thing.tags & {"sight", "animal"}:
        return _deed_at(w)
    return _sentence(w, w.who(w.hero), ("gave", w.auxiliary("a", "donné")), w.things(), "to/à", w.who(w.friend))


def _there_were(w: Writer) -> Pair:
    verb = "there were" if w.errand.count > 1 else "there was"
    return _sentence(w, (verb, "il y avait"), w.things(), w.place(w.errand.place, "at"))


def _did_not(w: Writer) -> Pair:
    return _negated(w, "the")


def _did_not_any(w: Writer) -> Pair:
    return _negated(w, "none")


def _negated(w: Writer, determiner: str) -> Pair:
    deed = w.errand.deed
    french = w.auxiliary(f"{'ne ' if w.habits.writes_ne else ''}a pas", deed.participle)
    if not w.habits.uses_auxiliaries:
        french = f"pas {deed.participle}"
    english = f"did not {deed.verb}"
    return _sentence(w, w.who(w.hero), (english, french), w.things(determiner), w.place(w.errand.place, deed.relation))


def _does_not_like(w: Writer) -> Pair:
    french = "ne aime pas" if w.habits.writes_ne else "aime pas"
    return _sentence(w, w.who(w.hero), ("does not like", french), w.things("the"))


def _question(w: Writer) -> Pair:
    did, (object_en, object_fr) = w.did(), w.things("the")
    who, place = w.who(w.hero), w.place(w.errand.place, w.errand.deed.relation)
    english = f"did {who[0]} {w.errand.deed.verb} {object_en} {place[0]}?"
    return capitalise(english), finish(f"est-ce que {who[1]} {did[1]} {object_fr} {place[1]}?", w.habits)


def _where(w: Writer) -> Pair:
    did, (object_en, object_fr), who = w.did(), w.things("the"), w.who(w.hero)
    english = f"where did {who[0]} {w.errand.deed.verb} {object_en}?"
    return capitalise(english), finish(f"où est-ce que {who[1]} {did[1]} {object_fr}?", w.habits)


def _because(w: Writer) -> Pair:
    feeling = "sad" if w.other.deed.verb == "lose" else w.rng.choice(("happy", "surprised"))
    felt = w.felt(w.hero, feeling)
    return _sentence(
        w, felt, "because/parce que", w.who(w.friend), w.did(of_friend=True), w.things("a", of_friend=True, plain=True)
    )  # fmt: skip


def _but(w: Writer) -> Pair:
    return _sentence(
        w,
        w.who(w.hero),
        "wanted/voulait",
        w.things(),
        ", but/, mais",
        w.who(w.friend),
        ("found", w.auxiliary("a", "trouvé")),
        w.things(of_friend=True, plain=True),
    )


def _and_then(w: Writer) -> Pair:
    who, went, he = w.who(w.hero), w.went(w.hero), w.he(w.hero)
    return _sentence(w, who, went, w.place(w.errand.place, "to"), "and/et", he, w.did(), w.things())


def _so(w: Writer) -> Pair:
    sky = weathers()[w.facts.weather]
    is_fine, is_outside = w.facts.weather in ("sunny", "warm", "hot"), "out" in w.errand.place.tags
    link = ", so/, alors" if is_fine == is_outside else ", but/, mais" if is_outside else "and/et"
    return _sentence(w, sky, link, w.who(w.hero), w.went(w.hero), w.place(w.errand.place, "to"))


def _that(w: Writer) -> Pair:
    errand = w.errand
    deed, thing, is_plural = errand.deed, errand.thing, errand.count > 1
    word = errand.colour or errand.quality or "beautiful"
    done = participle(deed.participle, thing.is_feminine, is_plural, w.habits)
    adjective = (word, w.adjective(word, thing.is_feminine, is_plural))
    english, french = w.who(w.hero)
    clause = (f"that {english} {deed.past}", f"que {french} {w.auxiliary('a', done)}")
    return _sentence(w, w.things("the", plain=True), clause, "are/sont" if is_plural else "is/est", adjective)


PATTERNS: dict[int, tuple[Callable[[Writer], Pair], ...]] = {
    1: (_past, _past_definite, _likes, _has, _wants, _went, _was, _is_so),
    2: (_deed_at, _deed_on_day, _deed_in_the_morning, _went_with, _both_went, _both_did, _gave, _there_were),
    3: (_did_not, _did_not_any, _does_not_like, _question, _where, _because, _but, _and_then, _so, _that),
}


def sentence_pair(seed: int, index: int, level: int, habits: Habits = FLUENT) -> SentencePair:
    """Return sentence number `index` of a level with its translation.

    Other habits than the default add mistakes to the same French sentence.

    Raises:
        ValueError: If level is not 1, 2 or 3.

    >>> english, french = sentence_pair(7, 1, 2)
    """
    check_level(level)
    rng = stable_rng(seed, index, 4, level)
    pattern = rng.choice(PATTERNS[level])
    writer = Writer(build_facts(seed, index), rng, habits, max_adjectives=2 if level == 2 else 1)
    return SentencePair(*pattern(writer), level)
