"""Short passages with a question and its answer, from the facts of a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from textgym.tasks.world.arithmetic import problem
from textgym.tasks.world.facts import Character, Errand, Facts, build_facts
from textgym.tasks.world.grammar import capitalise
from textgym.tasks.world.scene import stable_rng
from textgym.tasks.world.vocabulary import NUMBERS, check_level, weathers


@dataclass(frozen=True, kw_only=True)
class Question:
    """A passage, a question about it and the only right answer."""

    passage: str
    """One to four sentences."""
    question: str
    """Ends with a question mark."""
    answer: str
    """1 to 4 words; at levels 1 and 2 they stand in the passage, at level 3 they are one number in digits."""
    kind: str
    """`who`, `what`, `where`, `when`, `colour`, `count` or `feeling`; at level 3 `sum` or `difference`."""
    level: int
    """1 one person, 2 two persons, 3 arithmetic."""
    decoys: tuple[str, ...]
    """Wrong answers that the passage suggests: what the other person did, or the numbers told."""


@dataclass(frozen=True)
class _Act:
    """Who did which errand when and felt how: what a question of level 1 or 2 can be about."""

    who: Character
    errand: Errand
    day: str
    feeling: str

    def sentence(self) -> str:
        return f"{capitalise(self.who.name)} {self.errand.deed.past} {self.errand.object} {self.errand.where}"

    def answers(self) -> dict[str, str]:
        """Return the answer for each kind of question that can be asked."""
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
    is_told = kind == "feeling" or rng.random() < 0.3
    if not is_told or rng.random() < 0.3:
        sentences.insert(rng.randint(0, 2), _weather(facts))
    if is_told:
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
    told = problem(facts, rng)
    passage = f"{_weather(facts)} {told.passage}" if rng.random() < 0.2 else told.passage
    decoys = tuple(dict.fromkeys(str(number) for number in told.numbers if number != told.result))
    return Question(
        passage=passage,
        question=told.question,
        answer=str(told.result),
        kind=told.kind,
        level=3,
        decoys=decoys,
    )


def question(seed: int, index: int, level: int) -> Question:
    """Return question number `index` of a level.

    Args:
        seed: seed of the world.
        index: number of the scene.
        level: 1, 2 or 3, see `Question.level`.

    Raises:
        ValueError: there is no such level.

    >>> question(7, 1, 3).answer.isdigit()
    True
    """
    check_level(level)
    ask = (_one_person, _two_persons, _arithmetic)[level - 1]
    return ask(build_facts(seed, index), stable_rng(seed, index, 5, level))
