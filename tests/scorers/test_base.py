import ast
import asyncio
import dataclasses
import functools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym.scorers
from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import (
    GroupPercentile,
    Keywords,
    LengthBand,
    Regex,
    Repetition,
    Scorer,
    Scores,
    Sentiment,
    WeightedSum,
    as_scorer,
    evaluate,
    register_scorer,
    score_batch,
    scorer_name,
    scorer_names,
)
from textgym.scorers.catalogue import CATALOGUE
from textgym.scorers.evaluation import observes

NAN = float("nan")


class Returns(Scorer):
    """Returns a fixed result."""

    def __init__(self, result):
        self.result = result

    def __call__(self, batch):
        return self.result


class Raises(Scorer):
    def __call__(self, batch):
        raise KeyError("lost")


def batch_of(*completions, **columns):
    return TextBatch.from_texts(list(completions), **columns)


def values(scorer, *completions, **columns):
    return as_scorer(scorer)(batch_of(*completions, **columns)).tolist()


# The checked evaluation


@pytest.mark.parametrize(
    "result", [[1, 2], (1.0, 2.0), np.array([1, 2]), np.float32([1, 2]), np.array([1, 2], dtype=object)]
)
def test_any_sequence_of_numbers_becomes_float64(result):
    total = evaluate(Returns(result), batch_of("a", "b")).total
    assert total.dtype == np.float64
    assert total.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0], "'returns' returned 1 scores for 2 episodes"),
        (np.zeros(3), "'returns' returned 3 scores for 2 episodes"),
        (np.zeros((2, 1)), r"'returns' returned an array of shape \(2, 1\) for 2 episodes"),
        (1.0, r"'returns' returned an array of shape \(\) for 2 episodes"),
        (["1.0", "2.0"], r"'returns' returned \['1.0', '2.0'\], expected 2 numbers"),
        (["good", None], "'returns' returned 'good', expected a number"),
        ([1j, 2j], r"'returns' returned \[1j, 2j\], expected 2 numbers"),
        ([[1.0], [1.0, 2.0]], "'returns' returned .*, expected 2 numbers"),
        ({"a": 1.0, "b": 2.0}, "'returns' returned .*, expected 2 numbers"),
        (None, "'returns' returned .*, expected 2 numbers"),
        ([0.0, float("inf")], "'returns' gave inf for episode 1 of 2, completion 'second'"),
        ([-np.inf, 0.0], "'returns' gave -inf for episode 0 of 2, completion 'first'"),
        (
            [0.0, NAN],
            r"'returns' gave no score \(None or NaN\) for episode 1 of 2, completion 'second'",
        ),
        (
            [None, 1.0],
            r"'returns' gave no score \(None or NaN\) for episode 0 of 2, completion 'first'",
        ),
    ],
)
def test_a_result_that_is_not_one_finite_number_per_episode_is_a_scorer_error(result, message):
    with pytest.raises(ScorerError, match=message):
        evaluate(Returns(result), batch_of("first", "second"))


