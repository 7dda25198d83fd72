"""French morphology: agreement, order of adjectives, elision, contraction; optionally with a learner's mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from world.facts import Character
from world.vocabulary import FRENCH_NUMBERS, Adjective, Spot, Thing, adjectives, trades

_ELISION = re.compile(r"\b([LlDdNnJj]e|[Ll]a|[Qq]ue|[Jj]usque) (?=[aeiouâàéèêîôûœAEIOUÉ]|horlog)")
_CONTRACTIONS = tuple(
    (re.compile(rf"\b{apart}\b"), joined)
    for apart, joined in (("à le", "au"), ("à les", "aux"), ("de le", "du"), ("de les", "des"))
)
_VOWELS = "aeiouâàéèêîôûœ"


@dataclass(frozen=True)
class Habits:
    """Rules that a writer of French applies; all by default."""

    agrees: bool = True
    """Whether adjectives and participles agree; otherwise they stay masculine singular."""
    knows_genders: bool = True
    """Whether articles have the right gender; otherwise all are masculine."""
    puts_adjectives_after: bool = True
    """Whether adjectives are in the French position; otherwise before the noun, as in English."""
    contracts: bool = True
    """Whether `à le` becomes `au`."""
    writes_ne: bool = True
    """Whether `ne` precedes a verb with `pas`."""
    uses_auxiliaries: bool = True
    """Whether a participle has its auxiliary."""
    translates_nouns: bool = True
    """Whether nouns are translated."""


FLUENT = Habits()
"""No mistakes."""
LEARNER = Habits(
    agrees=False,
    knows_genders=False,
    puts_adjectives_after=False,
    contracts=False,
    writes_ne=False,
    uses_auxiliaries=False,
)
"""Word-by-word translation."""


def finish(text: str, habits: Habits = FLUENT) -> str:
    """Apply elision and contraction, and capitalise the first letter.

    >>> finish("est-ce que Omar est allé à le marché?")
    "Est-ce qu'Omar est allé au marché?"
    """
    text = _ELISION.sub(lambda match: match.group(1)[:-1] + "'", text)
    if habits.contracts:
        for apart, joined in _CONTRACTIONS:
            text = apart.sub(joined, text)
    return text[:1].upper() + text[1:]


def agree(adjective: Adjective, is_feminine: bool, is_plural: bool, habits: Habits = FLUENT) -> str:
    """Return the form of an adjective for gender and number."""
    return adjective.forms[is_feminine + 2 * is_plural] if habits.agrees else adjective.forms[0]


def participle(base: str, is_feminine: bool, is_plural: bool, habits: Habits = FLUENT) -> str:
    """Return a past participle with its endings; the ones here end in a vowel.

    >>> participle("allé", True, True), participle("vendu", True, False)
    ('allées', 'vendue')
    """
    return base + "e" * is_feminine + "s" * is_plural if habits.agrees else base


def definite(is_feminine: bool, is_plural: bool, habits: Habits = FLUENT) -> str:
    """Return `le`, `la` or `les`; elision comes later, in `finish`."""
    return "les" if is_plural else "la" if is_feminine and habits.knows_genders else "le"


@dataclass(frozen=True)
class Things:
    """A noun phrase."""

    thing: Thing
    """The noun."""
    count: int
    """Number of things; 1 takes the singular."""
    determiner: str
    """`a` (several: `some`), `the`, `number` or `none` (after a negation: `de`)."""
    quality: str = ""
    """English adjective, or empty."""
    colour: str = ""
    """English colour, or empty."""

    @property
    def is_plural(self) -> bool:
        """Whether the noun is in the plural."""
        return self.count != 1

    def french(self, habits: Habits = FLUENT) -> str:
        """Return the French words, before elision and contraction."""
        noun = self.thing.french_plural if self.is_plural else self.thing.french
        if not habits.translates_nouns:
            noun = self.thing.english(self.count)
        found = [adjectives()[word] for word in (self.quality, self.colour) if word]
        before = [item for item in found if item.stands_before or not habits.puts_adjectives_after]
        starts_with_vowel = not self.thing.is_feminine and not self.is_plural and noun[0] in _VOWELS
        parts = [self._french_determiner(bool(before), habits)]
        for item in before:
            is_elided = item is before[-1] and starts_with_vowel and habits.agrees
            parts.append(item.forms[4] if is_elided else agree(item, self.thing.is_feminine, self.is_plural, habits))
        parts.append(noun)
        parts += [agree(item, self.thing.is_feminine, self.is_plural, habits) for item in found if item not in before]
        return " ".join(parts)

    def _french_determiner(self, adjective_follows: bool, habits: Habits) -> str:
        if self.determiner == "the":
            return definite(self.thing.is_feminine, self.is_plural, habits)
        if self.determiner == "none":
            return "de"
        if self.is_plural and self.determiner == "number":
            return FRENCH_NUMBERS[self.count]
        if self.is_plural:
            return "de" if adjective_follows and habits.agrees else "des"
        return "une" if self.thing.is_feminine and habits.knows_genders else "un"


def person(character: Character, habits: Habits = FLUENT) -> str:
    """Return a name, or a trade with its article."""
    if not character.name.startswith("the "):
        return character.name
    french, is_feminine = trades()[character.name[4:]]
    return f"{definite(is_feminine, False, habits)} {french}"


def at_place(spot: Spot, relation: str, habits: Habits = FLUENT) -> str:
    """Return the phrase of a place (relation `at`) or destination (`to`), before contraction."""
    preposition = spot.french_to if relation == "to" else spot.french_at
    return f"{preposition} {definite(spot.is_feminine, False, habits)} {spot.french}"
