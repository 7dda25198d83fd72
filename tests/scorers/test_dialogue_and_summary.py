"""Scorers of summaries and dialogues: Compression, Faithfulness, AgentTurns."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.prompts import Sample
from textgym.scorers import (
    ROUGE,
    AgentTurns,
    Compression,
    ExactMatch,
    Faithfulness,
    Scorer,
    as_scorer,
    component_names,
    evaluate,
    scorer_name,
)
from textgym.testing import check_scorer
from textgym.tokenizers import ByteTokenizer

NAN = float("nan")
SOURCE = {"source": "On Monday Anna met two dogs and Mr. Smith at the mill in Rome."}
EOS = 256


def score(scorer, completion, prompt="", **metadata):
    return scorer(TextBatch.from_texts([completion], [prompt], metadata=[metadata])).item()


# All scorers of summaries


@pytest.mark.parametrize(
    "scorer",
    [
        "compression",
        "faithfulness",
        Compression(0.0, 0.9, column=None),
        Faithfulness(none=1.0, source=None, entities=None, vocabulary=None),
        Faithfulness(none=NAN),
    ],
)
@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({}, marks=pytest.mark.slow),
        SOURCE | {"entities": ["Anna", "dog"], "vocabulary": "cat, happy dog, sat"},
    ],
)
def test_every_scorer_follows_the_contract(scorer, metadata):
    check_scorer(scorer, metadata=metadata)


@pytest.mark.parametrize("name", ["compression", "faithfulness"])
def test_the_id_is_the_name_in_info(name):
    assert scorer_name(as_scorer(name)) == name


@pytest.mark.parametrize("scorer", [Compression(), Faithfulness()])
def test_the_source_is_the_column_else_the_prompt(scorer):
    batch = TextBatch.from_texts(
        ["Anna ran."] * 4,
        ["Anna ran to Rome.", "Ben sat.", "Anna ran to Rome.", ""],
        metadata=[{}, {"source": "Anna ran to Rome."}, {"source": None}, {}],
    )
    np.testing.assert_allclose(scorer(batch), [1, 1, 1, NAN])
    assert score(type(scorer)(**{scorer_column(scorer): "text"}), "Anna ran.", text="Anna ran to Rome.") == 1
    assert score(type(scorer)(**{scorer_column(scorer): None}), "Anna ran.", "Anna ran to Rome.", source="") == 1


def scorer_column(scorer):
    return "column" if isinstance(scorer, Compression) else "source"


@pytest.mark.parametrize("scorer", [Compression(), Faithfulness()])
def test_a_source_that_is_not_a_text_fails(scorer):
    with pytest.raises(ScorerError, match=r"the column 'source' of a sample is \['Anna'\], expected the source as a"):
        evaluate(scorer, TextBatch.from_texts(["Anna"], metadata=[{"source": ["Anna"]}]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Compression(0.5, 0.4), r"expected 0 <= low <= high < 1, got low=0.5, high=0.4"),
        (lambda: Compression(-0.1, 0.4), "got low=-0.1"),
        (lambda: Compression(high=1.0), "high=1.0"),
        (lambda: Compression(low=NAN), "low=nan"),
        (lambda: Faithfulness(none=1.5), r"none must be in \[0, 1\] or NaN, got 1\.5"),
    ],
)
def test_invalid_options_are_rejected(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Compression


@pytest.mark.parametrize(
    ("num_words", "expected"),
    [(0, 0), (1, 0.5), (2, 1), (4, 1), (6, 1), (8, 0.75), (13, 0.125), (14, 0), (15, 0), (40, 0)],
)
def test_compression_is_1_in_a_band_and_falls_to_0_at_no_words_and_at_the_length_of_the_source(num_words, expected):
    # 14 words: 2 to 6 words score 1, each further one costs 1/8.
    found = score(Compression(2 / 14, 6 / 14), "cat " * num_words, source="dog " * 14)
    assert found == pytest.approx(expected)


def test_an_empty_completion_scores_0_even_if_low_is_0():
    assert score(Compression(low=0), "", source="a b c d") == score(Compression(low=0), " ...", source="a b") == 0
    assert score(Compression(low=0), "a", source="word " * 1000) == 1


# Faithfulness


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Anna met Smith in Rome.", 1),
        ("Anna met Jones in Rome.", 2 / 3),
        ("Ben met Jones.", 0),
        ("anna met ben.", 0),  # lower-case names are not entities
        ("ANNA", 1),
        ("Anna's dogs, Anna\u2019s mill", 1),
        ("Anna. Anna. Anna. Ben.", 1 / 2),  # distinct entities
        ("Then she met Anna. The mill was hers. They left.", 1),  # function words begin sentences
        ('She said: "The mill," and then Anna said: "No"', 1),
        ("I met Anna. I'm sure. Don't ask me, Mr. Smith.", 1),
        ("A trip to The Mill", 1),  # The is not at the start of a sentence, but in the source
        ("Mills were there.", 0),
        ("Dogs met Anna.", 1),  # a word that begins a sentence is looked up in any case
        ("Cats met Anna.", 1 / 2),
        ("Anna\nThen Rome", 1),
    ],
)
def test_capitalised_words_must_be_in_the_source(completion, expected):
    assert score(Faithfulness(), completion, **SOURCE) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("completion", "source", "expected"),
    [
        ("two cats", "2 cats", 1),
        ("2 cats", "Two cats", 1),
        ("three cats", "2 cats", 0),
        ("it took 1,200.50 and 7", "it took 1200.5 and seven", 1),
        ("zero to twenty", "0 to 20", 1),
        ("twenty-one", "20 and 1", 1),  # word by word
        ("21", "twenty-one", 0),
        ("the 2nd", "1", 0),
        ("012", "12", 1),
        ("3.5", "3 and 5", 0),
        ("\u0663", "three", 1),  # an Arabic 3
    ],
)
def test_numbers_in_digits_and_in_words_are_the_same(completion, source, expected):
    assert score(Faithfulness(), completion, source=source) == expected


def test_listed_words_and_phrases_count_in_any_case_and_as_whole_words():
    columns = {"source": "The red  hat lay by a mill.", "vocabulary": ["mill", "Red Hat", "cat", "blue-grey coat"]}
    assert score(Faithfulness(), "a red hat by the mill", **columns) == 1
    assert score(Faithfulness(), "a cat by the MILL", **columns) == 1 / 2
    assert score(Faithfulness(), "a blue-grey  coat, a red\nhat", **columns) == 1 / 2
    assert score(Faithfulness(none=0.25), "mills and concats", **columns) == 0.25
    assert score(Faithfulness(vocabulary=None, none=0.25), "a cat by the mill", **columns) == 0.25
    assert score(Faithfulness(vocabulary="words"), "a cat", source="a dog", words="dog, cat") == 0
    assert score(Faithfulness(vocabulary=("cat", "red hat")), "a cat in a red hat", **columns) == 1 / 2


def test_listed_entities_are_supported_in_forms_that_the_source_lacks():
    columns = {"source": "Two scarves hung there.", "vocabulary": ["scarf", "lamp"]}
    assert score(Faithfulness(), "a scarf and a lamp", **columns) == 0
    assert score(Faithfulness(), "a scarf and a lamp", **columns, entities=["scarf"]) == 1 / 2
    assert score(Faithfulness(), "a wool scarf", **columns, entities=["wool scarf"]) == 1 / 2
    assert score(Faithfulness(), "a scarf", **columns, entities=frozenset(["scarf"])) == 1
    assert score(Faithfulness(entities=None), "a scarf", **columns, entities=["scarf"]) == 0


@pytest.mark.parametrize(("none", "expected"), [(0.0, 0), (1.0, 1), (NAN, NAN)])
@pytest.mark.parametrize("completion", ["", "they met there", "..."])
def test_a_text_without_entities_scores_none_which_is_0_by_default(none, expected, completion):
    np.testing.assert_equal(score(Faithfulness(none), completion, **SOURCE), expected)
    assert score(Faithfulness(), completion, **SOURCE) == 0


def test_vague_and_empty_texts_and_a_single_name_score_below_a_summary():
    scorer = as_scorer({ROUGE(): 1.0, "faithfulness": 1.0, "compression": 1.0})
    texts = ["Anna met two dogs and Smith in Rome.", "She met them there.", "", "Anna", SOURCE["source"]]
    batch = TextBatch.from_texts(texts, references=[["Anna met two dogs in Rome."]] * 5, metadata=[SOURCE] * 5)
    summary, *others = scorer(batch)
    assert summary > max(others)


@pytest.mark.parametrize("column", ["entities", "vocabulary"])
@pytest.mark.parametrize("value", [7, {"a": 1}, [7], [["a"]]])
def test_a_column_that_is_not_a_list_of_words_fails(column, value):
    with pytest.raises(ScorerError, match="listed word"):
        evaluate(Faithfulness(), TextBatch.from_texts(["Anna"], metadata=[SOURCE | {column: value}]))


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_copy_of_the_source_scores_1_and_any_text_is_in_range(source, other):
    copied, unlike = Faithfulness(none=1.0)(
        TextBatch.from_texts([source, other], metadata=[{"source": source}] * 2)
    ).tolist()
    assert np.isnan(copied) if not source.strip() else copied == 1
    assert np.isnan(unlike) if not source.strip() else 0 <= unlike <= 1


# AgentTurns


def dialogue(*turns, prompt="Hello. ", reference="Hi! Bye!", metadata=None, done=True):
    """Return an episode of alternating turns of agent and user; an EOS ends each agent turn before a user turn."""
    tokenizer = ByteTokenizer()
    row, is_action = tokenizer.encode(prompt), [False] * len(tokenizer.encode(prompt))
    start = len(row)
    for i, text in enumerate(turns):
        ids = tokenizer.encode(text) + [EOS] * (i % 2 == 0 and i + 1 < len(turns))
        row += ids
        is_action += [i % 2 == 0] * len(ids)
    return TextBatch(
        tokenizer,
        np.array([row]),
        np.array([len(row)]),
        np.array([start]),
        [Sample(prompt, (reference,), metadata or {})],
        np.array([done]),
        np.array([3]),
        np.array([is_action]),
        [turns[1::2]],
    )


class Records(Scorer):
    """Records the batch that it scores."""

    def __call__(self, batch):
        self.batch = batch
        return np.array([float(len(text)) for text in batch.completions])


def test_the_scorer_observes_the_joined_turns_of_the_agent_and_an_otherwise_equal_batch():
    seen = Records()
    batch = dialogue("Hi!", "\nUser: more\n", " Bye!", metadata={"goal": 1}, done=False)
    assert AgentTurns(seen)(batch).tolist() == [len("Hi!\n Bye!")]
    assert seen.batch.completions == ["Hi!\n Bye!"]
    assert seen.batch.completion_ids == [[*b"Hi!", EOS, *b" Bye!"]]
    assert seen.batch.num_new_tokens.tolist() == batch.num_actions.tolist() == [9]
    assert (seen.batch.prompts, seen.batch.references) == (["Hello. "], [("Hi! Bye!",)])
    assert (seen.batch.metadata, seen.batch.done.tolist(), seen.batch.slots.tolist()) == ([{"goal": 1}], [False], [3])
    assert seen.batch.agent_turns == [["Hi!\n Bye!"]]
    assert batch.completions == ["Hi!\nUser: more\n Bye!"]


def test_the_separator_of_turns_is_configurable():
    batch = dialogue("Hi!", "more", "Bye!")
    assert AgentTurns(ExactMatch(ignore_punctuation=False), join=" ")(batch) == 1
    assert AgentTurns(ExactMatch(ignore_punctuation=False), join="")(batch) == 0
    assert ExactMatch()(batch) == 0
    with pytest.raises(TypeError, match="join is None, expected a string"):
        AgentTurns("sentiment", join=None)


def test_the_users_turns_do_not_change_the_score():
    scorer = AgentTurns({"sentiment": 1.0, "length_band": 0.5})
    good, bad = (dialogue("I am glad.", f"\nUser: {word}!\n", "Bye") for word in ("wonderful", "terrible"))
    assert scorer(good) == scorer(bad)
    assert as_scorer("sentiment")(good) > as_scorer("sentiment")(bad)


def test_without_a_user_the_score_is_that_of_the_scorer():
    seen = Records()
    batch = TextBatch.from_texts(["Hi!"])
    AgentTurns(seen)(batch)
    assert seen.batch is batch
    check_scorer(AgentTurns("sentiment"))
    check_scorer(AgentTurns({"sentiment": 1.0, "repetition": -1.0}))


def test_an_agent_without_turns_scores_as_an_empty_text():
    assert AgentTurns(len)(dialogue()) == 0
    assert AgentTurns("token_f1")(dialogue("", "more", "")) == 0


def test_name_parts_range_and_kind_are_the_scorers():
    scorer = AgentTurns({"sentiment": 1.0, "repetition": -0.5})
    inner = as_scorer({"sentiment": 1.0, "repetition": -0.5})
    assert (scorer_name(scorer), component_names(scorer)) == (scorer_name(inner), component_names(inner))
    assert (scorer.score_range, scorer.deterministic) == (inner.score_range, True)
    assert as_scorer("length_band").incremental
    assert not AgentTurns("length_band").incremental
    components = evaluate(scorer, dialogue("I am glad.", "sad", "no no")).components
    assert components.keys() == {"sentiment", "repetition"}
    assert AgentTurns(Records()).score_range is None


def test_a_failure_of_the_scorer_is_reported_also_by_a_pickled_copy():
    with pytest.raises(ScorerError, match="token_f1"):
        evaluate(AgentTurns("token_f1"), TextBatch.from_texts(["a"]))
    scorer = pickle.loads(pickle.dumps(AgentTurns("sentiment", join=" ")))
    assert scorer(dialogue("I am", "sad", "glad")) == AgentTurns("sentiment", join=" ")(dialogue("I am glad")) > 0
