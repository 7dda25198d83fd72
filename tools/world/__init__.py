"""Procedural generator of stories and task data: a pure, platform-independent function of seed and index.

`build_scene` draws a scene (people, place, time, plot) and `story` realises it as text. The tasks share the facts of an
errand that fits the scene (`build_facts`): `sentence_pair` realises them in English and French, `question` and
`summary` as passages, and `shopping` draws the goal of a customer.
"""

from __future__ import annotations

from world.facts import Character, Errand, Facts, build_facts
from world.questions import Question, question
from world.realisation import realise, story
from world.scene import Person, Scene, build_scene, stable_rng
from world.shopping import shopping
from world.summaries import Entities, Summary, entities, summary
from world.translation import SentencePair, sentence_pair
from world.vocabulary import Place, spots, things

__all__ = [
    "Character",
    "Entities",
    "Errand",
    "Facts",
    "Person",
    "Place",
    "Question",
    "Scene",
    "SentencePair",
    "Summary",
    "build_facts",
    "build_scene",
    "entities",
    "question",
    "realise",
    "sentence_pair",
    "shopping",
    "spots",
    "stable_rng",
    "story",
    "summary",
    "things",
]