def test_a_scorer_that_raises_is_named_and_its_exception_is_the_cause():
    with pytest.raises(ScorerError, match="scorer 'raises' raised KeyError: 'lost'") as caught:
        evaluate(Raises(), batch_of("a"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_interrupt_is_not_a_scorer_error():
    def interrupted(completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(as_scorer(interrupted), batch_of("a"), "invalid")


def test_a_long_completion_is_shortened_in_the_error():
    with pytest.raises(ScorerError) as caught:
        evaluate(Returns([NAN]), batch_of("x" * 10_000))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("on_error", "replacement"), [("invalid", NAN), (-1.0, -1.0), (0, 0.0), (np.float32(2), 2.0)])
def test_the_error_policy_touches_only_the_episodes_that_failed(on_error, replacement):
    scores = evaluate(Returns([1.0, float("inf"), None]), batch_of("a", "b", "c"), on_error)
    np.testing.assert_array_equal(scores.total, [1.0, replacement, replacement])
    np.testing.assert_array_equal(scores.components["returns"], [1.0, NAN, NAN])
    np.testing.assert_array_equal(scores.failed, [False, True, True])
    assert "gave inf for episode 1" in scores.error


@pytest.mark.parametrize(("on_error", "replacement"), [("invalid", NAN), (-1.0, -1.0)])
def test_a_scorer_that_raises_fails_for_every_episode(on_error, replacement):
    scores = evaluate(Raises(), batch_of("a", "b"), on_error)
    np.testing.assert_array_equal(scores.total, [replacement] * 2)
    np.testing.assert_array_equal(scores.components["raises"], [NAN, NAN])
    assert scores.failed.all()
    assert isinstance(scores.cause, KeyError)


class PanicException(BaseException):
    """Derives from BaseException, as pyo3_runtime.PanicException of Rust extensions does."""


def test_a_panic_of_an_extension_is_a_scorer_error():
    def panics(completion):
        if completion == "b":
            raise PanicException("index out of bounds")
        return 1.0

    class Panics(Scorer):
        def __call__(self, batch):
            raise PanicException("index out of bounds")

    scores = evaluate(as_scorer({"function": (panics, 1.0)}), batch_of("a", "b"), "invalid")
    np.testing.assert_array_equal(scores.total, [1.0, NAN])
    assert "raised PanicException: index out of bounds" in scores.error
    with pytest.raises(ScorerError, match="'panics' raised PanicException") as caught:
        evaluate(Panics(), batch_of("a"))
    assert isinstance(caught.value.__cause__, PanicException)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("as_function", [True, False])
def test_exceptions_that_end_the_program_are_not_scorer_errors(kind, as_function):
    def ends(completion):
        raise kind

    class Ends(Scorer):
        def __call__(self, batch):
            raise kind

    with pytest.raises(kind):
        evaluate(as_scorer(ends if as_function else Ends()), batch_of("a"), "invalid")


def test_every_failed_episode_has_its_own_message():
    scores = evaluate(as_scorer(lambda completion: float(completion)), batch_of("one", "2", "three"), "invalid")
    assert list(scores.errors) == [0, 2]
    assert "could not convert string to float: 'one'" in scores.errors[0]
    assert "could not convert string to float: 'three'" in scores.errors[2]
    missing = evaluate(as_scorer(lambda completion: None), batch_of("a", "b"), -1.0)
    assert [missing.errors[i].partition("completion ")[2][:3] for i in (0, 1)] == ["'a'", "'b'"]
    infinite = evaluate(Returns([1.0, np.inf, -np.inf]), batch_of("a", "b", "c"), "invalid")
    assert "gave inf for episode 1" in infinite.errors[1]
    assert "gave -inf for episode 2" in infinite.errors[2]


# The base class


def test_every_hook_is_documented_and_only_call_is_abstract():
    assert Scorer.__abstractmethods__ == {"__call__"}
    (tree,) = (
        node
        for node in ast.parse(Path(textgym.scorers.base.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "Scorer"
    )
    documented = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)}
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            documented.add(node.target.id)
    assert documented == {name for name in vars(Scorer) if not name.startswith("_") or name == "__call__"}


def test_a_scorer_that_implements_only_call_has_all_defaults():
    scorer = Returns([1.0])
    assert (scorer.name, scorer.score_range, scorer.deterministic, scorer.incremental) == ("returns", None, True, False)
    assert (scorer.scorers, scorer.components, scorer.get_state()) == ((), (), None)
    assert not observes(scorer)
    batch = batch_of("a")
    scores = score_batch(scorer, batch)
    assert (scores.total.tolist(), scores.components, scores.errors) == ([1.0], {}, {})
    scorer.set_progress(0.5)
    scorer.observe(batch, scores)
    for call, arguments in ((scorer.begin, ()), (scorer.advance, ([None],)), (scorer.value, ([None],))):
        with pytest.raises(NotImplementedError, match="Returns is not incremental"):
            call(*arguments, batch)
    with pytest.raises(NotImplementedError, match="set_state"):
        scorer.set_state({})


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_exported_class_that_scores_is_a_scorer(name):
    found = getattr(textgym.scorers, name)
    assert not isinstance(found, type) or issubclass(found, Scorer) == ("__call__" in dir(found))


def test_without_an_error_nothing_is_reported():
    scores = evaluate(Returns([1.0]), batch_of("a"), "invalid")
    assert scores.error is None
    assert not scores.failed.any()


@pytest.mark.parametrize("on_error", ["invald", NAN, float("inf"), None, True])
def test_an_unknown_error_policy_is_a_value_error(on_error):
    with pytest.raises(ValueError, match="on_error"):
        evaluate(Raises(), batch_of("a"), on_error)


def test_scores_do_not_change_when_a_scorer_reuses_its_buffer():
    buffer = np.array([1.0])
    scores = evaluate(Returns(buffer), batch_of("a"))
    buffer[0] = 2.0
    assert scores.total.tolist() == [1.0]


def test_no_episodes_have_no_scores():
    for scorer in (Returns([]), as_scorer(len), as_scorer({"sentiment": 1.0, "length_band": 1.0})):
        assert evaluate(scorer, batch_of()).total.shape == (0,)


def test_a_composite_that_does_not_return_scores_is_an_error():
    class Broken(Scorer):
        def __call__(self, batch): ...

        def score_components(self, batch):
            return np.zeros(len(batch)), {}

    with pytest.raises(ScorerError, match=r"'broken' returned .* from score_components, expected Scores"):
        evaluate(Broken(), batch_of("a"))


def test_the_components_of_a_composite_are_checked_too():
    class Broken(Scorer):
        def __call__(self, batch): ...

        def score_components(self, batch):
            return Scores(np.zeros(len(batch)), {"inner": np.zeros(5)})

    with pytest.raises(ScorerError, match="'broken' returned 5 scores for 1 episodes"):
        evaluate(Broken(), batch_of("a"))


# Weighted sums


def test_a_weighted_sum_reports_unweighted_components():
    scorer = WeightedSum({"first": (Returns([1.0, 2.0]), 0.5), "second": (Returns([3.0, -4.0]), -1.0)})
    scores = evaluate(scorer, batch_of("a", "b"))
    assert scores.total.tolist() == [0.5 * 1 - 3, 0.5 * 2 + 4]
    assert {name: column.tolist() for name, column in scores.components.items()} == {
        "first": [1.0, 2.0],
        "second": [3.0, -4.0],
    }


def test_a_component_that_does_not_apply_is_ignored_in_the_sum():
    scorer = WeightedSum({"first": (Returns([1.0, None]), 2.0), "second": (Returns([3.0, 3.0]), 1.0)})
    scores = evaluate(scorer, batch_of("a", "b"))
    assert scores.total.tolist() == [5.0, 3.0]
    np.testing.assert_array_equal(scores.components["first"], [1.0, NAN])


def test_an_episode_to_which_no_component_applies_has_no_score():
    scorer = WeightedSum({"first": (Returns([1.0, None]), 2.0), "second": (Returns([3.0, NAN]), 1.0)})
    np.testing.assert_array_equal(scorer(batch_of("a", "b")), [5.0, NAN])
    with pytest.raises(ScorerError, match=r"'weighted_sum' gave no score \(None or NaN\) for episode 1"):
        evaluate(scorer, batch_of("a", "b"))


def test_a_failing_component_is_an_error_and_not_ignored():
    scorer = WeightedSum({"broken": (Raises(), 1.0), "fine": (Returns([3.0]), 1.0)})
    with pytest.raises(ScorerError, match="component 'broken': scorer 'raises' raised KeyError: 'lost'") as caught:
        evaluate(scorer, batch_of("a"))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ScorerError, match="component 'broken'"):
        scorer(batch_of("a"))
    scores = evaluate(scorer, batch_of("a"), "invalid")
    np.testing.assert_array_equal(scores.total, [NAN])
    assert scores.components["fine"].tolist() == [3.0]
    np.testing.assert_array_equal(scores.components["broken"], [NAN])


def test_a_component_that_fails_for_one_episode_does_not_affect_other_totals():
    scorer = WeightedSum({"broken": (Returns([1.0, np.inf]), 1.0), "fine": (Returns([3.0, 3.0]), 1.0)})
    scores = evaluate(scorer, batch_of("a", "b"), -9.0)
    assert scores.total.tolist() == [4.0, -9.0]
    assert scores.failed.tolist() == [False, True]


def test_a_sum_that_overflows_is_an_error_and_not_infinite():
    scorer = WeightedSum({"large": (Returns([1e308]), 1.0), "larger": (Returns([1e308]), 1.0)})
    with np.errstate(over="ignore"), pytest.raises(ScorerError, match="'weighted_sum' gave inf"):
        evaluate(scorer, batch_of("a"))


def test_nested_components_have_names_with_a_slash():
    scorer = as_scorer({"style": ({"length_band": 1.0, "mine": (len, 2.0)}, 0.5), "repetition": -1.0})
    names = list(evaluate(scorer, batch_of("a b c")).components)
    assert names == ["style", "style/length_band", "style/mine", "repetition"]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({}, ValueError, "at least one scorer"),
        ({"repetition": NAN}, ValueError, "weight of 'repetition' is nan"),
        ({"repetition": "1"}, TypeError, "weight of 'repetition' is '1'"),
        ({"repetition": True}, TypeError, "weight of 'repetition' is True"),
        ({"": (len, 1.0)}, ValueError, "cannot name a component"),
        ({"a/b": (len, 1.0)}, ValueError, "cannot name a component"),
        ({"repetitoin": 1.0}, ValueError, "did you mean 'repetition'"),
        ({"len": (len, 1.0), len: 1.0}, ValueError, "two scorers are named 'len'"),
    ],
)
def test_invalid_weights_are_rejected(weights, error, message):
    with pytest.raises(error, match=message):
        as_scorer(weights)


