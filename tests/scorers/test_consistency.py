import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.batch import TextBatch
from textgym.scorers import Consistency, as_scorer, find_inconsistencies, scorer_name
from textgym.scorers.language.consistency import _Reader
from textgym.scorers.language.story_words import nouns, word_lists
from world import story

HELD_OUT = range(1_000_000_000, 1_000_000_200)


def found(text, start=0):
    return [(each.kind, text[each.start : each.end]) for each in find_inconsistencies(text, start)]


def test_the_scorer_has_a_name():
    assert scorer_name(as_scorer("consistency")) == "consistency"


CONSISTENT = {
    "hero named first": "Luca lit the oven. He made bread. Luca was happy.",
    "called": "A shy girl called Emma saw it first. Then a boy called Ben came. Emma gave him her ball.",
    "relation": "Luca was late. His friend Iris laughed, and Luca told his sister Rosa.",
    "relation before the hero": "Luca's mother Anna baked. She gave Luca a cake.",
    "title": "Rosa baked. Her neighbour Mr. Bell came by. Mr Bell ate two buns, and he thanked her.",
    "Mum": 'Mum called. "Come here, Tom," she said. Tom came, and she hugged him.',
    "two heroes": "Anna and Ben sat by the river. She read. He slept.",
    "apposition": "There was a new boy in the class, Pavel. Hana looked at him. Her brother, Tom, did not.",
    "explained": "Anna waited. Tom, her brother, was late.",
    "narrator": "I could not sleep. My brother Omar woke up. He asked me why. I did not know.",
    "name of the narrator": 'I won the race. "Well done, Nora," my teacher said. She smiled.',
    "letter": "Dear Ben, I am sorry. Please write soon. Your friend Nadia",
    "direct speech": '"Where is she?" Tom asked. "He took my hat," Tom said.',
    "address": "Hugo painted. His aunt Lena watched him. She smiled and said, \u201cYou are good, Hugo.\u201d",
    "strangers": "Omar fell. The doctor came. She looked at his knee. Then a woman gave him her coat.",
    "unknown trade": "The old painter put down her brush. She was tired, and the painter closed her eyes.",
    "animal": "The fox met her friend the crow. She gave him cheese, and the crow sang.",
    "a new animal": "The fox sat by the river. Then a bear came. The bear was hungry, and she ran.",
    "plural": "Two girls sat there. One day she laughed. They were cold.",
    "pronoun before the name": "It was late. When she woke up, Anna was cold.",
    "story that begins with a pronoun": "He was late. He ran, and he fell.",
    "late narrator in speech": 'Tom sat down. He was sad. "I hate my hat," he said.',
    "object in a clause of its own": "Rosa was glad. She said nothing could stop her, and she ate the cake I gave her.",
    "object of another subject": "Leo had a dog. His aunt saw the dog follow him. Leo felt the sun warm him.",
    "object of a place": "Leo looked behind him. He saw a hat in front of him, and he had no coat with him.",
    "two colours": "Tom had a red kite. His sister Anna had a blue kite. The blue kite flew high.",
    "painted": "Tom had a red kite. He painted it. Now he loved his blue kite.",
    "gift": "Tom took his ring and gave it to his aunt Anna. Anna loved her ring.",
    "explained by a clause": "Anna waited. Tom, who was her friend, was late.",
    "several persons": "Anna sat. Her two brothers, Ben and Leo, came. Her friends Hana, Omar and Iris ran. Leo sat.",
    "irregular plural": "Leo waited. Two ladies sat there. One said she was cold.",
    "Mr and Mrs": "Mr. and Mrs. Green lived here. She cooked, and he cleaned.",
    "unlisted name at the start of a sentence": "Sam and Alex ran. It was late. Alex fell. She cried.",
    "two things of one kind": "Leo wore a red hat. His sister Anna wore a hat. Her hat was new. His hat was old.",
    "title explained": "Leo ran. He fell. Mr. Bell, the baker, came. Miss Stone was his teacher. She came too.",
    "another": "Tom lost his red hat. He bought another hat. His new blue hat was warm.",
}


