"""A customer who follows a script, and the helper who serves her best.

The customer is a pure function of the goal and of what the helper said so far: nothing is stored between two turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from textgym.tasks.world.facts import noun_phrase
from textgym.tasks.world.grammar import capitalise
from textgym.tasks.world.hearing import Heard, hear
from textgym.tasks.world.shopping_list import Item, ShoppingGoal, shopping
from textgym.tasks.world.vocabulary import NUMBERS, Thing

__all__ = [
    "CustomerReply",
    "Item",
    "ShoppingGoal",
    "best_helper_reply",
    "customer_opening",
    "customer_reply",
    "hand_over",
    "present_item",
    "progress",
    "shopping",
]

MAX_MISTAKES = 2
"""With this mistake the customer leaves."""
MISTAKE_COST = 0.25
"""What a mistake takes from the progress."""


@dataclass(frozen=True)
class CustomerReply:
    """The customer's next line."""

    text: str
    """What the customer says."""
    outcome: str | None
    """`success` or `failure` where the dialogue is over with it, else None."""


@dataclass(frozen=True)
class _State:
    """Where a dialogue stands."""

    item: int = 0
    """How many items have been handed over."""
    unsaid: frozenset[str] = frozenset()
    """What of the present item has not been said yet."""
    mistakes: int = 0
    """How many turns did not help."""
    text: str = ""
    """The customer's last line."""
    outcome: str | None = None
    """How it ended; None while it goes on."""