def test_a_key_may_be_a_scorer_that_keeps_its_name_and_a_value_may_be_a_list_as_json_gives_it():
    scorer = as_scorer({Keywords(["cat"]): 1.0, "size": ["length_band", 0.5]})
    assert list(scorer.named_scorers) == ["keywords", "size"]


# Plain functions


def test_a_function_of_the_completion_is_a_scorer_and_none_means_it_does_not_apply():
    def exclamations(completion, mark="!"):
        return completion.count(mark) or None

    np.testing.assert_array_equal(values(exclamations, "a!!", "b"), [2.0, NAN])
    assert scorer_name(as_scorer(exclamations)) == "exclamations"


def test_a_function_that_raises_for_one_text_fails_for_that_one_alone():
    scorer = as_scorer(lambda completion: float(completion))
    scores = evaluate(scorer, batch_of("1.5", "two"), "invalid")
    np.testing.assert_array_equal(scores.total, [1.5, NAN])
    np.testing.assert_array_equal(scores.components["lambda"], [1.5, NAN])
    assert "raised ValueError" in scores.error
    assert "for the completion 'two'" in scores.error
    with pytest.raises(ScorerError, match="two"):
        scorer(batch_of("two"))


@pytest.mark.parametrize("result", ["1.0", [1.0, 2.0], b"1", object()])
def test_a_function_that_does_not_return_a_number_is_an_error(result):
    with pytest.raises(ScorerError, match=r"returned .*, expected a number, for the completion 'a'"):
        evaluate(as_scorer(lambda completion: result), batch_of("a"))


