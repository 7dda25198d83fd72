"""Customers of a shop: their goals, a simulated customer with a script, and the optimal replies of the assistant.

The customer is a pure function of the goal and of the assistant's turns so far; it has no state.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from textgym.errors import unknown_name
from textgym.tasks.shop_replies import ParsedReply, parse_reply
from textgym.tasks.words import NUMBERS, colours, find_thing

__all__ = [
    "CustomerReply",
    "Item",
    "ShoppingGoal",
    "customer_opening",
    "customer_reply",
    "hand_over",
    "optimal_reply",
    "present_item",
    "progress",
]


@dataclass(frozen=True)
class Item:
    """An item of a customer's list."""

    count: int
    """Requested number, 1 to 20."""
    quality: str
    """Colour or kind; empty if any will do."""
    thing: str
    """Requested thing, in the singular."""

    def __str__(self) -> str:
        """Return ``three red apples``."""
        thing = find_thing(self.thing)
        noun = f"{self.quality} {thing.singular if self.count == 1 else thing.plural}".lstrip()
        number = NUMBERS[self.count] if self.count != 1 else "an" if noun[0] in "aeiou" else "a"
        return f"{number} {noun}"

    @property
    def axis(self) -> str:
        """Meaning of ``quality``: ``colour`` or ``kind``."""
        return "kind" if find_thing(self.thing).kinds else "colour"


@dataclass(frozen=True, kw_only=True)
class ShoppingGoal:
    """Goal of a customer, and the part of it that is stated at first.

    ``dataclasses.asdict`` returns it as plain JSON, and ``from_row`` makes it of that again.

    Raises:
        ValueError: If a value is not among those below, or a thing, colour or kind is unknown.
    """

    shop: str
    """Name of the shop, such as ``bakery``."""
    items: tuple[Item, ...]
    """The requested items, in order; at least one."""
    unsaid: tuple[str, ...]
    """Attributes of the first item that the assistant has to ask for: ``count``, ``quality``, both or none."""
    manner: int
    """Selects the customer's wording, 0 to 5."""

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("the goal has no items; expected at least one")
        for item in self.items:
            if not isinstance(item.count, int) or item.count not in range(1, len(NUMBERS)):
                raise ValueError(f"the count of an item is {item.count!r}; expected 1 to {len(NUMBERS) - 1}")
            known = (*colours(), *find_thing(item.thing).kinds)
            if item.quality not in ("", *known):
                raise unknown_name("colour or kind", item.quality, known, also="An empty text stands for any.")
        possible = ("count", "quality") if self.items[0].quality else ("count",)
        if len(self.unsaid) != len({*self.unsaid}.intersection(possible)):
            raise ValueError(f"unsaid is {self.unsaid!r}; expected some of {possible} for {str(self.items[0])!r}")
        if not isinstance(self.manner, int) or self.manner not in range(6):
            raise ValueError(f"manner is {self.manner!r}; expected 0 to 5")

    @classmethod
    def from_row(cls, goal: Any) -> "ShoppingGoal":
        """Return the goal that a row of the dialogue task holds.

        Raises:
            ValueError: If it is not of the form that ``asdict`` returns, or holds an unknown value.

        >>> item = {"count": 3, "quality": "red", "thing": "apple"}
        >>> str(ShoppingGoal.from_row({"shop": "market", "items": [item], "unsaid": [], "manner": 0}).items[0])
        'three red apples'
        """
        try:
            items = tuple(Item(**item) for item in goal["items"])
            return cls(**{**goal, "items": items, "unsaid": tuple(goal["unsaid"])})
        except (TypeError, KeyError) as error:
            raise ValueError(
                'expected a goal such as {"shop": "market", "items": [{"count": 3, "quality": "red", "thing": '
                f'"apple"}}], "unsaid": ["count"], "manner": 0}}, got {goal!r:.200}'
            ) from error

    @property
    def setting(self) -> str:
        """First line of the dialogue: ``At the``, the shop and a full stop."""
        return f"At the {self.shop}."


MAX_MISTAKES = 2
"""Number of mistakes at which the customer leaves."""
MISTAKE_COST = 0.25
"""Deduction from the progress per mistake."""


@dataclass(frozen=True)
class CustomerReply:
    """Reply of the customer."""

    text: str
    """Text of the reply."""
    outcome: str | None
    """``success`` or ``failure`` if it ends the dialogue, else None."""


@dataclass(frozen=True)
class _State:
    """State of a dialogue."""

    item: int = 0
    """Number of items handed over."""
    unsaid: frozenset[str] = frozenset()
    """Attributes of the current item that have not been stated yet."""
    mistakes: int = 0
    """Number of mistakes."""
    text: str = ""
    """The customer's last line."""
    outcome: str | None = None
    """Outcome; None until the end."""


