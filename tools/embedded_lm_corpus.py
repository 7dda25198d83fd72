"""The training corpus of the embedded LM: stories and task texts, many of them flawed on purpose.

A document is a function of the seed of the world and its index. The flaws leave room for reinforcement learning: a
model that has learned the corpus answers correctly now and then, but its most likely answer is often a mediocre one.
"""

from __future__ import annotations

from random import Random

from textgym.tasks import TASKS
from textgym.tasks.shop import (
    Item,
    ShoppingGoal,
    customer_opening,
    customer_reply,
    hand_over,
    optimal_reply,
    present_item,
)
from world.facts import Facts, build_facts
from world.french import FLUENT, LEARNER, Habits
from world.grammar import capitalise
from world.questions import Question, question
from world.realisation import story
from world.scene import stable_rng
from world.shopping import shopping
from world.summaries import Summary, summary
from world.translation import sentence_pair
from world.vocabulary import shops, things, weathers

EOS = "<|endoftext|>"
KIND_SHARES = {"story": 0.42, "translation": 0.13, "qa": 0.22, "summary": 0.13, "dialogue": 0.10}
"""Shares of the documents; three fifths of the tokens belong to stories."""
LEVEL_SHARES = {1: 0.30, 2: 0.35, 3: 0.35}
FLAWS: dict[str, dict[int, dict[str, float]]] = {
    "translation": {
        1: {"good": 0.41, "learner": 0.46, "mixed": 0.06, "untranslated": 0.04, "omitted": 0.03},
        2: {"good": 0.34, "learner": 0.54, "mixed": 0.06, "untranslated": 0.03, "omitted": 0.03},
        3: {"good": 0.34, "learner": 0.54, "mixed": 0.06, "untranslated": 0.03, "omitted": 0.03},
    },
    "qa": {
        1: {"good": 0.38, "rambling": 0.50, "other": 0.12},
        2: {"good": 0.36, "rambling": 0.24, "other": 0.40},
        3: {"good": 0.36, "quoted": 0.40, "rambling": 0.10, "off by one": 0.14},
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
"""Probability of each flaw, by kind of document and level; in dialogues, of each turn of the helper.

| kind | flaw | text |
| --- | --- | --- |
| translation | learner | French words in English order; no agreement, gender, contraction or auxiliary |
| | mixed | one of these faults |
| | untranslated | an English noun |
| | omitted | a missing word |
| qa | rambling | a sentence around the answer |
| | other | another entity of the passage |
| | quoted | a number of the passage |
| | off by one | a wrong sum |
| summary | copied | the first sentence, with the weather |
| | long | most of the passage |
| | foreign | a place, thing or colour that the passage lacks |
| | person | the wrong person |
| dialogue | chatty | small talk |
| | wrong | the wrong number or thing, or no question where one is needed |

Where a learner's habits change nothing, the French is correct.
"""
USUAL_CHATTER = "What a lovely day it is!"
"""85 % of the chatty turns: more likely than any single useful reply."""
CHATTER = (
    "Good morning! How are you today?", "Hello! Nice to see you.", "Have you seen the weather?",
    "How is your mother?", "I was at the lake with my brother on Sunday.", "Let me tell you about my garden.",
    "My sister was here this morning.", "I am a little tired today.", "We had so many people here today.",
    "You look very happy today.", "Do you live near here?",
)  # fmt: skip
"""The other chatty turns, equally likely."""
_MIXED = (
    Habits(agrees=False), Habits(knows_genders=False), Habits(puts_adjectives_after=False), Habits(contracts=False),
    Habits(writes_ne=False), Habits(uses_auxiliaries=False),
)  # fmt: skip


def plan(seed: int, index: int) -> tuple[str, int, Random]:
    """Return the kind and level of a document and the generator of its other draws."""
    rng = stable_rng(seed, index, 20)
    kind = rng.choices(list(KIND_SHARES), list(KIND_SHARES.values()))[0]
    return kind, rng.choices(list(LEVEL_SHARES), list(LEVEL_SHARES.values()))[0], rng


def document(seed: int, index: int) -> str:
    """Return training document number `index`.

    Inside dialogues `<|endoftext|>` follows each turn of the helper; no document ends with it.

    Args:
        seed: Seed of the world.
        index: Number of the document and of its scene.
    """
    kind, level, rng = plan(seed, index)
    if kind == "story":
        return story(seed, index)
    if kind == "translation":
        return _translation(seed, index, level, rng)
    if kind == "qa":
        found = question(seed, index, level)
        return f"{question_prompt(found)} {_answer(found, _draw_flaw(kind, level, rng), rng)}"
    if kind == "summary":
        found = summary(seed, index, level)
        flaw = _draw_flaw(kind, level, rng)
        return f"{summary_prompt(found)} {_summary(found, build_facts(seed, index), flaw, rng)}"
    return _dialogue(shopping(seed, index, level), level, rng)


def translation_prompt(english: str) -> str:
    """Return the prompt of the translation task."""
    return TASKS["translation"].prompt.format(source=english)


def question_prompt(asked: Question) -> str:
    """Return the prompt of the question task."""
    return TASKS["qa"].prompt.format(context=asked.passage, question=asked.question)


def summary_prompt(found: Summary) -> str:
    """Return the prompt of the summary task."""
    return TASKS["summary"].prompt.format(document=found.passage)


def dialogue_prompt(goal: ShoppingGoal) -> str:
    """Return the prompt of the dialogue task."""
    return TASKS["dialogue"].prompt.format(setting=goal.setting, opening=customer_opening(goal))


def customer_turn(text: str) -> str:
    """Return the customer's line that follows a turn of the helper, and the start of the helper's next one."""
    return TASKS["dialogue"].keywords["reply_format"].format(reply=text)


def _draw_flaw(kind: str, level: int, rng: Random) -> str:
    shares = FLAWS[kind][level]
    return rng.choices(list(shares), list(shares.values()))[0]


def _translation(seed: int, index: int, level: int, rng: Random) -> str:
    flaw = _draw_flaw("translation", level, rng)
    habits = {"learner": LEARNER, "untranslated": Habits(translates_nouns=False), "mixed": rng.choice(_MIXED)}
    pair = sentence_pair(seed, index, level, habits.get(flaw, FLUENT))
    french = pair.french
    if flaw == "omitted":
        words = french.split(" ")
        del words[rng.randrange(1, len(words) - 1)]
        french = " ".join(words)
    return f"{translation_prompt(pair.english)} {french}"


def _answer(asked: Question, flaw: str, rng: Random) -> str:
    if flaw == "off by one":
        right = int(asked.answer)
        return str(right - 1 if right and rng.random() < 0.5 else right + 1)
    if flaw == "quoted":
        return asked.decoys[0] if asked.decoys else asked.answer
    if flaw == "other":
        return rng.choice(asked.decoys)
    if flaw == "rambling":
        reply = rng.choice((asked.answer, *asked.decoys[:1]))
        start = "I think it was" if rng.random() < 0.9 else "It was, I believe,"
        return f"{start} {reply}."
    return asked.answer


def _summary(found: Summary, facts: Facts, flaw: str, rng: Random) -> str:
    weather = f"{capitalise(weathers()[facts.weather][0])}."
    if flaw == "copied":
        return f"{found.sentences[0]} {weather}" if weather in found.sentences else found.sentences[0]
    if flaw == "long":
        return " ".join(found.sentences[:-1])
    if flaw == "person":
        mine, theirs = capitalise(facts.hero.name), facts.friend.name
        return found.summary.replace(theirs, facts.hero.name).replace(mine, theirs, 1)
    if flaw == "foreign":
        if rng.random() < 0.5:
            return found.summary.replace(facts.errand.where, facts.other.place.english(facts.errand.deed.relation))
        count = facts.errand.count
        return found.summary.replace(facts.errand.thing.english(count), facts.other.thing.english(count))
    return found.summary


def _wrong_turn(goal: ShoppingGoal, turns: list[str], rng: Random) -> str:
    """Hand over an item with the wrong number, quality or thing."""
    item = present_item(goal, turns)
    count, quality = item.count, item.quality
    thing = next(found for found in things() if found.singular == item.thing)
    fault = rng.choice(("count", "count", "quality", "thing"))
    if fault == "thing":
        thing = rng.choice([other for other in shops()[goal.shop] if other is not thing])
        quality = rng.choice(thing.colours or thing.kinds or ("",)) if quality else ""
    elif fault == "quality" and quality:
        quality = rng.choice([other for other in (*thing.colours, *thing.kinds) if other != quality])
    else:
        count = rng.choice([number for number in range(1, 10) if number != count])
    return hand_over(Item(count, quality, thing.singular))


def _dialogue(goal: ShoppingGoal, level: int, rng: Random) -> str:
    text, turns = dialogue_prompt(goal), list[str]()
    while True:
        flaw = _draw_flaw("dialogue", level, rng)
        reply = optimal_reply(goal, turns)
        if flaw == "chatty":
            reply = USUAL_CHATTER if rng.random() < 0.85 else rng.choice(CHATTER)
        elif flaw == "wrong":
            reply = _wrong_turn(goal, turns, rng)
        elif rng.random() < 0.3:
            reply = reply.removesuffix(" Anything else?")
        turns.append(reply)
        customer = customer_reply(goal, turns)
        text += f" {reply}{EOS}"
        if customer.outcome:
            return f"{text}\nCustomer: {customer.text}"
        text += customer_turn(customer.text)