def test_partials_and_bound_methods_are_scorers_with_names():
    class Judge:
        def praise(self, completion):
            return 1.0

    assert scorer_name(as_scorer(functools.partial(round_length, digits=-1))) == "round_length"
    assert values(functools.partial(round_length, digits=-1), "a" * 12) == [10.0]
    assert scorer_name(as_scorer(Judge().praise)) == "praise"


def round_length(completion, digits):
    return round(len(completion), digits)


def column_lengths(prompts, completions, **columns):
    return [float(len(prompt + text)) for prompt, text in zip(prompts, completions, strict=True)]


def test_scorers_of_picklable_functions_are_picklable():
    for spec in (round_length_to_ten, column_lengths, {"mine": (len, 2.0), "sentiment": 1.0}):
        copied = pickle.loads(pickle.dumps(as_scorer(spec)))
        assert values(copied, "a nice cat") == values(spec, "a nice cat")


def round_length_to_ten(completion):
    return round(len(completion), -1)


# TRL's signature


def test_a_function_of_trls_signature_receives_the_columns_as_lists():
    received = {}

    def spy(prompts, completions, **columns):
        received.update(columns, prompts=prompts, completions=completions)
        return [1.0, None]

    batch = batch_of("x", "yz", prompts=["p", "q"], references=[["r"], []], metadata=[{"answer": 4}, {"level": "hard"}])
    np.testing.assert_array_equal(as_scorer(spy)(batch), [1.0, NAN])
    assert received == {
        "prompts": ["p", "q"],
        "completions": ["x", "yz"],
        "completion_ids": [[120], [121, 122]],
        "references": [("r",), ()],
        "answer": [4, None],
        "level": [None, "hard"],
    }


def test_a_function_without_keyword_arguments_receives_only_the_columns_that_it_names():
    def right(completions, answer, tolerance=0):
        return [float(abs(int(text) - wanted) <= tolerance) for text, wanted in zip(completions, answer, strict=True)]

    assert values(right, "4", "5", metadata=[{"answer": 4, "source": "x"}, {"answer": 4}]) == [1.0, 0.0]


