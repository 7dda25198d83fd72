"""Goals of the customers of a shop, for ``textgym.tasks.shop``."""

from __future__ import annotations

from random import Random

from textgym.tasks.shop import Item, ShoppingGoal
from world.scene import stable_rng
from world.vocabulary import Thing, check_level, shops


def shopping(seed: int, index: int, level: int) -> ShoppingGoal:
    """Return customer number `index` of a level.

    Level 1 asks for one item, 2 for two, and 3 for one that is not stated completely.

    Raises:
        ValueError: If level is not 1, 2 or 3.

    >>> goal = shopping(7, 1, 1)
    >>> goal.setting, str(goal.items[0])
    ('At the market.', 'two white onions')
    """
    check_level(level)
    rng = stable_rng(seed, index, 7, level)
    shop = rng.choice(list(shops()))
    chosen = rng.sample(shops()[shop], 2 if level == 2 else 1)
    items = tuple(_draw_item(thing, level, rng) for thing in chosen)
    unsaid: tuple[str, ...] = ()
    if level == 3:
        unsaid = rng.choice([("count",), ("quality",), ("count", "quality")]) if items[0].quality else ("count",)
    return ShoppingGoal(shop=shop, items=items, unsaid=unsaid, manner=rng.randrange(6))


def _draw_item(thing: Thing, level: int, rng: Random) -> Item:
    count = rng.randint(2, 9) if level == 3 or rng.random() < 0.7 else 1
    variants = thing.colours or thing.kinds
    quality = rng.choice(variants) if variants and (level == 3 or rng.random() < 0.75) else ""
    return Item(count, quality, thing.singular)
