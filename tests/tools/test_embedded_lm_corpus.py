"""The corpus of the embedded LM: reproducible documents with the stated shares of kinds, levels and flaws."""

import functools
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from embedded_lm_corpus import (
    CHATTER,
    EOS,
    FLAWS,
    KIND_SHARES,
    LEVEL_SHARES,
    USUAL_CHATTER,
    customer_turn,
    dialogue_prompt,
    document,
    plan,
    question_prompt,
    summary_prompt,
    translation_prompt,
)
from fixtures import ROOT
from textgym.tasks.shop import customer_reply, optimal_reply, progress
from world.questions import question
from world.shopping import shopping
from world.summaries import summary
from world.translation import sentence_pair

SEED = 3
LEVELS = (1, 2, 3)
NUM_DOCUMENTS = 12_000


@functools.cache
def documents():
    return [document(SEED, index) for index in range(NUM_DOCUMENTS)]


@functools.cache
def plans():
    return [plan(SEED, index)[:2] for index in range(NUM_DOCUMENTS)]


def test_the_corpus_never_changes_unnoticed():
    # The embedded LM was trained on these very documents: after a deliberate change, train it again, renew the digest.
    digest = hashlib.sha256("\n\n".join(document(1, index) for index in range(1000)).encode()).hexdigest()
    assert digest == "1efe1ef276ae52d729ae3525cf26542b84850631dcef9f760b29b5ad7da6bb28"


def test_another_process_with_another_hash_seed_writes_the_same_documents():
    program = "from embedded_lm_corpus import document\nprint([document(3, i) for i in range(40)])"
    for seed in ("1", "2"):
        environment = {
            "PYTHONHASHSEED": seed,
            "PYTHONUTF8": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")]),
        }
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8",
            env=environment,
        )  # fmt: skip
        assert done.stdout.strip() == repr([document(SEED, index) for index in range(40)])


@pytest.mark.parametrize("level", LEVELS)
def test_a_chatty_helper_fails_and_makes_no_progress(level):
    for index, chatter in enumerate((*CHATTER, USUAL_CHATTER)):
        goal, turns = shopping(SEED, index, level), [chatter]
        assert not customer_reply(goal, turns).outcome
        turns.append(chatter)
        assert (customer_reply(goal, turns).outcome, progress(goal, turns)) == ("failure", 0.0)


def test_kinds_and_levels_have_their_shares():
    kinds, levels = Counter(kind for kind, _ in plans()), Counter(level for _, level in plans())
    for kind, share in KIND_SHARES.items():
        assert kinds[kind] / NUM_DOCUMENTS == pytest.approx(share, abs=0.02)
    for level, share in LEVEL_SHARES.items():
        assert levels[level] / NUM_DOCUMENTS == pytest.approx(share, abs=0.02)


def test_every_table_of_flaws_sums_to_one_and_leaves_good_answers_enough():
    for kind, by_level in FLAWS.items():
        for shares in by_level.values():
            assert sum(shares.values()) == pytest.approx(1)
            assert shares["good"] >= 0.3
        assert any(max(shares, key=shares.get) != "good" for shares in by_level.values()), kind


def documents_of(kind, level):
    return [(i, documents()[i]) for i in range(NUM_DOCUMENTS) if plans()[i] == (kind, level)]


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_translations_have_their_format_and_share_of_good_ones(level):
    good = learner = 0
    found = documents_of("translation", level)
    for index, text in found:
        pair = sentence_pair(SEED, index, level)
        prompt = translation_prompt(pair.english)
        assert text.startswith(prompt + " ")
        assert text.count("\n") == 1
        good += text == f"{prompt} {pair.french}"
        learner += text != f"{prompt} {pair.french}" and EOS not in text
    # A learner's sentence may be right by chance, so right ones are at least as many as good ones.
    assert FLAWS["translation"][level]["good"] - 0.06 < good / len(found) < 0.75
    assert learner / len(found) > 0.25


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_answers_in_the_corpus_have_their_shares(level):
    flaws = Counter()
    found = documents_of("qa", level)
    for index, text in found:
        asked = question(SEED, index, level)
        prompt = question_prompt(asked)
        assert text.startswith(prompt + " ")
        answer = text.removeprefix(prompt + " ")
        flaws["good"] += answer == asked.answer
        flaws["rambling"] += answer.startswith(("I think", "It was, I believe"))
    shares = FLAWS["qa"][level]
    assert flaws["rambling"] / len(found) == pytest.approx(shares["rambling"], abs=0.06)
    assert flaws["good"] / len(found) == pytest.approx(shares["good"], abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_summaries_in_the_corpus_have_their_shares(level):
    flaws = Counter()
    found = documents_of("summary", level)
    for index, text in found:
        item = summary(SEED, index, level)
        prompt = summary_prompt(item)
        assert text.startswith(prompt + " ")
        written = text.removeprefix(prompt + " ")
        flaws["good"] += written == item.summary
        flaws["copied"] += written.startswith(item.sentences[0]) and written.count(".") <= 2 and written != item.summary
    shares = FLAWS["summary"][level]
    assert flaws["good"] / len(found) == pytest.approx(shares["good"], abs=0.06)
    assert flaws["copied"] / len(found) == pytest.approx(shares["copied"], abs=0.11)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_dialogues_follow_the_script_and_have_their_share_of_good_turns(level):
    good = total = 0
    found = documents_of("dialogue", level)
    for index, text in found:
        goal, turns = shopping(SEED, index, level), []
        expected = dialogue_prompt(goal)
        for reply in re.findall(rf"Helper: (.*?){re.escape(EOS)}", text):
            best = optimal_reply(goal, turns)
            good += best.startswith(reply)
            total += 1
            turns.append(reply)
            expected += f" {reply}{EOS}"
            answer = customer_reply(goal, turns)
            expected += f"\nCustomer: {answer.text}" if answer.outcome else customer_turn(answer.text)
        assert answer.outcome in ("success", "failure")
        assert text == expected
    assert good / total == pytest.approx(FLAWS["dialogue"][level]["good"], abs=0.06)


@pytest.mark.slow
def test_no_document_ends_with_the_end_of_text_token_or_a_space():
    for (kind, _), text in zip(plans(), documents(), strict=True):
        assert not text.endswith((EOS, " ", "\n"))
        assert kind == "dialogue" or EOS not in text
        assert "  " not in text


def test_flawed_documents_are_about_as_many_as_good_ones_or_more():
    for by_level in FLAWS.values():
        flawed = sum(share * (1 - by_level[level]["good"]) for level, share in LEVEL_SHARES.items())
        assert 0.55 < flawed < 0.70


def test_corpus_documents_are_plain_values_of_seed_and_index():
    first = [document(SEED, index) for index in range(50)]
    assert [document(SEED, index) for index in range(50)] == first
    assert document(SEED + 1, 0) != first[0]