def customer_opening(goal: ShoppingGoal) -> str:
    """Return the customer's first line."""
    item = goal.items[0]
    wish = _vague(item, goal.unsaid)
    greeting = ("Hello", "Good morning", "Good day")[goal.manner % 3]
    forms = (f"{greeting}, I would like {wish}, please.", f"{greeting}. {capitalise(wish)}, please.")
    return forms[goal.manner // 3 % 2]


def _vague(item: Item, unsaid: frozenset[str]) -> str:
    """Return the wish without what has not been said: `some apples`, `some red apples`, `three apples`."""
    quality = "" if "quality" in unsaid else item.quality
    if "count" in unsaid:
        return " ".join(word for word in ("some", quality, item.thing.plural) if word)
    return noun_phrase(item.thing, item.count, quality)


def _is_right(item: Item, heard: Heard) -> bool:
    qualities = {item.quality} if item.quality else set()
    if not item.quality and len(heard.qualities) == 1:
        qualities = set(heard.qualities)  # any will do
    return heard.counts == {item.count} and heard.things == {item.thing.singular} and heard.qualities == qualities


def _blame(goal: ShoppingGoal, state: _State, text: str) -> _State:
    mistakes = state.mistakes + 1
    if mistakes < MAX_MISTAKES:
        return replace(state, mistakes=mistakes, text=text)
    farewell = ("No, thank you. Goodbye.", "I will try another shop. Goodbye.")[goal.manner % 2]
    return replace(state, mistakes=mistakes, text=farewell, outcome="failure")


def _tell(item: Item, asked: frozenset[str]) -> str:
    """Return the answer to a helper's question."""
    if asked == {"count"}:
        return f"{capitalise(NUMBERS[item.count])}, please."
    number = NUMBERS[item.count] if "count" in asked else ""
    noun = f"{item.quality} {item.thing.plural}" if item.axis == "kind" else f"{item.quality} ones"
    return f"{capitalise(f'{number} {noun}'.strip())}, please."


def _next(goal: ShoppingGoal, state: _State, reply: str) -> _State:
    """Return the state after one more reply of the helper."""
    heard, item = hear(reply), goal.items[state.item]
    if heard.hands_over and state.unsaid:
        missing = "how many" if "count" in state.unsaid else f"which {item.axis}"
        return _blame(goal, state, f"Wait, you did not ask {missing} I would like.")
    if heard.hands_over and _is_right(item, heard):
        done = state.item + 1
        if done == len(goal.items):
            return replace(state, item=done, text="Thank you. Goodbye.", outcome="success")
        wish = str(goal.items[done])
        text = f"Yes, {wish}, please." if heard.offers_more else f"Thank you. I would also like {wish}, please."
        return replace(state, item=done, text=text)
    if heard.hands_over:
        return _blame(goal, state, f"No, I asked for {item}.")
    asked = frozenset(
        name for name, is_asked in (("count", heard.asks_count), ("quality", heard.asks_quality)) if is_asked
    )
    if asked & state.unsaid:
        return replace(state, unsaid=state.unsaid - asked, text=_tell(item, asked & state.unsaid))
    wish = _vague(item, state.unsaid)
    if asked:
        return _blame(goal, state, f"I said {wish}, please.")
    return _blame(goal, state, f"Sorry, I do not understand. I would like {wish}.")


def _follow(goal: ShoppingGoal, helper_turns: Sequence[str]) -> _State:
    state = _State(unsaid=goal.unsaid)
    for number, reply in enumerate(helper_turns):
        if state.outcome:
            raise ValueError(f"the dialogue was over after {number} turns of the helper, not {len(helper_turns)}")
        state = _next(goal, state, reply)
    return state


def customer_reply(goal: ShoppingGoal, helper_turns: Sequence[str]) -> CustomerReply:
    """Return what the customer says after the helper's turns.

    Two kinds of turns help: handing over exactly what is wanted, once all of it was said, and asking for what was not
    said. Every other turn is a mistake, and after the second one the customer leaves.

    Args:
        goal: what the customer wants.
        helper_turns: all replies of the helper so far, at least one.

    Raises:
        ValueError: there is no turn, or the dialogue was over before the last one.

    >>> goal = shopping(7, 1, 1)
    >>> customer_reply(goal, [best_helper_reply(goal, [])]).outcome
    'success'
    """
    if not helper_turns:
        raise ValueError("no turn of the helper to reply to; the first line of the dialogue is customer_opening(goal)")
    state = _follow(goal, helper_turns)
    return CustomerReply(state.text, state.outcome)


def progress(goal: ShoppingGoal, helper_turns: Sequence[str]) -> float:
    """Return the share of the goal that is reached, less 0.25 for each mistake, in [0, 1].

    The parts of the goal are the items and what has to be asked for; without turns it is 0.

    Raises:
        ValueError: the dialogue was over before the last turn.
    """
    state = _follow(goal, helper_turns)
    parts = len(goal.items) + len(goal.unsaid)
    done = state.item + len(goal.unsaid) - len(state.unsaid)
    return max(0.0, done / parts - MISTAKE_COST * state.mistakes)


def present_item(goal: ShoppingGoal, helper_turns: Sequence[str]) -> Item:
    """Return what the customer waits for; after the last item, the last one.

    Raises:
        ValueError: the dialogue was over before the last turn.
    """
    return goal.items[min(_follow(goal, helper_turns).item, len(goal.items) - 1)]


def best_helper_reply(goal: ShoppingGoal, helper_turns: Sequence[str]) -> str:
    """Return a reply after which the customer is as near to the goal as one turn can bring him.

    Raises:
        ValueError: the dialogue is over.
    """
    state = _follow(goal, helper_turns)
    if state.outcome:
        raise ValueError(
            f"the dialogue was over after {len(helper_turns)} turns of the helper; there is nothing to say"
        )
    item = goal.items[state.item]
    if "count" in state.unsaid:
        return "How many would you like?"
    if "quality" in state.unsaid:
        return f"Which {item.axis} would you like?"
    more = " Anything else?" if state.item + 1 < len(goal.items) else ""
    return hand_over(item.count, item.quality, item.thing) + more


def hand_over(count: int, quality: str, thing: Thing) -> str:
    """Return the words with which a helper hands things over.

    >>> from textgym.tasks.world.vocabulary import things
    >>> hand_over(3, "red", things()[0])
    'Here are three red apples.'
    """
    noun = noun_phrase(thing, count, quality)
    return f"Here {'is' if count == 1 else 'are'} {noun}."
