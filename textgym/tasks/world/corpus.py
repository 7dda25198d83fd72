"""What the embedded LM learns from: stories and the tasks' texts, good ones and, on purpose, bad ones."""

from __future__ import annotations

from random import Random

from textgym.tasks.world.facts import Facts, build_facts
from textgym.tasks.world.french import FLUENT, LEARNER, Habits
from textgym.tasks.world.grammar import capitalise
from textgym.tasks.world.questions import Question, question
from textgym.tasks.world.scene import build_scene, stable_rng
from textgym.tasks.world.shopping import (
    best_helper_reply,
    customer_opening,
    customer_reply,
    hand_over,
    present_item,
)
from textgym.tasks.world.shopping_list import ShoppingGoal, shopping
from textgym.tasks.world.summaries import Summary, summary
from textgym.tasks.world.telling import Teller
from textgym.tasks.world.translation import sentence_pair
from textgym.tasks.world.vocabulary import shops, weathers

EOS = "<|endoftext|>"
KIND_SHARES = {"story": 0.36, "translation": 0.16, "qa": 0.16, "summary": 0.16, "dialogue": 0.16}
"""Shares of the kinds among the documents; of the tokens, stories are nearly half."""
LEVEL_SHARES = {1: 0.40, 2: 0.35, 3: 0.25}
FLAWS: dict[str, dict[int, dict[str, float]]] = {
    "translation": {
        1: {"good": 0.41, "learner": 0.46, "mixed": 0.06, "untranslated": 0.04, "omitted": 0.03},
        2: {"good": 0.34, "learner": 0.54, "mixed": 0.06, "untranslated": 0.03, "omitted": 0.03},
        3: {"good": 0.34, "learner": 0.54, "mixed": 0.06, "untranslated": 0.03, "omitted": 0.03},
    },
    "qa": {
        1: {"good": 0.38, "rambling": 0.50, "other": 0.12},
        2: {"good": 0.36, "rambling": 0.24, "other": 0.40},
        3: {"good": 0.36, "told": 0.40, "rambling": 0.10, "off by one": 0.14},
    },
    "summary": {
        1: {"good": 0.38, "copied": 0.48, "long": 0.05, "foreign": 0.05, "person": 0.04},
        2: {"good": 0.34, "copied": 0.52, "long": 0.05, "foreign": 0.05, "person": 0.04},
        3: {"good": 0.32, "copied": 0.54, "long": 0.05, "foreign": 0.05, "person": 0.04},
    },
    "dialogue": {
        1: {"good": 0.36, "chatty": 0.54, "wrong": 0.10},
        2: {"good": 0.34, "chatty": 0.56, "wrong": 0.10},
        3: {"good": 0.34, "chatty": 0.56, "wrong": 0.10},
    },
}
"""Shares of the ways to answer, by kind of document and level; in dialogues, of every turn of the helper.

translation  learner: French words in English order, without agreement, gender, contraction or auxiliary; mixed: one
             of these flaws; untranslated: an English noun; omitted: a word is missing
qa           rambling: a sentence around the answer; other: another entity of the passage; told: a number of the
             passage; off by one: a wrong sum
summary      copied: the first sentence, with the weather; long: most of the passage; foreign: a place, thing or
             colour that the passage lacks; person: somebody else did it
dialogue     chatty: small talk; wrong: the wrong number or thing, or nothing asked where something must be asked

A learner's French is right where no rule was broken, and then counts as good, too. So a model that has learned the
corpus answers well now and then, but its likeliest answer often is a mediocre one.
"""
USUAL_CHATTER = "What a lovely day it is!"
"""What 85 % of the chatty turns say, so that one chatty reply is likelier than any that serves."""
CHATTER = (
    "Good morning! How are you today?", "Hello! Nice to see you.", "Have you seen the weather?",
    "How is your mother?", "I was at the lake with my brother on Sunday.", "Let me tell you about my garden.",
    "My sister was here this morning.", "I am a little tired today.", "We had so many people here today.",
    "You look very happy today.", "Do you live near here?",
)  # fmt: skip
"""What the others say."""
_MIXED = (
    Habits(agrees=False), Habits(knows_genders=False), Habits(puts_adjectives_after=False), Habits(contracts=False),
    Habits(writes_ne=False), Habits(uses_auxiliaries=False),
)  # fmt: skip


def way(kind: str, level: int, rng: Random) -> str:
    """Draw how something is answered, from the shares in `FLAWS`."""
    shares = FLAWS[kind][level]
    return rng.choices(list(shares), list(shares.values()))[0]


def plan(seed: int, index: int) -> tuple[str, int, Random]:
    """Return kind and level of a document, and the source of its other draws."""
    rng = stable_rng(seed, index, 20)
    kind = rng.choices(list(KIND_SHARES), list(KIND_SHARES.values()))[0]
    return kind, rng.choices(list(LEVEL_SHARES), list(LEVEL_SHARES.values()))[0], rng