def customer_opening(goal: ShoppingGoal) -> str:
    """Return the customer's first line."""
    item = goal.items[0]
    wish = _request(item, goal.unsaid)
    greeting = ("Hello", "Good morning", "Good day")[goal.manner % 3]
    forms = (f"{greeting}, I would like {wish}, please.", f"{greeting}. {_capitalised(wish)}, please.")
    return forms[goal.manner // 3 % 2]


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _request(item: Item, unsaid: Collection[str]) -> str:
    """Return the request without unstated attributes: ``some apples``, ``some red apples``, ``three apples``."""
    quality = "" if "quality" in unsaid else item.quality
    if "count" in unsaid:
        return " ".join(word for word in ("some", quality, find_thing(item.thing).plural) if word)
    return str(replace(item, quality=quality))


def _is_right(item: Item, parsed: ParsedReply) -> bool:
    qualities = {item.quality} if item.quality else set()
    if not item.quality and len(parsed.qualities) == 1:
        qualities = set(parsed.qualities)  # any will do
    return parsed.counts == {item.count} and parsed.things == {item.thing} and parsed.qualities == qualities


def _mistake(goal: ShoppingGoal, state: _State, text: str) -> _State:
    mistakes = state.mistakes + 1
    if mistakes < MAX_MISTAKES:
        return replace(state, mistakes=mistakes, text=text)
    farewell = ("No, thank you. Goodbye.", "I will try another shop. Goodbye.")[goal.manner % 2]
    return replace(state, mistakes=mistakes, text=farewell, outcome="failure")


def _answer(item: Item, asked: frozenset[str]) -> str:
    """Return the answer to a question of the assistant."""
    if asked == {"count"}:
        return f"{_capitalised(NUMBERS[item.count])}, please."
    number = NUMBERS[item.count] if "count" in asked else ""
    noun = f"{item.quality} {find_thing(item.thing).plural}" if item.axis == "kind" else f"{item.quality} ones"
    return f"{_capitalised(f'{number} {noun}'.strip())}, please."


def _step(goal: ShoppingGoal, state: _State, reply: str) -> _State:
    """Return the state after one more reply of the assistant."""
    parsed, item = parse_reply(reply), goal.items[state.item]
    if parsed.hands_over and state.unsaid:
        missing = "how many" if "count" in state.unsaid else f"which {item.axis}"
        return _mistake(goal, state, f"Wait, you did not ask {missing} I would like.")
    if parsed.hands_over and _is_right(item, parsed):
        done = state.item + 1
        if done == len(goal.items):
            return replace(state, item=done, text="Thank you. Goodbye.", outcome="success")
        wish = str(goal.items[done])
        text = f"Yes, {wish}, please." if parsed.offers_more else f"Thank you. I would also like {wish}, please."
        return replace(state, item=done, text=text)
    if parsed.hands_over:
        return _mistake(goal, state, f"No, I asked for {item}.")
    asked = frozenset(
        name for name, is_asked in (("count", parsed.asks_count), ("quality", parsed.asks_quality)) if is_asked
    )
    if asked & state.unsaid:
        return replace(state, unsaid=state.unsaid - asked, text=_answer(item, asked & state.unsaid))
    wish = _request(item, state.unsaid)
    if asked:
        return _mistake(goal, state, f"I said {wish}, please.")
    return _mistake(goal, state, f"Sorry, I do not understand. I would like {wish}.")


def _replay(goal: ShoppingGoal, helper_turns: Sequence[str]) -> _State:
    state = _State(unsaid=frozenset(goal.unsaid))
    for number, reply in enumerate(helper_turns):
        if state.outcome:
            raise ValueError(f"the dialogue was over after {number} turns of the assistant, got {len(helper_turns)}")
        state = _step(goal, state, reply)
    return state


def customer_reply(goal: ShoppingGoal, helper_turns: Sequence[str]) -> CustomerReply:
    """Return the customer's reply after the assistant's turns.

    Two kinds of turns are right: handing over exactly the requested item, once it is completely stated, and asking for
    an unstated attribute. Every other turn is a mistake; after the second one the customer leaves.

    Raises:
        ValueError: If there is no turn, or the dialogue was over before the last one.

    >>> goal = ShoppingGoal(shop="market", items=(Item(3, "red", "apple"),), unsaid=(), manner=0)
    >>> customer_reply(goal, [optimal_reply(goal, [])]).outcome
    'success'
    """
    if not helper_turns:
        raise ValueError("helper_turns is empty; the first line of the dialogue is customer_opening(goal)")
    state = _replay(goal, helper_turns)
    return CustomerReply(state.text, state.outcome)


def progress(goal: ShoppingGoal, helper_turns: Sequence[str]) -> float:
    """Return the share of the goal that is reached minus 0.25 per mistake, at least 0.

    The goal consists of the items and the attributes to be asked for; without turns the result is 0.

    Raises:
        ValueError: the dialogue was over before the last turn.
    """
    state = _replay(goal, helper_turns)
    parts = len(goal.items) + len(goal.unsaid)
    done = state.item + len(goal.unsaid) - len(state.unsaid)
    return max(0.0, done / parts - MISTAKE_COST * state.mistakes)


def present_item(goal: ShoppingGoal, helper_turns: Sequence[str]) -> Item:
    """Return the current item; after the last item, the last one.

    Raises:
        ValueError: the dialogue was over before the last turn.
    """
    return goal.items[min(_replay(goal, helper_turns).item, len(goal.items) - 1)]


def optimal_reply(goal: ShoppingGoal, helper_turns: Sequence[str]) -> str:
    """Return an optimal reply of the assistant.

    Raises:
        ValueError: the dialogue is over.
    """
    state = _replay(goal, helper_turns)
    if state.outcome:
        raise ValueError(f"the dialogue was over after {len(helper_turns)} turns of the assistant")
    item = goal.items[state.item]
    if "count" in state.unsaid:
        return "How many would you like?"
    if "quality" in state.unsaid:
        return f"Which {item.axis} would you like?"
    more = " Anything else?" if state.item + 1 < len(goal.items) else ""
    return hand_over(item) + more


def hand_over(item: Item) -> str:
    """Return a reply that hands an item over.

    >>> hand_over(Item(3, "red", "apple"))
    'Here are three red apples.'
    """
    return f"Here {'is' if item.count == 1 else 'are'} {item}."
