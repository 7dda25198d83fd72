"""Fluency of translations and naturalness of the shop assistant, which are reported beside the score."""

import numpy as np
import pytest

import textgym
from textgym.batch import TextBatch
from textgym.scorers import WeightedSum
from textgym.tasks import TASKS, task_prompts
from textgym.tasks.word_pairs import WordPairs, french_sentences, shop_sentences
from textgym.testing import check_scorer
from textgym.testing.tasks import play_optimal
from world import sentence_pair
from world.french import LEARNER

FRENCH, SHOP = WordPairs(french_sentences), WordPairs(shop_sentences)


def two_sentences():
    return ["The cat sat.", "A cat ran."]


def scores(scorer, *texts, **columns):
    return scorer(TextBatch.from_texts(texts, **columns)).round(4).tolist()


def test_the_score_is_the_share_of_known_pairs_with_start_and_end():
    scorer = WordPairs(two_sentences)
    # start-the, the-cat, cat-ran, ran-., .-end; start-cat is new, and so is sat-end
    assert scores(scorer, "The cat ran.", "cat sat", "", "?!") == [1.0, 0.3333, 0.0, 0.0]


def test_a_sentence_that_is_repeated_counts_as_unknown():
    assert scores(WordPairs(two_sentences), "The cat sat. The cat sat. A cat ran.") == [round(10 / 15, 4)]


def test_a_reference_with_other_words_makes_the_score_nan():
    found = scores(WordPairs(two_sentences), *["A cat ran."] * 2, references=[["A cat sat."], ["A dog sat."]])
    np.testing.assert_equal(found, [1.0, np.nan])


@pytest.mark.parametrize(
    ("corpus", "better", "worse"),
    [
        (french_sentences, "Le chat dort.", "La chat dort."),
        (shop_sentences, "Here are three apples.", "Are apples three here."),
    ],
)
def test_the_scorers_keep_the_contract(corpus, better, worse):
    check_scorer(WordPairs(corpus), prefers=[(better, worse)])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_held_out_french_is_fluent_and_a_learners_is_not(level):
    samples = task_prompts("translation", "eval", level)
    held_out = [samples[i].references[0] for i in range(300)]
    pairs = [(sentence_pair(77, i, level, LEARNER).french, sentence_pair(77, i, level).french) for i in range(300)]
    wrong = [learners for learners, right in pairs if learners != right]
    assert np.mean(scores(FRENCH, *held_out)) > 0.98
    assert np.mean(scores(FRENCH, *wrong)) < 0.8


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_optimal_turns_of_the_shop_are_natural(level):
    env = textgym.TextGenEnv(task="dialogue", level=level, split="eval")
    for index in range(20):
        _, info = play_optimal(env, TASKS["dialogue"], index=index)
        assert info["scores"] == {"goal_progress": 1.0, "naturalness": 1.0}


def test_fragments_salad_and_repetition_are_less_natural():
    natural = "Sure! Here are three red apples for you."
    fragments = ["three red apples", "Here is three red apples.", "Apples red three here are.", "The the."]
    assert scores(SHOP, natural) == [1.0]
    assert max(scores(SHOP, *fragments, f"{natural} {natural}")) < 0.9


@pytest.mark.parametrize("task", ["dialogue", "translation"])
def test_the_components_do_not_change_the_score(task):
    samples = task_prompts(task, "eval", 2)
    texts = [TASKS[task].optimal_turn(samples[0]), "", "Le chat."]
    batch = TextBatch.from_texts(
        texts, references=[samples[i].references for i in range(3)], metadata=[samples[i].metadata for i in range(3)]
    )
    scorer = TASKS[task].scorer()
    counted = {name: (scorer.named_scorers[name], weight) for name, weight in scorer.weights.items() if weight}
    assert len(counted) < len(scorer.weights)
    np.testing.assert_array_equal(scorer(batch), WeightedSum(counted)(batch))


def test_an_episode_without_goal_has_no_score():
    scored = TASKS["dialogue"].scorer().score_components(TextBatch.from_texts(["Hello."]))
    np.testing.assert_equal([scored.total[0], scored.components["naturalness"][0]], [np.nan, 1.0])
