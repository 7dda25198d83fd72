"""Questions and summaries of the world: answers are right, summaries true."""

import functools
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import astuple

import pytest

from fixtures import ROOT
from world import build_facts, build_scene, entities, question, summary
from world.shopping import shopping
from world.translation import sentence_pair
from world.vocabulary import NUMBERS, deeds, spots, things, things_for, words

pytestmark = pytest.mark.slow  # the world is frozen: digests in the default tests tell whether it changed

SEED = 3
LEVELS = (1, 2, 3)


@functools.cache
def summaries(level):
    return [summary(SEED, index, level) for index in range(1500)]


@functools.cache
def questions(level):
    return [question(SEED, index, level) for index in range(1500)]


def fingerprint(index):
    facts = build_facts(SEED, index)
    errands = [
        (errand.deed.verb, errand.thing.singular, errand.count, errand.colour, errand.quality, errand.place.name)
        for errand in (facts.errand, facts.other)
    ]
    return (
        facts.hero.name, facts.friend.name, *errands, facts.weekday, facts.other_weekday, facts.daypart, facts.weather,
        facts.feeling, facts.other_feeling,
    )  # fmt: skip


# Facts.


@pytest.mark.slow
def test_twenty_thousand_scenes_have_no_facts_in_common():
    assert len({fingerprint(index) for index in range(20_000)}) == 20_000


def test_there_are_over_a_million_errands_of_one_person_already():
    names, weekdays = 44, len(words("weekday"))
    deeds_and_places = sum(len(things_for(deed)) for deed in deeds() for spot in spots() if deed.places & spot.tags)
    assert names * weekdays * deeds_and_places * 9 > 1_000_000


def test_the_facts_agree_with_the_scene():
    for index in range(500):
        scene, facts = build_scene(SEED, index), build_facts(SEED, index)
        assert facts.scene == scene
        assert (facts.weather, facts.daypart) == (scene.weather, scene.daypart)
        assert facts.hero.he == scene.hero.pronoun
        if scene.hero.name[0].isupper():
            assert facts.hero.name == scene.hero.name


def test_two_people_never_share_thing_number_colour_place_or_day():
    for index in range(3000):
        facts = build_facts(SEED, index)
        mine, theirs = facts.errand, facts.other
        assert facts.hero.name != facts.friend.name
        assert mine.thing is not theirs.thing
        assert mine.count != theirs.count
        assert mine.colour != theirs.colour or not mine.colour
        assert mine.place is not theirs.place
        assert facts.weekday != facts.other_weekday


def test_the_lexicon_is_small():
    assert 35 <= len(things()) <= 45
    assert len(spots()) <= 16
    assert len({deed.verb for deed in deeds()}) <= 14
    assert len(NUMBERS) == 21


# Determinism.


def test_another_process_with_another_hash_seed_makes_the_same_tasks():
    program = (
        "from world import question, sentence_pair, shopping, summary\n"
        "for i in range(40):\n"
        "    print([question(3, i, 2), summary(3, i, 3).summary, sentence_pair(3, i, 3)])\n"
        "    print([str(item) for item in shopping(3, i, 2).items])"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    environments = [{"PYTHONHASHSEED": seed, "PYTHONUTF8": "1", "PYTHONPATH": path} for seed in ("1", "2")]
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8", env=found
        ).stdout
        for found in environments
    ]
    assert runs[0] == runs[1]
    assert repr(questions(2)[39]) in runs[0]


@pytest.mark.parametrize("derive", [question, summary, sentence_pair, shopping])
@pytest.mark.parametrize("level", [0, 4, "1"])
def test_an_unknown_level_raises(derive, level):
    with pytest.raises(ValueError, match="level must be 1, 2 or 3, got"):
        derive(SEED, 0, level)


# Questions.


@pytest.mark.parametrize("level", [1, 2])
def test_answers_occur_in_their_passage(level):
    for asked in questions(level):
        assert asked.answer.lower() in asked.passage.lower()
        assert 1 <= len(asked.answer.split()) <= 5
        assert asked.answer not in asked.decoys
        assert asked.question.endswith("?")


def test_the_number_of_sentences_follows_the_level():
    lengths = {level: {asked.passage.count(".") for asked in questions(level)} for level in LEVELS}
    assert lengths[1] == {1, 2}
    assert lengths[2] == {3, 4}
    assert lengths[3] <= {1, 2, 3}


def test_all_kinds_of_questions_are_asked():
    for level in (1, 2):
        kinds = Counter(asked.kind for asked in questions(level))
        assert set(kinds) == {"who", "what", "where", "when", "colour", "count", "feeling"}
        assert min(kinds.values()) > 0.05 * len(questions(level))
    assert set(Counter(asked.kind for asked in questions(3))) == {"sum", "difference"}


def test_the_decoy_of_the_other_person_occurs_in_the_passage():
    found = [asked.decoys[0].lower() in asked.passage.lower() for asked in questions(2)]
    assert sum(found) > 0.85 * len(found)


def test_the_sums_are_right():
    for asked in questions(3):
        numbers = [int(number) for number in re.findall(r"\d+", asked.passage)]
        is_difference = re.search(r"are left|How many more", asked.question)
        expected = numbers[0] - numbers[1] if is_difference else sum(numbers)
        assert asked.answer == str(expected)
        assert 0 <= expected <= 20
        assert (asked.kind == "difference") == bool(is_difference)


# Summaries.


@pytest.mark.parametrize("level", LEVELS)
def test_a_summary_names_nothing_that_its_passage_lacks(level):
    for item in summaries(level):
        found = entities(item.summary)
        assert found.names <= item.entities.names
        assert found.places <= item.entities.places
        assert found.things <= item.entities.things
        assert len(found.names) >= 1
        assert len(found.places) == len(found.things) == 1
        assert len(item.summary.split()) <= 14
        assert item.summary.count(".") == 1


def test_a_summary_leaves_out_what_does_not_matter():
    for item in summaries(3):
        assert len(item.details) >= 2
        assert " ".join(item.sentences) == item.passage
        for detail in item.details:
            assert detail in item.sentences
            assert detail.rstrip(".") not in item.summary


def test_passages_to_summarise_grow_with_the_level():
    lengths = {level: {len(item.sentences) for item in summaries(level)} for level in LEVELS}
    assert lengths == {1: {3}, 2: {4}, 3: {5, 6}}


def test_entities_are_found_in_singular_and_plural():
    found = entities("The baker and Tom hid two knives, three scarves and a box in the park.")
    assert found.names == {"baker", "Tom"}
    assert found.places == {"park"}
    assert found.things == {"scarf", "box"}


def test_questions_are_plain_values_of_seed_and_index():
    assert astuple(question(SEED, 5, 1)) == astuple(questions(1)[5])
