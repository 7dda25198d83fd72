"""What customers want: a shop and a list, of which they say more or less at first."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from textgym.tasks.world.cast import MEN, WOMEN
from textgym.tasks.world.facts import build_facts, noun_phrase
from textgym.tasks.world.scene import stable_rng
from textgym.tasks.world.vocabulary import Thing, check_level, shops


@dataclass(frozen=True)
class Item:
    """Something on a customer's list."""

    count: int
    """How many are wanted, 1 to 9."""
    quality: str
    """Colour or kind; empty where any will do."""
    thing: Thing
    """What is wanted."""

    def __str__(self) -> str:
        """Return `three red apples`."""
        return noun_phrase(self.thing, self.count, self.quality)

    @property
    def axis(self) -> str:
        """What its quality is: `colour` or `kind`."""
        return "kind" if self.thing.kinds else "colour"


@dataclass(frozen=True, kw_only=True)
class ShoppingGoal:
    """What a customer wants and how much of it she says at first."""

    level: int
    """1 one item, 2 two items, 3 one item that is not said completely."""
    shop: str
    """Name of the shop, such as `bakery`."""
    customer: str
    """First name."""
    items: tuple[Item, ...]
    """The list, in the order in which it is asked for."""
    unsaid: frozenset[str]
    """What the helper has to ask for: `count`, `quality`, both, or nothing."""
    manner: int
    """Which of several wordings the customer uses."""

    @property
    def setting(self) -> str:
        """First line of the dialogue: `At the`, the shop and a full stop."""
        return f"At the {self.shop}."


def shopping(seed: int, index: int, level: int) -> ShoppingGoal:
    """Return customer number `index` of a level.

    Args:
        seed: seed of the world.
        index: number of the scene, whose hero or a namesake is the customer.
        level: 1, 2 or 3, see `ShoppingGoal.level`.

    Raises:
        ValueError: there is no such level.

    >>> goal = shopping(7, 1, 1)
    >>> goal.setting, str(goal.items[0])
    ('At the market.', 'two white onions')
    """
    check_level(level)
    rng = stable_rng(seed, index, 7, level)
    hero = build_facts(seed, index).hero
    customer = rng.choice(WOMEN if hero.is_female else MEN) if hero.name.startswith("the ") else hero.name
    shop = rng.choice(list(shops()))
    chosen = rng.sample(shops()[shop], 2 if level == 2 else 1)
    items = tuple(_draw_item(thing, level, rng) for thing in chosen)
    unsaid: frozenset[str] = frozenset()
    if level == 3:
        possible = [frozenset({"count"})]
        if items[0].quality:
            possible = [frozenset({"count"}), frozenset({"quality"}), frozenset({"count", "quality"})]
        unsaid = rng.choice(possible)
    return ShoppingGoal(
        level=level, shop=shop, customer=customer, items=items, unsaid=unsaid, manner=rng.randrange(1 << 16)
    )


def _draw_item(thing: Thing, level: int, rng: Random) -> Item:
    count = rng.randint(2, 9) if level == 3 or rng.random() < 0.7 else 1
    variants = thing.colours or thing.kinds
    return Item(count, rng.choice(variants) if variants and (level == 3 or rng.random() < 0.75) else "", thing)
