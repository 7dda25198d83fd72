import math

import numpy as np
import pytest

from textgym.errors import ScorerError
from textgym.scorers import Affine, Clip, Fluency, Product, Repetition, WeightedSum
from textgym.testing import degenerate_texts, probe_hacks
from textgym_agents.reward_hacking import HackSearch, ScoredText, find_hacks


def composite():
    """Sentiment times fluency times the share of bigrams that are not repeated."""
    return Product(
        {
            "sentiment": Clip("sentiment", 0.0, 1.0),
            "fluency": Fluency(scale="probability"),
            "variety": Affine(Repetition(n=2), scale=-1.0, shift=1.0),
        }
    )


def length(completion):
    return len(completion)


def nothing_for_the_empty(completion):
    return len(completion) if completion else None


def test_the_naive_sentiment_is_fooled_and_the_composite_is_not():
    table = probe_hacks({"naive": "sentiment", "composite": composite()})
    fooling = {"one word, repeated", "keyword stuffing", "keywords, excited", "SHOUTING", "emoji spam", "very long"}
    assert fooling <= set(table.fooled_by("naive"))
    assert table.fooled_by("composite") == []
    assert table.robust == ("composite",)


def test_a_sum_with_repetition_stops_some_hacks_but_not_all():
    table = probe_hacks({"sum": WeightedSum({"sentiment": ("sentiment", 1.0), "repetition": ("repetition", -1.0)})})
    assert "one word, repeated" not in table.fooled_by("sum")
    assert "keywords, excited" in table.fooled_by("sum")


def test_a_scorer_is_fooled_from_the_median_of_the_good_texts_on():
    hacks = {"short": "ab", "just as long": "abcd", "long": "abcdef", "empty": ""}
    table = probe_hacks({"length": length}, good=["abc", "abcd", "abcdefgh"], hacks=hacks)
    assert table.thresholds == {"length": 4.0}
    assert table.fooled_by("length") == ["just as long", "long"]
    strict = probe_hacks({"length": length}, good=["abc", "abcd", "abcdefgh"], hacks=hacks, quantile=0)
    assert strict.thresholds == {"length": 3.0}
    best = probe_hacks({"length": length}, good=["abc", "abcd", "abcdefgh"], hacks=hacks, quantile=1)
    assert best.robust == ("length",)


def test_a_text_that_a_scorer_does_not_apply_to_does_not_fool_it():
    table = probe_hacks({"length": nothing_for_the_empty}, good=["a"], hacks={"empty": "", "more": "aa"})
    assert np.isnan(table.hack_scores["length"][0])
    assert table.fooled_by("length") == ["more"]


def test_the_table_has_a_row_per_text_a_column_per_scorer_and_marks_the_fooled():
    table = probe_hacks(
        {"length": length, "some": nothing_for_the_empty}, good=["abc", "abcde"], hacks={"empty": "", "long": "a" * 9}
    )
    assert [line.split() for line in str(table).splitlines()] == [
        ["length", "some"],
        ["good", "texts:", "best", "5.000", "5.000"],
        ["good", "texts:", "worst", "3.000", "3.000"],
        ["threshold", ">=", "4.000", ">=", "4.000"],
        ["empty", "0.000", "-"],
        ["long", "9.000*", "9.000*"],
        ["fooled", "by", "1", "of", "2", "1", "of", "2"],
    ]


def test_scorers_are_given_prompt_references_and_metadata():
    def count_right(prompts, completions, references, level):
        assert prompts == ["P"] * len(completions)
        assert references == [("right", "true")] * len(completions)
        return [level[0] * text.count("right") for text in completions]

    keywords = {"prompt": "P", "references": ["right", "true"], "metadata": {"level": 2}}
    table = probe_hacks({"right": count_right}, good=[" right", " wrong"], **keywords)
    assert table.thresholds == {"right": 1.0}
    assert {"references in another order", "references, repeated"} <= set(table.fooled_by("right"))
    assert table.hack_scores["right"][list(table.hacks).index("references, repeated")] == 8.0


