"""The parts of a sentence, each in English and in French at once."""

from __future__ import annotations

from random import Random

from textgym.tasks.world.facts import Character, Facts
from textgym.tasks.world.french import Habits, Things, agree, at_place, finish, participle, person
from textgym.tasks.world.grammar import article, capitalise
from textgym.tasks.world.vocabulary import NUMBERS, Spot, adjectives

Pair = tuple[str, str]
"""The same words in English and in French."""


class Writer:
    """Says the facts of one scene in both languages at once.

    Args:
        facts: what is the case.
        rng: source of the free choices; the same one gives the same sentence in other habits.
        habits: how the French is written.
        max_adjectives: how many adjectives a thing may have, 0 to 2.
    """

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
        """Return the things of an errand; `plain` without adjectives."""
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
        """Return a participle with the verb before it, `a acheté`."""
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
        """Return finished sentences."""
        return capitalise(english) + ".", finish(french, self.habits) + "."