def test_a_function_of_completion_ids_is_recognised():
    def size(completion_ids, **kwargs):
        return [len(ids) for ids in completion_ids]

    assert values(size, "abc") == [3.0]


def test_a_column_that_no_sample_has_is_an_error_that_lists_those_there_are():
    def right(completions, answer):
        return [1.0] * len(completions)

    with pytest.raises(
        ScorerError, match="'right' needs the column 'answer'; the samples have completions, level, pro"
    ):
        evaluate(as_scorer(right), batch_of("a", metadata=[{"level": 1}]))


def test_a_function_of_trls_signature_that_returns_too_few_scores_is_an_error():
    def short(completions, **kwargs):
        return [1.0]

    with pytest.raises(ScorerError, match="'short' returned 1 scores for 2 episodes"):
        evaluate(as_scorer(short), batch_of("a", "b"))


# Arguments of as_scorer


def no_argument():
    return 1.0


def two_arguments(completion, prompt):
    return 1.0


def keyword_only(*, completion):
    return 1.0


async def slow(completion):
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (3, "scorer is 3 of type int; expected a registered name"),
        (None, "scorer is None of type NoneType; expected"),
        (Sentiment, r"scorer is the class Sentiment; pass an instance, such as Sentiment\(...\)"),
        (no_argument, r"'no_argument' has the signature \(\); expected"),
        (two_arguments, r"'two_arguments' has the signature \(completion, prompt\); expected"),
        (keyword_only, "'keyword_only' has the signature"),
        (slow, "'slow' is a coroutine function"),
        (getattr, "'getattr' has no readable signature|'getattr' has the signature"),
    ],
)
def test_anything_else_is_a_type_error_with_the_value_and_what_was_expected(spec, message):
    with pytest.raises(TypeError, match=message):
        as_scorer(spec)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown scorer 'sentimant'; did you mean 'sentiment'\? Known: "):
        as_scorer("sentimant")


def test_as_scorer_returns_a_scorer_unchanged():
    scorer = LengthBand()
    assert as_scorer(scorer) is scorer


def test_every_registered_name_makes_a_scorer_of_that_name():
    assert {"keywords", "length_band", "repetition", "sentiment"} <= set(scorer_names())
    for name in scorer_names():
        assert scorer_name(as_scorer(name)) == name


def test_a_registered_name_cannot_be_replaced():
    register_scorer(
        "sentiment", "textgym.scorers.language.word_lists:Sentiment"
    )  # registering again, as a reloaded module does
    with pytest.raises(ValueError, match="'sentiment' is registered already"):
        register_scorer("sentiment", LengthBand)


def test_a_scorer_is_named_by_its_attribute_then_its_function_then_its_class():
    class HTTPJudge2:
        pass

    named = Returns([])
    named.name = "mine"
    assert scorer_name(named) == "mine"
    assert scorer_name(round_length) == "round_length"
    assert scorer_name(HTTPJudge2()) == "http_judge2"