@pytest.mark.parametrize("name", CONSISTENT)
def test_a_consistent_text_has_no_finding(name):
    assert find_inconsistencies(CONSISTENT[name]) == []


PLANTED = {
    "name changes": ("Leo lit the oven. He baked. Noah was happy.", ("persons", "Noah")),
    "name of the other gender": ("Leo lit the oven. He baked. Anna was happy.", ("persons", "Anna")),
    "title changes": ("Leo met his teacher Mr Bell. They ran. Mrs Bell won.", ("persons", "Mrs Bell")),
    "surname changes": ("Leo met his teacher Mr Bell. They ran. Mr. Wood won.", ("persons", "Mr. Wood")),
    "name in speech": ('Leo baked. "Well done, Ben," his aunt said.', ("persons", "Ben")),
    "name in a narrator's story": ("I had a bad day. Ben put an arm around me.", ("persons", "Ben")),
    "name in a story about a trade": ("The baker was sad. She sat down. Ben waited.", ("persons", "Ben")),
    "name of a sister": ("Anna saw her sister Tom.", ("persons", "Tom")),
    "relation changes": ("Leo saw his sister Rosa. He ran. His cousin Rosa laughed.", ("persons", "Rosa")),
    "animal": ("The old fox was hungry. She saw cheese. The crow laughed.", ("persons", "crow")),
    "pronoun of the only person": ("Leo lit the oven. She baked bread.", ("pronouns", "She")),
    "pronoun of a trade": ("The baker lit her oven. She sang. He was happy.", ("pronouns", "He")),
    "pronoun after a long time": (
        "Leo saw his aunt Rosa. He baked. He ate. He slept. He woke up. She was cold.",
        ("pronouns", "She"),
    ),
    "possessive pronoun": ("Leo lost a glove. It was cold. Her fingers hurt.", ("pronouns", "Her")),
    "her sister": ("Leo baked. It was hot. Her sister Rosa came.", ("pronouns", "Her")),
    "reflexive pronoun": ("Leo and his aunt sat there. Leo talked to herself.", ("pronouns", "herself")),
    "of oneself": ("Leo and his aunt sat there. She closed his eyes.", ("pronouns", "his")),
    "object": ("Leo baked. The customer shouted at her.", ("pronouns", "her")),
    "object of the same subject": ("Leo baked. He gave him a cake.", ("pronouns", "him")),
    "narrator": ("Leo lit the oven. He baked bread. I was tired.", ("pronouns", "I")),
    "he in a narrator's story": ("I lit the oven. The bread burned. He cried.", ("pronouns", "He")),
    "colour": ("Leo had a red kite. It flew. His blue kite fell.", ("things", "kite")),
    "kind": ("Leo lost his key. He looked for it. There lay the hat.", ("things", "hat")),
    "kind of pet": ("Leo called his dog. He waited. The rabbit came home.", ("things", "rabbit")),
    "kind of two words": ("Leo found a locket. It was old. The music box shone.", ("things", "box")),
    "owner": ("Leo and his aunt sat there. Leo lost his key. Then her key lay on the road.", ("things", "key")),
    "owner by name": ("Leo and his aunt Rosa came. His hat was wet. Rosa's hat was old.", ("things", "hat")),
    "owner is the narrator": ("I met Leo. My umbrella was wet. His umbrella fell.", ("things", "umbrella")),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    text, fault = PLANTED[name]
    assert found(text) == [fault]


WORDS = (
    "Leo",
    "Rosa",
    "Mr",
    "Bell",
    "his",
    "sister",
    "she",
    "himself",
    "I",
    "called",
    "the",
    "fox",
    "red",
    "kite",
    "it",
)


def test_a_message_states_the_owners():
    messages = [each.message for each in find_inconsistencies("I met Leo. My umbrella was wet. His umbrella fell.")]
    assert messages == ["The umbrella belonged to the narrator before and belongs to a man now."]


def test_persons_of_a_text_without_end_are_forgotten():
    text = "Leo sat. " + " ".join(
        f"he saw {chr(65 + i % 26)}{'abcdefghij'[i // 26 % 10]}{'qwv'[i // 260]}," for i in range(600)
    )
    reader = _Reader(text, 0)
    assert list(reader.read()) == []
    assert "Leo" in reader.persons
    assert len(reader.persons) == 50
    assert find_inconsistencies(", ".join(f"a {noun}" for noun in nouns()) + " met.") == []


def test_messages_state_what_was_there_before():
    messages = [
        each.message for each in find_inconsistencies("Leo had a red kite. She sat. His blue kite fell. Ben ran.")
    ]
    assert messages == [
        "She has no antecedent; the persons near it are Leo.",
        "The kite was red before and is blue now.",
        "Ben has not been introduced; the text names Leo.",
    ]


def test_names_of_the_given_part_are_introduced_and_its_faults_left_out():
    text = "Leo baked. He sang. She and Ben ran. Ben fell. Omar laughed."
    assert found(text) == [("pronouns", "She"), ("persons", "Ben"), ("persons", "Omar")]
    assert found(text, text.index("fell")) == [("persons", "Omar")]


def test_a_name_that_begins_in_the_prompt_counts_for_the_completion():
    text = "Leo baked. He sang. Emil ran."
    assert found(text, text.index("il ran")) == []
    assert found("Leo baked. He sang. Ben ran.", 10) == [("persons", "Ben")]


def test_scores_are_shares_of_the_sentences_of_the_completion():
    prompts = ["Leo lit the oven."] * 3
    completions = [" He baked. It was hot.", " She baked. Ben sang. He ate. It was hot.", " Ben lost her key!"]
    scores = Consistency().score_components(TextBatch.from_texts(completions, prompts))
    assert scores.total.tolist() == [1, 0.5, 0]
    assert {name: values.tolist() for name, values in scores.components.items()} == {
        "persons": [1, 0.75, 0],
        "pronouns": [1, 0.75, 0],
        "things": [1, 1, 1],
    }


def test_a_completion_without_words_scores_0():
    assert Consistency()(TextBatch.from_texts(["", " ", "?! 12"])).tolist() == [0, 0, 0]


def test_an_empty_batch_has_no_scores():
    scores = Consistency().score_components(TextBatch.from_texts([]))
    assert scores.total.shape == (0,)
    assert set(scores.components) == set(Consistency.components)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*"\"\u201c\u201d.,!?'\n", "\n\n", *WORDS]) | st.text(max_size=3)).map(" ".join))
def test_spans_are_words_of_any_text_in_order(text):
    spans = [(each.start, each.end) for each in find_inconsistencies(text)]
    assert spans == sorted(spans)
    assert all(text[start].isalpha() and text[start:end].strip() == text[start:end] for start, end in spans)


def test_stories_of_the_world_are_consistent():
    stories = [story(1, index) for index in HELD_OUT]
    flawed = [text for text in stories if any(each.kind != "things" for each in find_inconsistencies(text))]
    assert len(flawed) <= 0.01 * len(stories), flawed


def test_a_hero_whose_name_changes_is_found_in_stories_of_the_world():
    names = word_lists()["women"]
    stories = [(parts, name) for parts in (story(1, index).split(". ") for index in HELD_OUT) for name in names]
    halves = [(parts[: len(parts) // 2], parts[len(parts) // 2 :], name) for parts, name in stories]
    planted = [
        ". ".join([*first, *(part.replace(name, "Olivia") for part in second)])
        for first, second, name in halves
        if name in " ".join(first).split() and name in " ".join(second).split()
    ]
    assert len(planted) >= 20
    recall = np.mean([("persons", "Olivia") in found(text) for text in planted])
    assert recall >= 0.95
