"""Passages with a question and its answer, from the facts of a scene; word problems with numbers up to 20."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from world.facts import Character, Errand, Facts, build_facts
from world.grammar import capitalise
from world.scene import stable_rng
from world.vocabulary import NUMBERS, Thing, check_level, spots, things, weathers

MAX_RESULT = 20


@dataclass(frozen=True)
class Problem:
    """A sum or a difference in words."""

    passage: str
    """One or two sentences, numbers in digits."""
    question: str
    """Asks for the result."""
    numbers: tuple[int, ...]
    """Numbers in the passage."""
    result: int
    """0 to 20."""
    kind: str
    """`sum` or `difference`."""


def _some(number: int, thing: Thing) -> str:
    return f"{number} {thing.english(number)}"


def _given(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    hero, friend = facts.hero, facts.friend
    passage = f"{capitalise(hero.name)} has {_some(a, thing)}. {friend.name} gives {hero.him} {b} more."
    return Problem(passage, f"How many {thing.plural} does {hero.name} have now?", (a, b), a + b, "sum")


def _taken(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a = rng.randint(3, MAX_RESULT)
    b = rng.randint(1, a)
    hero, he = facts.hero, capitalise(facts.hero.he)
    loss = rng.choice((f"gives {b} to {facts.friend.name}", f"loses {b} of them"))
    if "food" in thing.tags or "cake" in thing.tags:
        loss = rng.choice((loss, f"eats {b} of them"))
    passage = f"{capitalise(hero.name)} has {_some(a, thing)}. {he} {loss}."
    return Problem(passage, f"How many {thing.plural} are left?", (a, b), a - b, "difference")


def _together(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    passage = f"{capitalise(facts.hero.name)} has {_some(a, thing)}. {facts.friend.name} has {b}."
    return Problem(passage, f"How many {thing.plural} do they have together?", (a, b), a + b, "sum")


def _two_places(facts: Facts, thing: Thing, rng: Random) -> Problem:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    first, second = rng.sample([spot.english("at") for spot in spots()], 2)
    passage = f"{capitalise(facts.hero.name)} saw {_some(a, thing)} {first} and {b} {second}."
    return Problem(passage, f"How many {thing.plural} did {facts.hero.name} see?", (a, b), a + b, "sum")


def _more_than(facts: Facts, thing: Thing, rng: Random) -> Problem:
    b = rng.randint(1, 10)
    a = b + rng.randint(1, 10)
    hero, friend = facts.hero, facts.friend
    passage = f"{capitalise(hero.name)} has {_some(a, thing)}. {friend.name} has {b}."
    question = f"How many more {thing.plural} does {hero.name} have than {friend.name}?"
    return Problem(passage, question, (a, b), a - b, "difference")


def _colours(facts: Facts, thing: Thing, rng: Random) -> Problem:
    if len(thing.colours) < 2:
        return _together(facts, thing, rng)
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    first, second = rng.sample(thing.colours, 2)
    name = facts.hero.name
    passage = f"{capitalise(name)} has {a} {first} {thing.english(a)} and {b} {second} {thing.english(b)}."
    return Problem(passage, f"How many {thing.plural} does {name} have?", (a, b), a + b, "sum")


PROBLEMS: tuple[Callable[[Facts, Thing, Random], Problem], ...] = (
    _given, _taken, _together, _two_places, _more_than, _colours, _taken,
)  # fmt: skip


def problem(facts: Facts, rng: Random) -> Problem:
    """Return a word problem about the hero and the friend."""
    build = rng.choice(PROBLEMS)
    can_be_owned = [thing for thing in things() if not thing.tags & {"sight", "animal"}]
    return build(facts, rng.choice(things() if build is _two_places else can_be_owned), rng)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A passage, a question about it and its only correct answer."""

    passage: str
    """One to four sentences."""
    question: str
    """Ends with a question mark."""
    answer: str
    """1 to 4 words of the passage at levels 1 and 2; a number in digits at level 3."""
    kind: str
    """`who`, `what`, `where`, `when`, `colour`, `count` or `feeling`; at level 3 `sum` or `difference`."""
    level: int
    """1 one person, 2 two persons, 3 arithmetic."""
    decoys: tuple[str, ...]
    """Wrong answers from the passage: of the other person, or its numbers."""