# Single scorers


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_scorers_does_not_import_vader():
    done = run_python("import sys, textgym.scorers; sys.exit('vaderSentiment' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_a_missing_vader_is_an_error_with_the_command_that_installs_it():
    code = "import sys; sys.modules['vaderSentiment'] = None; import textgym.scorers as s; s.as_scorer('sentiment')"
    assert "ImportError: the scorer 'sentiment' needs the package vaderSentiment: pip" in run_python(code).stderr


def test_sentiment_is_vaders_compound():
    # "good" has the valence 1.9 in the lexicon, "bad" -2.5; compound is x / sqrt(x**2 + 15) to four decimals.
    expected = [round(x / (x * x + 15) ** 0.5, 4) for x in (1.9, -2.5)]
    assert values("sentiment", "a good cat", "a bad cat", "a cat", "") == [*expected, 0.0, 0.0]


def test_sentiment_reads_the_first_two_thousand_characters():
    assert values("sentiment", "x" * 1_996 + " good", "x" * 1_994 + " good") == [0.0, 0.4404]


@pytest.mark.parametrize(
    ("band", "expected"),
    [
        (LengthBand(4, 8), [0.0, 0.25, 1.0, 1.0, 0.75, 0.0]),
        (LengthBand(0, 8), [1.0, 1.0, 1.0, 1.0, 0.75, 0.0]),
        (LengthBand(4, 8, "characters"), [0.0, 0.25, 1.0, 1.0, 0.75, 0.0]),
        (LengthBand(1, 2, "words"), [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_length_band_falls_linearly_outside_the_band(band, expected):
    assert values(band, "", "a", "abcd", "abcdefgh", "abcdefghij", "a" * 20) == expected


def test_length_band_counts_tokens_words_and_characters_differently():
    assert values(LengthBand(3, 3, "tokens"), "né") == [1.0]
    assert values(LengthBand(2, 2, "characters"), "né") == [1.0]
    assert values(LengthBand(2, 2, "words"), "don't stop!") == [1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((5, 4), "low=5, high=4"), ((-1, 4), "low=-1"), ((0, 0), "high=0"), ((1, 2, "letters"), "unknown unit 'letters'")],
)
def test_length_band_rejects_an_empty_band(arguments, message):
    with pytest.raises(ValueError, match=message):
        LengthBand(*arguments)


def test_repetition_is_the_fraction_of_repeated_n_grams():
    # "a b a b a b" has the trigrams aba bab aba bab: 2 of 4 are repeated.
    assert values("repetition", "a b A b a b", "one two three four", "one two", "") == [0.5, 0.0, 0.0, 0.0]
    assert values(Repetition(n=1), "the cat, the dog") == [0.2]


@pytest.mark.parametrize("text", ["!!!!!!!!", "😀😀😀😀😀😀😀😀", "猫猫猫猫猫猫猫猫", "no no no no no no no no"])
def test_repetition_counts_marks_emoji_and_unspaced_scripts(text):
    assert values("repetition", text) == [pytest.approx(5 / 6)]


def test_numpy_integers_are_counts():
    count = np.int64(2)
    text = "no no no no"
    assert values(Repetition(count), text) == values(Repetition(2), text)
    assert values(Regex("no", "count", np.int64(8)), text) == [0.5]
    assert GroupPercentile(len, memory_size=count).memory_size == 2
    with pytest.raises(ValueError, match="n is True, expected an integer >= 1"):
        Repetition(True)


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_repetition_rejects_n_that_is_not_a_positive_integer(n):
    with pytest.raises(ValueError, match=r"n is .*, expected an integer >= 1"):
        Repetition(n)


def test_keywords_are_found_as_whole_words_in_any_case():
    scorer = Keywords(["Cat", "c++", "red hat", "straße"])
    expected = [0.25, 0.0, 0.25, 0.25, 0.25, 0.0]
    assert values(scorer, "the CAT.", "concat cats", "C++!", "red\n hat", "STRASSE", "") == expected


def test_duplicate_keywords_count_once():
    assert values(Keywords(["cat", "CAT", "dog"]), "cat") == [0.5]


def test_keywords_need_no_spaces_in_scripts_without_them():
    assert values(Keywords(["猫"]), "我的猫坐") == [1.0]


def test_keywords_of_the_samples_are_used_if_none_are_given():
    metadata = [{"keywords": ["cat", "dog"]}, {"keywords": "cat, dog,"}, {"keywords": []}, {}]
    np.testing.assert_array_equal(values("keywords", *["a cat"] * 4, metadata=metadata), [0.5, 0.5, NAN, NAN])
    assert values(Keywords(column="wanted"), "a cat", metadata=[{"wanted": ["cat"]}]) == [1.0]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("cat", TypeError, "words is one string, 'cat'"),
        ([], ValueError, "words is empty"),
        (["cat", " "], ValueError, "a keyword is blank"),
        ([1], TypeError, "a keyword is 1, expected a string"),
    ],
)
def test_keywords_reject_anything_but_a_list_of_words(words, error, message):
    with pytest.raises(error, match=message):
        Keywords(words)


SINGLE = (Sentiment(), LengthBand(), LengthBand(2, 5, "words"), Repetition(), Repetition(1), Keywords(["cat", "happy"]))
TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["the", "happy", "sad", "cat", "not", "but", "!", "😀"])).map(" ".join),
)


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_the_score_of_a_text_does_not_depend_on_its_batch(texts):
    for scorer in (*SINGLE, as_scorer({"sentiment": 1.0, "repetition": -0.5})):
        together = scorer(batch_of(*texts))
        assert together.tolist() == [scorer(batch_of(text))[0] for text in texts]


