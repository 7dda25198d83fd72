"""A small world made by rules: the same seed and index give the same story and the same tasks on every machine.

A scene says who, where and when (`build_scene`); `story` tells it. The tasks share the facts of an errand that fits the
scene (`build_facts`): `sentence_pair` says them in English and French, `question` asks about them, `summary` tells them
with details that do not matter, and in `shopping` somebody has a list.
"""

from __future__ import annotations

from textgym.tasks.world.cast import Person
from textgym.tasks.world.facts import Character, Errand, Facts, build_facts
from textgym.tasks.world.hearing import Heard, hear
from textgym.tasks.world.lexicon import Place
from textgym.tasks.world.questions import Question, question
from textgym.tasks.world.scene import Scene, build_scene, stable_rng
from textgym.tasks.world.shopping import (
    CustomerReply,
    best_helper_reply,
    customer_opening,
    customer_reply,
    progress,
)
from textgym.tasks.world.shopping_list import Item, ShoppingGoal, shopping
from textgym.tasks.world.summaries import Entities, Summary, entities, summary
from textgym.tasks.world.telling import Teller
from textgym.tasks.world.translation import SentencePair, sentence_pair
from textgym.tasks.world.vocabulary import spots, things

__all__ = [
    "Character",
    "CustomerReply",
    "Entities",
    "Errand",
    "Facts",
    "Heard",
    "Item",
    "Person",
    "Place",
    "Question",
    "Scene",
    "SentencePair",
    "ShoppingGoal",
    "Summary",
    "Teller",
    "best_helper_reply",
    "build_facts",
    "build_scene",
    "customer_opening",
    "customer_reply",
    "entities",
    "hear",
    "progress",
    "question",
    "sentence_pair",
    "shopping",
    "spots",
    "stable_rng",
    "story",
    "summary",
    "tell",
    "things",
]


def tell(scene: Scene, variant: int = 0) -> str:
    """Return one telling of a scene; another variant has the same facts in other words."""
    return Teller(scene, stable_rng(variant, 2)).tell()


def story(seed: int, index: int) -> str:
    """Return story number `index` of the world with this seed: one paragraph of about 50 to 150 words."""
    return Teller(build_scene(seed, index), stable_rng(seed, index, 2)).tell()