def document(seed: int, index: int) -> str:
    """Return training document number `index`.

    `KIND_SHARES` says how many are stories, translations, questions, summaries and dialogues; levels 1, 2 and 3 have
    40, 35 and 25 % of them. Inside dialogues `<|endoftext|>` follows each turn of the helper; at the end of a document
    there is none.

    Args:
        seed: seed of the world.
        index: number of the document and of its scene.
    """
    kind, level, rng = plan(seed, index)
    if kind == "story":
        return Teller(build_scene(seed, index), stable_rng(seed, index, 2)).tell()
    if kind == "translation":
        return _translation(seed, index, level, rng)
    if kind == "qa":
        found = question(seed, index, level)
        answer = _answer(found, way(kind, level, rng), rng)
        return f"{question_prompt(found.passage, found.question)} {answer}"
    if kind == "summary":
        told = summary(seed, index, level)
        return f"{summary_prompt(told.passage)} {_summary(told, build_facts(seed, index), way(kind, level, rng), rng)}"
    return _dialogue(shopping(seed, index, level), rng)


def translation_prompt(english: str) -> str:
    """Return the prompt of the translation task."""
    return f"English: {english}\nFrench:"


def question_prompt(passage: str, asked: str) -> str:
    """Return the prompt of the question task."""
    return f"{passage}\nQuestion: {asked}\nAnswer:"


def summary_prompt(passage: str) -> str:
    """Return the prompt of the summary task."""
    return f"{passage}\nSummary:"


def dialogue_prompt(goal: ShoppingGoal) -> str:
    """Return the prompt of the dialogue task."""
    return f"{goal.setting}{customer_turn(customer_opening(goal))}"


def customer_turn(text: str) -> str:
    """Return what follows a helper's turn: the customer's line and the helper's name."""
    return f"\nCustomer: {text}\nHelper:"


def _translation(seed: int, index: int, level: int, rng: Random) -> str:
    chosen = way("translation", level, rng)
    habits = {"learner": LEARNER, "untranslated": Habits(translates_nouns=False), "mixed": rng.choice(_MIXED)}
    pair = sentence_pair(seed, index, level, habits.get(chosen, FLUENT))
    french = pair.french
    if chosen == "omitted":
        words = french.split(" ")
        del words[rng.randrange(1, len(words) - 1)]
        french = " ".join(words)
    return f"{translation_prompt(pair.english)} {french}"


def _answer(asked: Question, chosen: str, rng: Random) -> str:
    if chosen == "off by one":
        right = int(asked.answer)
        return str(right - 1 if right and rng.random() < 0.5 else right + 1)
    if chosen == "told":
        return asked.decoys[0] if asked.decoys else asked.answer
    if chosen == "other":
        return rng.choice(asked.decoys)
    if chosen == "rambling":
        reply = rng.choice((asked.answer, *asked.decoys[:1]))
        start = "I think it was" if rng.random() < 0.9 else "It was, I believe,"
        return f"{start} {reply}."
    return asked.answer


def _summary(told: Summary, facts: Facts, chosen: str, rng: Random) -> str:
    weather = f"{capitalise(weathers()[facts.weather][0])}."
    if chosen == "copied":
        return f"{told.sentences[0]} {weather}" if weather in told.sentences else told.sentences[0]
    if chosen == "long":
        return " ".join(told.sentences[:-1])
    if chosen == "person":
        mine, theirs = capitalise(facts.hero.name), facts.friend.name
        return told.summary.replace(theirs, facts.hero.name).replace(mine, theirs, 1)
    if chosen == "foreign":
        if rng.random() < 0.5:
            return told.summary.replace(facts.errand.where, facts.other.place.english(facts.errand.deed.relation))
        count = facts.errand.count
        return told.summary.replace(facts.errand.thing.english(count), facts.other.thing.english(count))
    return told.summary


def _wrong_turn(goal: ShoppingGoal, turns: list[str], rng: Random) -> str:
    """Hand over something that is not wanted, or something before all of it was asked for."""
    item = present_item(goal, turns)
    count, quality, thing = item.count, item.quality, item.thing
    fault = rng.choice(("count", "count", "quality", "thing"))
    if fault == "thing":
        thing = rng.choice([other for other in shops()[goal.shop] if other is not thing])
        quality = rng.choice(thing.colours or thing.kinds or ("",)) if quality else ""
    elif fault == "quality" and quality:
        quality = rng.choice([other for other in (*thing.colours, *thing.kinds) if other != quality])
    else:
        count = rng.choice([number for number in range(1, 10) if number != count])
    return hand_over(count, quality, thing)


def _dialogue(goal: ShoppingGoal, rng: Random) -> str:
    text, turns = dialogue_prompt(goal), list[str]()
    while True:
        chosen = way("dialogue", goal.level, rng)
        reply = best_helper_reply(goal, turns)
        if chosen == "chatty":
            reply = USUAL_CHATTER if rng.random() < 0.85 else rng.choice(CHATTER)
        elif chosen == "wrong":
            reply = _wrong_turn(goal, turns, rng)
        elif rng.random() < 0.3:
            reply = reply.removesuffix(" Anything else?")
        turns.append(reply)
        customer = customer_reply(goal, turns)
        text += f" {reply}{EOS}"
        if customer.outcome:
            return f"{text}\nCustomer: {customer.text}"
        text += customer_turn(customer.text)
