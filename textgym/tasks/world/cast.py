"""Who lives in the world: people and animals with a name, a pronoun and ties to each other."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

WOMEN = (
    "Nadia", "Lena", "Rosa", "Mira", "Anna", "Clara", "Ines", "Emma", "Sofia", "Lila", "Amara", "Elsa", "Nora",
    "Ruth", "Priya", "Yuki", "Ada", "Marta", "Zoe", "Maya", "Hana", "Iris",
)  # fmt: skip
MEN = (
    "Tom", "Omar", "Pavel", "Ben", "Hugo", "Leo", "Jonas", "Karim", "Noah", "Ivan", "Samir", "Finn", "Theo",
    "Marco", "Sam", "Emil", "Luca", "Kofi", "Max", "Jan", "Oscar", "Ali",
)  # fmt: skip
SURNAMES = (
    "Lund", "Brown", "Silva", "Novak", "Green", "Haddad", "Moreau", "Wood", "Bell", "Stone",
)  # fmt: skip
_TRADES = ("baker", "teacher", "gardener", "painter", "captain", "shopkeeper", "clockmaker", "farmer")
JOBS = {"she": (*_TRADES, "doctor", "nurse"), "he": (*_TRADES, "fisherman", "postman")}
BEASTS = (
    "fox", "hen", "owl", "mouse", "bear", "frog", "hare", "crow", "tortoise", "hedgehog", "squirrel", "goose",
    "donkey", "cat", "goat", "rabbit", "duck", "badger",
)  # fmt: skip
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
ADULT_TRAITS = ("old", "young", "quiet", "tall", "busy", "clever")
FORMS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself", "theirs": "hers"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself", "theirs": "his"},
    "I": {"he": "I", "him": "me", "his": "my", "himself": "myself", "theirs": "mine"},
}


@dataclass(frozen=True)
class Person:
    """Somebody in a scene; animals of the fables count."""

    name: str
    """How the teller names the person after the first time: `Nadia`, `the baker`, or, for `mother`, nothing."""
    pronoun: str
    """`she` or `he`."""
    kind: str
    """`child`, `adult` or `beast`."""
    trait: str
    """An adjective."""
    tie: str = ""
    """What the person is to the hero, such as `brother`; empty for the hero."""

    @property
    def call(self) -> str:
        """How others address the person."""
        if self.tie in UNNAMED_TIES:
            return UNNAMED_TIES[self.tie]
        return "my friend" if self.name.startswith("the ") else self.name


def cast_hero(kind: str, has_name: bool, rng: Random) -> Person:
    """Draw the person whom the story is about.

    Args:
        kind: `child`, `adult`, `beast` or `any` of the first two.
        has_name: whether a grown-up must have a name of her own; otherwise she may be `the baker`.
        rng: source of the draw.
    """
    pronoun = rng.choice(("she", "he"))
    if kind == "any":
        kind = rng.choice(("child", "adult"))
    if kind == "beast":
        return Person(f"the {rng.choice(BEASTS)}", pronoun, kind, rng.choice(TRAITS))
    if kind == "adult" and not has_name and rng.random() < 0.5:
        return Person(f"the {rng.choice(JOBS[pronoun])}", pronoun, kind, rng.choice(ADULT_TRAITS))
    traits = TRAITS if kind == "adult" else TRAITS[2:]
    return Person(rng.choice(WOMEN if pronoun == "she" else MEN), pronoun, kind, rng.choice(traits))


def cast_friend(hero: Person, ties: str, rng: Random) -> Person:
    """Draw a second person; mostly of the other pronoun, so that `he` and `she` tell them apart.

    Args:
        hero: the first person.
        ties: space-separated ties to draw from (`best_friend` for two words); empty for all that fit the hero.
        rng: source of the draw.
    """
    other = "he" if hero.pronoun == "she" else "she"
    pronoun = other if rng.random() < 0.9 else hero.pronoun
    if hero.kind == "beast":
        name = rng.choice([f"the {beast}" for beast in BEASTS if f"the {beast}" != hero.name])
        return Person(name, other, "beast", rng.choice(TRAITS), "friend")
    table = CHILD_TIES if hero.kind == "child" else ADULT_TIES
    wanted = ties.replace("_", " ").split(",") if ties else []
    fitting = [tie for tie in table[pronoun] if tie in wanted] or ([] if wanted else list(table[pronoun]))
    if not wanted and pronoun == hero.pronoun:
        fitting = [tie for tie in fitting if tie not in ("wife", "husband")]
    tie = rng.choice(fitting or ["friend"])
    kind = "child" if hero.kind == "child" and tie in CHILDREN_TIES else "adult"
    if tie in ("neighbour", "teacher"):
        name = ("Mrs " if pronoun == "she" else "Mr ") + rng.choice(SURNAMES)
    else:
        name = rng.choice([name for name in (WOMEN if pronoun == "she" else MEN) if name != hero.name])
    return Person(name, pronoun, kind, rng.choice(TRAITS), tie)