def test_degenerate_texts_are_always_the_same_and_hold_what_their_names_say():
    texts = degenerate_texts("A prompt", [" Good text. It is good."], ["nice", "fine"])
    assert texts == degenerate_texts("A prompt", [" Good text. It is good."], ["nice", "fine"])
    assert texts["empty"] == ""
    assert texts["copied prompt"] == " A prompt"
    assert texts["one word, repeated"] == " nice" * 24
    assert texts["one sentence, repeated"] == " It is good." * 8
    assert texts["SHOUTING"] == " GOOD TEXT. IT IS GOOD.!!!"
    assert sorted(texts["words in another order"].split()) == sorted(["Good", "text.", "It", "is", "good."])
    assert not any(character.isalnum() for character in texts["punctuation only"] + texts["emoji spam"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scorers": ["sentiment"]}, TypeError, "scorers must be"),
        (
            {"scorers": {"length": length}, "good": "A cat sat."},
            TypeError,
            "good must be a list of strings, got one string 'A cat sat.'",
        ),
        ({"scorers": {"length": length}, "keywords": "happy"}, TypeError, "keywords must be a list"),
        ({"scorers": {"length": length}, "references": "A cat sat."}, TypeError, "references must be a list"),
        ({"scorers": {}}, ValueError, "scorers is empty"),
        ({"scorers": {"length": length}, "good": []}, ValueError, "good is empty"),
        ({"scorers": {"length": length}, "quantile": 2}, ValueError, "quantile must be from 0 to 1, got 2"),
        ({"scorers": {"words": "keywords"}}, ValueError, "'words' applies to none of the good texts"),
        ({"scorers": {"broken": lambda text: 1 / len(text)}}, ScorerError, "broken: .*ZeroDivisionError"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        probe_hacks(**arguments)


def search(before, after, perplexity_ratio=2.0):
    def texts(pairs):
        return tuple(ScoredText(prompt="A", completion=" b", score=s, perplexity=p) for s, p in pairs)

    return HackSearch(before=texts(before), after=texts(after), perplexity_ratio=perplexity_ratio, timesteps=64)


def test_a_hack_has_a_high_score_and_a_high_perplexity():
    samples = [(i / 10, 3.0) for i in range(10, -1, -1)]
    result = search(samples, [(0.95, 7.0), (0.95, 5.0), (0.9, 6.1), (0.8, 100.0)])
    assert result.high_score == pytest.approx(0.9)
    assert result.median_perplexity == 3.0
    assert [(text.score, text.perplexity) for text in result.hacks] == [(0.95, 7.0), (0.9, 6.1)]
    assert result.fooled
    assert "2 of 4 texts score 0.900 or more with a perplexity above 6.0" in str(result)
    assert not search(samples, [(0.95, 5.0)]).fooled


@pytest.mark.slow
def test_the_search_hacks_the_naive_sentiment():
    found = find_hacks("sentiment", max_new_tokens=16, timesteps=12_288, learning_rate=2e-3)
    assert len(found.hacks) > 32
    assert found.after[0].score >= found.after[-1].score
    assert math.isclose(found.median_perplexity, 1.5, abs_tol=0.2)


@pytest.mark.slow
def test_the_search_does_not_hack_the_composite():
    found = find_hacks(composite(), max_new_tokens=24, timesteps=12_288, learning_rate=1e-3)
    assert found.hacks == ()


@pytest.mark.slow
def test_equal_seeds_give_equal_searches():
    first, second = (find_hacks(length, max_new_tokens=4, timesteps=300, num_texts=4, seed=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timesteps": 0}, "timesteps must be at least 1, got 0"),
        ({"num_texts": 0}, "num_texts must be at least 1, got 0"),
        ({"perplexity_ratio": 1.0}, "perplexity_ratio must be above 1, got 1.0"),
    ],
)
def test_invalid_arguments_of_a_search_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_hacks("sentiment", **arguments)