@given(TEXT)
def test_every_scorer_stays_in_its_declared_range(text):
    for scorer in SINGLE:
        low, high = scorer.score_range
        assert low <= scorer(batch_of(text))[0] <= high


def test_score_batch_reports_errors_without_raising():
    assert score_batch(Raises(), batch_of("a")).error == "scorer 'raises' raised KeyError: 'lost'"


def test_a_named_function_without_a_weight_is_rejected_with_the_correct_form():
    with pytest.raises(TypeError, match=r"write \{'mine': \(scorer, weight\)\}"):
        as_scorer({"mine": lambda completion: 1.0})


def test_a_parameter_annotated_as_a_batch_receives_the_batch():
    def lengths(texts: TextBatch):
        return texts.num_new_tokens

    assert values(lengths, "a", "abc") == [1.0, 3.0]
    assert as_scorer(lengths).name == "lengths"


def test_hooks_of_an_object_that_is_not_a_scorer_are_rejected():
    class Judge:
        score_range = (0.0, 1.0)

        def __call__(self, batch):
            return np.ones(len(batch))

    with pytest.raises(TypeError, match=r"'judge' has score_range, .* inherit from it, class Judge\(Scorer\)"):
        as_scorer(Judge())
    del Judge.score_range
    assert values(Judge(), "a") == [1.0]


def test_hooks_are_rejected_for_every_signature():
    class OfText:
        def __call__(self, completion):
            return 1.0

        def observe(self, batch, scores):
            raise AssertionError

    class OfColumns:
        deterministic = False

        def __call__(self, prompts, completions, **columns):
            return [1.0] * len(completions)

    def function(batch):
        return np.ones(len(batch))

    function.score_range = (0.0, 1.0)
    for spec, hook in ((OfText(), "observe"), (OfColumns(), "deterministic")):
        with pytest.raises(TypeError, match=rf"has {hook}, .* inherit from it, class {type(spec).__name__}\(Scorer\)"):
            as_scorer(spec)
    with pytest.raises(TypeError, match=r"'function' has score_range, .*: write one that calls the function"):
        as_scorer(function)


class PlainObject:
    def __call__(self, batch):
        return np.ones(len(batch))


def test_the_result_of_a_registered_factory_is_adapted(monkeypatch):
    monkeypatch.setattr(textgym.scorers.registry, "_FACTORIES", {"plain": PlainObject, "size": lambda: len})
    assert isinstance(as_scorer("plain"), Scorer)
    assert evaluate(as_scorer("size"), batch_of("abc")).total.tolist() == [3.0]


def test_a_scorer_may_be_a_dataclass_with_a_field_called_name():
    @dataclasses.dataclass
    class Named(Scorer):
        name: str
        weight: float

        def __call__(self, batch):
            return np.full(len(batch), self.weight)

    assert Named("mine", 2.0).name == "mine"
    with pytest.raises(TypeError, match="name"):
        Named(weight=1.0)
    assert Returns([1.0]).name == "returns"


@pytest.mark.parametrize(("name", "known"), [("regex", "Regex"), ("json_schema", "JSONSchema"), ("BLEU", "BLEU")])
def test_an_unregistered_class_name_suggests_the_class(name, known):
    with pytest.raises(ValueError, match=rf"not a registered scorer name; .* textgym\.scorers\.{known}\(\.\.\.\)"):
        as_scorer(name)


def test_a_score_that_does_not_apply_is_an_error_with_the_columns_of_the_sample():
    batch = batch_of("4", metadata=[{"level": 1}])
    with pytest.raises(ScorerError, match=r"this sample has 0 references .* other columns: 'level'"):
        evaluate(as_scorer("exact_match"), batch)


def test_lazy_names_and_folders_are_listed_before_they_are_imported():
    code = """
import textgym.scorers
assert {"LengthBand", "lexical", "as_scorer"} <= set(dir(textgym.scorers))
print(textgym.scorers.lexical.__name__, textgym.scorers.Rhyme.__name__)"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "textgym.scorers.lexical Rhyme\n"


def test_type_checkers_see_the_names_of_the_catalogue():
    tree = ast.parse(Path(textgym.scorers.catalogue.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"textgym.scorers.{entry.module}" for name, entry in CATALOGUE.items()}


def test_an_invalid_component_of_a_sum_is_named():
    with pytest.raises(TypeError, match=r"component 's': scorer is 1\.0 of type float"):
        as_scorer({"s": (1.0, "sentiment")})