@dataclass(frozen=True)
class _Act:
    """A person with an errand, a day and a feeling: the subject of a question of level 1 or 2."""

    who: Character
    errand: Errand
    day: str
    feeling: str

    def sentence(self) -> str:
        return f"{capitalise(self.who.name)} {self.errand.deed.past} {self.errand.object} {self.errand.where}"

    def answers(self) -> dict[str, str]:
        """Return the answer to each possible kind of question."""
        found = {"who": self.who.name, "what": self.errand.object, "where": self.errand.where}
        found |= {"when": f"on {self.day}", "feeling": self.feeling}
        if self.errand.colour:
            found["colour"] = self.errand.colour
        if self.errand.count > 1:
            found["count"] = NUMBERS[self.errand.count]
        return found

    def ask(self, kind: str) -> str:
        errand, name = self.errand, self.who.name
        noun, verb = errand.thing.english(errand.count), errand.deed.verb
        was = "were" if errand.count > 1 else "was"
        return {
            "who": f"Who {errand.deed.past} {errand.object}?",
            "what": f"What did {name} {verb} {errand.where}?",
            "where": f"Where did {name} {verb} the {noun}?",
            "when": f"When did {name} {verb} the {noun}?",
            "feeling": f"How did {name} feel?",
            "colour": f"What colour {was} the {noun}?",
            "count": f"How many {errand.thing.plural} did {name} {verb}?",
        }[kind]


def _weather(facts: Facts) -> str:
    return capitalise(weathers()[facts.weather][0]) + "."


def _one_person(facts: Facts, rng: Random) -> Question:
    act = _Act(facts.hero, facts.errand, facts.weekday, facts.feeling)
    answers = act.answers()
    kind = rng.choice(list(answers))
    first = act.sentence() + (f" on {act.day}." if kind == "when" or rng.random() < 0.3 else ".")
    ending = f"{capitalise(act.who.he)} was {act.feeling}."
    rest = ending if kind == "feeling" else rng.choice(("", _weather(facts), ending))
    passage = f"{_weather(facts)} {first}" if rest and rest != ending and rng.random() < 0.5 else f"{first} {rest}"
    decoys = tuple(other for name, other in answers.items() if name != kind and other in passage)
    return Question(
        passage=passage.strip(), question=act.ask(kind), answer=answers[kind], kind=kind, level=1, decoys=decoys
    )


def _two_persons(facts: Facts, rng: Random) -> Question:
    acts = [
        _Act(facts.hero, facts.errand, facts.weekday, facts.feeling),
        _Act(facts.friend, replace(facts.other, quality=""), facts.other_weekday, facts.other_feeling),
    ]
    asked, other = acts if rng.random() < 0.5 else acts[::-1]
    answers = asked.answers()
    kind = rng.choice(list(answers))
    sentences = [f"{act.sentence()} on {act.day}." if kind == "when" else f"{act.sentence()}." for act in acts]
    feelings = f"{capitalise(facts.hero.name)} was {facts.feeling}, but {facts.friend.name} was {facts.other_feeling}."
    states_feelings = kind == "feeling" or rng.random() < 0.3
    if not states_feelings or rng.random() < 0.3:
        sentences.insert(rng.randint(0, 2), _weather(facts))
    if states_feelings:
        sentences.append(feelings)
    decoy = other.answers().get(kind)
    if decoy is None and kind == "colour":
        decoy = next(colour for colour in asked.errand.thing.colours if colour != answers[kind])
    return Question(
        passage=" ".join(sentences),
        question=asked.ask(kind),
        answer=answers[kind],
        kind=kind,
        level=2,
        decoys=(decoy or "one",),
    )


def _arithmetic(facts: Facts, rng: Random) -> Question:
    found = problem(facts, rng)
    passage = f"{_weather(facts)} {found.passage}" if rng.random() < 0.2 else found.passage
    decoys = tuple(dict.fromkeys(str(number) for number in found.numbers if number != found.result))
    return Question(
        passage=passage,
        question=found.question,
        answer=str(found.result),
        kind=found.kind,
        level=3,
        decoys=decoys,
    )


def question(seed: int, index: int, level: int) -> Question:
    """Return question number `index` of a level.

    Raises:
        ValueError: If level is not 1, 2 or 3.

    >>> question(7, 1, 3).answer.isdigit()
    True
    """
    check_level(level)
    ask = (_one_person, _two_persons, _arithmetic)[level - 1]
    return ask(build_facts(seed, index), stable_rng(seed, index, 5, level))
