import json
import pickle
import threading

import numpy as np
import pytest

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import (
    Affine,
    AgentTurns,
    Cached,
    Clip,
    Constrained,
    Gate,
    GroupPercentile,
    Keywords,
    LengthBand,
    Maximum,
    Minimum,
    Novelty,
    Product,
    Repetition,
    RunningNormalization,
    Schedule,
    Scorer,
    Sequential,
    TimeLimit,
    WeightedSum,
    as_scorer,
    component_names,
    evaluate,
    observe_episodes,
    score_batch,
    scorer_name,
)
from textgym.scorers.catalogue import CATALOGUE
from textgym.scorers.evaluation import get_states
from textgym.testing import check_scorer

NAN = float("nan")


class Table(Scorer):
    """Looks scores up by completion, raises for unknown ones, and records its calls."""

    score_range = (-10.0, 10.0)

    def __init__(self, **scores):
        self.scores = scores
        self.calls = []
        self.progress = None

    def __call__(self, batch):
        self.calls.append(list(batch.completions))
        return [self.scores[text] for text in batch.completions]

    def set_progress(self, progress):
        self.progress = progress


class FailsFor(Scorer):
    """Fails for the given texts and returns 1 for others."""

    score_range = (0.0, 1.0)

    def __init__(self, *texts):
        self.texts = texts
        self.calls = []

    def __call__(self, batch):
        self.calls.append(list(batch.completions))
        return [float("inf") if text in self.texts else 1.0 for text in batch.completions]


class Lowest(Scorer):
    """Returns the lowest score of its range."""

    def __init__(self, low, high):
        self.score_range = (low, high)

    def __call__(self, batch):
        return np.full(len(batch), self.score_range[0])


class NoRange(Scorer):
    def __call__(self, batch):
        return np.zeros(len(batch))


def batch_of(*completions, done=True, **columns):
    batch = TextBatch.from_texts(list(completions), **columns)
    batch.done = np.full(len(completions), done)
    return batch


def values(scorer, *completions, **columns):
    return scorer(batch_of(*completions, **columns)).tolist()


def observed(scorer, *completions, **columns):
    """Return the scores of finished episodes, after the scorer has observed them as in an environment."""
    batch = batch_of(*completions, **columns)
    scores = evaluate(scorer, batch, "invalid")
    observe_episodes(scorer, batch, scores)
    return scores.total.tolist()


def components(scorer, *completions, **columns):
    scores = evaluate(scorer, batch_of(*completions, **columns), "invalid")
    return {name: column.tolist() for name, column in scores.components.items()}


@pytest.mark.parametrize(("weights", "expected"), [((1.0, 0.0), [2.0, NAN]), ((0.0, 0.0), [0.0, 0.0])])
def test_a_score_of_weight_zero_does_not_apply_alone(weights, expected):
    tables = {"counted": Table(a=2.0, b=None), "reported": Table(a=3.0, b=4.0)}
    scorer = WeightedSum({name: (table, weight) for (name, table), weight in zip(tables.items(), weights, strict=True)})
    np.testing.assert_array_equal(values(scorer, *"ab"), expected)
    np.testing.assert_array_equal(components(scorer, *"ab")["reported"], [3.0, 4.0])


FIRST = {"a": 0.5, "b": -2.0, "c": None, "d": None}
SECOND = {"a": 3.0, "b": 4.0, "c": 0.25, "d": None}


# Several scores as one


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        (lambda scorers: WeightedSum({name: (inner, 2.0) for name, inner in scorers.items()}), [7.0, 4.0, 0.5, NAN]),
        (Product, [1.5, -8.0, 0.25, NAN]),
        (Minimum, [0.5, -2.0, 0.25, NAN]),
        (Maximum, [3.0, 4.0, 0.25, NAN]),
    ],
)
def test_scores_that_apply_are_combined_and_reported_unchanged(combine, expected):
    scorer = combine({"first": Table(**FIRST), "second": Table(**SECOND)})
    np.testing.assert_array_equal(values(scorer, *"abcd"), expected)
    shown = components(scorer, *"abcd")
    np.testing.assert_array_equal(shown["first"], [0.5, -2.0, NAN, NAN])
    np.testing.assert_array_equal(shown["second"], [3.0, 4.0, 0.25, NAN])
    assert tuple(shown) == component_names(scorer) == ("first", "second")


@pytest.mark.parametrize("combine", [Product, Minimum, Maximum])
def test_scorers_may_be_a_list(combine):
    assert list(combine(["repetition", len, {"length_band": 0.5}]).named_scorers) == [
        "repetition",
        "len",
        "weighted_sum",
    ]


@pytest.mark.parametrize("combine", [Product, Minimum, Maximum])
@pytest.mark.parametrize(
    ("scorers", "error", "message"),
    [
        ({}, ValueError, "at least one scorer"),
        ([], ValueError, "at least one scorer"),
        ("repetition", TypeError, "expected {name: scorer} or a list"),
        (len, TypeError, "expected {name: scorer} or a list"),
        ([len, len], ValueError, "two scorers are named 'len'"),
        ({"a/b": len}, ValueError, "cannot name a component"),
        ({"repetition": 1.0}, TypeError, "component 'repetition': scorer is 1.0, a number, but .* takes no weights"),
        ({"a": ("sentiment", 1.0)}, TypeError, "component 'a' is .*, expected a scorer alone: .* takes no weights"),
        ([("sentiment", 1.0)], TypeError, "component 0 is .* takes no weights"),
        ({"a": "repetitoin"}, ValueError, "component 'a': unknown scorer 'repetitoin'"),
        ({"a": None}, TypeError, "component 'a': scorer is None"),
    ],
)
def test_invalid_scorers_are_rejected(combine, scorers, error, message):
    with pytest.raises(error, match=message):
        combine(scorers)


def test_a_component_of_a_sum_that_is_not_a_pair_is_rejected():
    with pytest.raises(TypeError, match=r"component 'a' is .*, expected \(scorer, weight\)"):
        WeightedSum({"a": len})


def test_the_error_for_unwanted_weights_names_the_combination():
    with pytest.raises(TypeError, match="Product takes no weights"):
        Product({"a": ("sentiment", 1.0)})


@pytest.mark.parametrize(("combine", "what"), [(WeightedSum, "weight"), (Sequential, "threshold")])
def test_scorers_with_numbers_are_a_mapping_of_pairs(combine, what):
    with pytest.raises(TypeError, match=rf"scorers is \[.*, expected {{name: \(scorer, {what}\)}}"):
        combine([(len, 1.0)])
    with pytest.raises(TypeError, match=rf"component 's' is .*, expected \(scorer, {what}\); the two seem swapped"):
        combine({"s": (1.0, "sentiment")})
    with pytest.raises(TypeError, match="component 's': scorer is None"):
        combine({"s": (None, 1.0)})
    with pytest.raises(ValueError, match="at least one scorer"):
        combine({})


def test_invalid_components_of_a_gate_and_a_constraint_are_named():
    with pytest.raises(TypeError, match=r"component 'condition': scorer is 0\.5"):
        Gate(0.5, 0.5, len)
    with pytest.raises(ValueError, match="component 'constraint': unknown scorer"):
        Constrained(len, "no_such", 0.5)


# Failing components


def with_a_failing_middle(kind, middle, end):
    start = Table(a=1.0, b=1.0)
    if kind in (WeightedSum, Sequential):
        return kind({"start": (start, 1.0), "middle": (middle, 1.0), "end": (end, 1.0)})
    return kind({"start": start, "middle": middle, "end": end})


POOLED = {WeightedSum: 3.0, Product: 1.0, Minimum: 1.0, Maximum: 1.0, Sequential: 1.0}


@pytest.mark.parametrize("kind", POOLED)
def test_a_failing_component_fails_only_its_episodes(kind):
    batch = batch_of("a", "b")
    with pytest.raises(ScorerError, match="component 'middle': scorer 'fails_for' gave inf"):
        evaluate(with_a_failing_middle(kind, FailsFor("b"), FailsFor()), batch)
    scores = evaluate(with_a_failing_middle(kind, FailsFor("b"), FailsFor()), batch, "invalid")
    np.testing.assert_array_equal(scores.total, [POOLED[kind], NAN])
    assert scores.failed.tolist() == [False, True]
    scores = evaluate(with_a_failing_middle(kind, FailsFor("b"), FailsFor()), batch, -7.0)
    assert scores.total.tolist() == [POOLED[kind], -7.0]
    assert scores.components["start"].tolist() == [1.0, 1.0]
    assert list(scores.components) == ["start", "middle", "end"]


@pytest.mark.parametrize("kind", POOLED)
def test_a_component_that_raises_is_named_with_its_exception_as_the_cause(kind):
    with pytest.raises(ScorerError, match="component 'middle': scorer 'table' raised KeyError: 'a'") as caught:
        with_a_failing_middle(kind, Table(), FailsFor())(batch_of("a", "b"))
    assert isinstance(caught.value.__cause__, KeyError)
    scores = evaluate(with_a_failing_middle(kind, Table(), FailsFor("a")), batch_of("a", "b"), "invalid")
    assert np.isnan(scores.total).all()
    assert "component 'middle'" in scores.error


@pytest.mark.parametrize(
    "wrap",
    [
        lambda scorer: Clip(scorer, 0, 1),
        Affine,
        lambda scorer: Schedule(scorer, {0: 1.0}),
        RunningNormalization,
        GroupPercentile,
        Cached,
        lambda scorer: TimeLimit(scorer, 60),
        lambda scorer: Gate(scorer, 0.0, NoRange()),
        lambda scorer: Gate(NoRange(), 0.0, scorer),
        lambda scorer: Constrained(NoRange(), scorer, 0.0),
        lambda scorer: Constrained(scorer, NoRange(), 0.0),
    ],
)
def test_every_other_combination_propagates_failures(wrap):
    batch = batch_of("a", "b")
    with pytest.raises(ScorerError, match="'fails_for' gave inf for episode 1"):
        wrap(FailsFor("b"))(batch)
    scores = evaluate(wrap(FailsFor("b")), batch, -7.0)
    assert scores.failed.tolist() == [False, True]
    assert scores.total[0] != -7.0
    assert scores.total[1] == -7.0
    raised = evaluate(wrap(Table()), batch, "invalid")
    assert isinstance(raised.cause, KeyError)
    assert np.isnan(raised.total).all()


def test_a_failed_episode_has_the_message_of_the_first_component_that_failed():
    scorers = {"first": (FailsFor("a"), 1.0), "second": (FailsFor("a", "b"), 1.0), "len": (len, 1.0)}
    scores = evaluate(WeightedSum(scorers), batch_of("a", "b", "c"), "invalid")
    np.testing.assert_array_equal(scores.total, [NAN, NAN, 3.0])
    assert scores.failed.tolist() == [True, True, False]
    assert list(scores.errors) == [0, 1]
    assert "component 'first'" in scores.errors[0]
    assert "completion 'a'" in scores.errors[0]
    assert "component 'second'" in scores.errors[1]
    assert "completion 'b'" in scores.errors[1]


# Names


def test_a_wrapper_has_the_name_and_components_of_its_scorer():
    chain = Clip(Cached(Affine(Table(a=4.0), scale=2.0)), high=5.0)
    assert scorer_name(chain) == "table"
    assert component_names(chain) == ("table",)
    assert components(chain, "a") == {"table": [4.0]}
    assert values(chain, "a") == [5.0]
    both = Clip({"x": (Table(a=1.0), 2.0), "y": (Table(a=3.0), 1.0)}, high=4.0)
    assert scorer_name(both) == "weighted_sum"
    assert component_names(both) == ("x", "y")
    assert components(both, "a") == {"x": [1.0], "y": [3.0]}


def test_nested_components_have_names_with_a_slash():
    scorer = Minimum(
        {
            "mood": Clip(Table(a=4.0), high=1.0),
            "style": Affine(Product({"x": Table(a=2.0), "y": Gate(Table(a=0.0), 1.0, Table(a=1.0))}), shift=1.0),
        }
    )
    shown = components(scorer, "a")
    assert list(shown) == [
        "mood",
        "mood/table",
        "style",
        "style/x",
        "style/y",
        "style/y/condition",
        "style/y/score",
    ]
    assert [shown[name][0] for name in ("mood", "mood/table", "style", "style/x", "style/y")] == [1, 4, 1, 2, 0]


def test_every_combination_exposes_its_inner_scorers():
    first, second = Table(), Table()
    for scorer in (
        WeightedSum({"a": (first, 1.0), "b": (second, 1.0)}),
        Sequential({"a": (first, 1.0), "b": (second, 1.0)}),
        Product({"a": first, "b": second}),
        Gate(first, 0.0, second),
        Constrained(first, second, 0.0),
    ):
        assert scorer.scorers == (first, second)
    assert Cached(Clip(first, 0.0)).scorers[0].scorers == (first,)


def test_a_wrapped_sum_is_one_inner_scorer():
    inner = as_scorer({"repetition": 1.0})
    assert Clip(inner, 0.0).scorers == (inner,)


# Gates and sequences


def test_a_gate_scores_only_texts_that_pass():
    score = Table(a=5.0, c=7.0, d=None)
    scorer = Gate(Table(a=0.5, b=0.4, c=None, d=1.0), 0.5, score, otherwise=-1.0)
    np.testing.assert_array_equal(values(scorer, *"abcd"), [5.0, -1.0, 7.0, NAN])
    assert score.calls == [["a", "c", "d"]]
    np.testing.assert_array_equal(components(scorer, *"abcd")["score"], [5.0, NAN, 7.0, NAN])


def test_a_closed_gate_calls_nothing_and_reports_the_same_components():
    score = Table(a=5.0)
    scorer = Gate(Table(a=0.0), 0.5, Product({"x": Clip(score, 0), "y": LengthBand()}))
    shown = components(scorer, "a")
    assert score.calls == []
    assert values(scorer, "a") == [0.0]
    assert list(shown) == ["condition", "score", "score/x", "score/x/table", "score/y"]
    open_gate = Gate(Table(a=1.0), 0.5, scorer.named_scorers["score"])
    assert list(components(open_gate, "a")) == list(shown)


def test_an_open_gate_passes_the_same_batch_object():
    batches = []

    def noting(batch):
        batches.append(batch)
        return [1.0]

    batch = batch_of("a")
    Gate(Table(a=1.0), 0.5, noting)(batch)
    assert batches == [batch]


def test_a_gate_does_not_score_a_text_whose_condition_failed():
    score = FailsFor()
    scores = evaluate(Gate(FailsFor("b"), 0.5, score), batch_of("a", "b"), "invalid")
    np.testing.assert_array_equal(scores.total, [1.0, NAN])
    assert score.calls == [["a"]]


def test_a_gate_with_nan_does_not_apply_to_texts_that_fail_the_condition():
    np.testing.assert_array_equal(values(Gate(Table(a=0.0, b=1.0), 0.5, LengthBand(1, 2), NAN), "a", "b"), [NAN, 1.0])


def test_a_sequence_counts_the_steps_before_the_first_that_is_not_passed():
    compiles, tests, lints = Table(a=1, b=1, c=1, d=0), Table(a=1.0, b=0.9, c=0.5), Table(a=9.0, b=8.0)
    scorer = Sequential({"compiles": (compiles, 1.0), "tests": (tests, 0.8), "lints": (lints, 9.0)})
    assert values(scorer, *"abcd") == [1.0, 2 / 3, 1 / 3, 0.0]
    assert (compiles.calls, tests.calls, lints.calls) == ([["a", "b", "c", "d"]], [["a", "b", "c"]], [["a", "b"]])
    np.testing.assert_array_equal(components(scorer, *"abcd")["lints"], [9.0, 8.0, NAN, NAN])


def test_a_step_that_does_not_apply_is_skipped_and_not_counted():
    scorer = Sequential({"first": (Table(a=None, b=None, c=1), 1), "second": (Table(a=1, b=None, c=None), 1)})
    np.testing.assert_array_equal(values(scorer, *"abc"), [1.0, NAN, 1.0])


def test_a_sequence_that_ends_early_reports_the_same_components():
    scorer = Sequential({"first": (Table(a=0.0), 1.0), "second": (Clip(Table(), 0), 1.0)})
    assert list(components(scorer, "a")) == ["first", "second", "second/table"]


# Transforms


def test_a_score_is_clipped():
    table = {"a": -3.0, "b": 0.5, "c": 9.0, "d": None}
    np.testing.assert_array_equal(values(Clip(Table(**table), 0.0, 1.0), *"abcd"), [0.0, 0.5, 1.0, NAN])
    np.testing.assert_array_equal(values(Clip(Table(**table), low=0.0), *"abcd"), [0.0, 0.5, 9.0, NAN])
    np.testing.assert_array_equal(values(Clip(Table(**table), high=1.0), *"abcd"), [-3.0, 0.5, 1.0, NAN])


def test_a_score_is_scaled_and_shifted():
    np.testing.assert_array_equal(values(Affine(Table(a=3.0, b=None), scale=-2.0, shift=1.0), "a", "b"), [-5.0, NAN])


@pytest.mark.parametrize(
    ("progress", "weight"), [(0.0, 2.0), (0.2, 2.0), (0.3, 1.5), (0.4, 1.0), (0.7, 0.5), (1.0, 0.0), (1.1, 0.0)]
)
def test_a_scheduled_weight_is_linear_between_its_points(progress, weight):
    scorer = Schedule(Table(a=4.0, b=None), {1.0: 0.0, 0.4: 1.0, 0.2: 2.0})
    scorer.set_progress(progress)
    np.testing.assert_allclose(values(scorer, "a", "b"), [4.0 * weight, NAN])
    assert components(scorer, "a") == {"table": [4.0]}


def test_progress_reaches_every_scorer_through_three_levels():
    tables = [Table(a=1.0) for _ in range(8)]
    scorer = WeightedSum(
        {
            "chain": (Sequential({"gate": (Gate(tables[0], 0.0, Cached(tables[1])), 0.0)}), 1.0),
            "pool": (Product([Minimum({"x": Clip(tables[2], 0)}), Maximum({"x": Affine(tables[3])})]), 1.0),
            "adaptive": (RunningNormalization(GroupPercentile(TimeLimit(tables[4], 60))), 1.0),
            "limits": (Constrained(Schedule(tables[5], {0: 1}), {"x": (tables[6], 1.0)}, 0.5), 1.0),
            "itself": (tables[7], 1.0),
        }
    )
    scorer.set_progress(0.25)
    assert [table.progress for table in tables] == [0.25] * 8


@pytest.mark.parametrize("progress", [NAN, "half"])
def test_progress_that_is_not_a_number_is_rejected(progress):
    with pytest.raises((TypeError, ValueError), match="progress is"):
        Schedule(len, {0: 1.0}).set_progress(progress)


# Ranges


def test_the_range_is_derived_from_the_inner_ranges():
    sharp, wide = Lowest(0.5, 1.0), Lowest(-1.0, 3.0)
    ranges = {
        WeightedSum({"a": (sharp, 1.0), "b": (wide, -2.0)}): (-6.0, 3.0),
        WeightedSum({"a": (sharp, 1.0), "b": (sharp, 1.0)}): (0.5, 2.0),  # one may not apply
        Product({"a": sharp, "b": wide}): (-1.0, 3.0),
        Product({"a": wide, "b": wide}): (-3.0, 9.0),
        Minimum({"a": sharp, "b": wide}): (-1.0, 3.0),
        Maximum({"a": sharp, "b": wide}): (-1.0, 3.0),
        Clip(wide, 0.0): (0.0, 3.0),
        Clip(wide, 0.0, 9.0): (0.0, 3.0),
        Clip(NoRange(), 0.0, 9.0): (0.0, 9.0),
        Affine(wide, -2.0, 1.0): (-5.0, 3.0),
        Schedule(wide, {0.0: -1.0, 1.0: 2.0}): (-3.0, 6.0),
        Gate(wide, 0.0, sharp, otherwise=-4.0): (-4.0, 1.0),
        Gate(wide, 0.0, sharp, otherwise=NAN): (0.5, 1.0),
        Gate(NoRange(), 0.0, sharp): (0.0, 1.0),
        Sequential({"a": (NoRange(), 0.0)}): (0.0, 1.0),
        RunningNormalization(NoRange(), clip=5.0): (-5.0, 5.0),
        GroupPercentile(NoRange()): (0.0, 1.0),
        Constrained(sharp, wide, 1.0): (-2.0, 2.0),
        Cached(wide): (-1.0, 3.0),
        TimeLimit(wide, 1.0): (-1.0, 3.0),
    }
    assert {scorer: scorer.score_range for scorer in ranges} == ranges


@pytest.mark.parametrize(
    "scorer",
    [
        WeightedSum({"a": (LengthBand(), 1.0), "b": (NoRange(), 1.0)}),
        Product([LengthBand(), NoRange()]),
        Minimum([NoRange()]),
        Maximum([NoRange()]),
        Clip(NoRange(), low=0.0),
        Affine(NoRange()),
        Schedule(NoRange(), {0: 1}),
        Gate(LengthBand(), 0.0, NoRange()),
        RunningNormalization(LengthBand(), clip=None),
        Constrained(LengthBand(), NoRange(), 0.0),
        Cached(NoRange()),
        TimeLimit(NoRange(), 1.0),
    ],
    ids=lambda scorer: type(scorer).__name__,
)
def test_an_unknown_inner_range_makes_the_range_unknown(scorer):
    assert scorer.score_range is None


# Incremental scores


def incremental_scorers():
    tokens, letters = LengthBand(2, 4), LengthBand(1, 5, "characters")
    return [
        WeightedSum({"a": (tokens, 1.0), "b": (letters, -0.5)}),
        Product([tokens]),
        Minimum({"a": tokens, "b": Affine(letters, 2.0)}),
        Maximum({"a": tokens, "b": Clip({"x": (letters, 1.0)}, 0.1, 0.6)}),
        Schedule(tokens, {0.0: 0.5}),
    ]


@pytest.mark.parametrize("scorer", incremental_scorers(), ids=lambda scorer: type(scorer).__name__)
def test_a_combination_of_incremental_scorers_is_incremental(scorer):
    assert scorer.incremental
    batch = batch_of("ab", "")
    states = scorer.begin(batch)
    longer = batch_of("abc", "d")
    assert scorer.value(states, batch).tolist() == scorer(batch).tolist()
    states = scorer.advance(states, longer)
    assert scorer.value(states, longer).tolist() == scorer(longer).tolist()
    assert scorer.begin(batch_of()) == scorer.advance([], batch_of()) == []
    assert scorer.value([], batch_of()).shape == (0,)


def test_one_scorer_that_is_not_incremental_makes_the_combination_not_incremental():
    assert not WeightedSum({"a": (LengthBand(), 1.0), "b": (Repetition(), 1.0)}).incremental
    assert not Clip(Repetition(), 0).incremental
    assert not Minimum([Cached(LengthBand())]).incremental


def test_an_infinite_incremental_value_is_an_error():
    class Endless(LengthBand):
        def value(self, states, batch):
            return np.full(len(states), np.inf)

    batch = batch_of("a")
    scorer = Minimum([Endless(), LengthBand()])
    with pytest.raises(ScorerError, match="'endless' gave inf"):
        scorer.value(scorer.begin(batch), batch)
    with pytest.raises(ScorerError, match="'endless' gave inf"):
        scorer(batch)


# Running statistics


def test_scores_are_normalised_by_the_mean_and_spread_of_all_so_far():
    scorer = RunningNormalization(Table(a=1.0, b=3.0, c=8.0, d=None))
    np.testing.assert_allclose(observed(scorer, "a", "b", "d"), [-1.0, 1.0, NAN])
    np.testing.assert_allclose(observed(scorer, "c"), [4.0 / np.std([1, 3, 8])])
    assert (scorer.count, scorer.mean) == (3, 4.0)
    assert components(scorer, "c")["table"] == [8.0]


def test_one_batch_and_many_batches_of_one_give_the_same_statistics():
    letters = [chr(ord("a") + i) for i in range(24)]
    rng = np.random.default_rng(0)
    table = dict(zip(letters, (1e6 + rng.normal(size=24)).tolist(), strict=True))
    whole, alone = RunningNormalization(Table(**table)), RunningNormalization(Table(**table))
    observed(whole, *letters)
    for letter in letters:
        observed(alone, letter)
    assert whole.count == alone.count == 24
    np.testing.assert_allclose([whole.mean, whole.std], [np.mean(list(table.values())), np.std(list(table.values()))])
    np.testing.assert_allclose([alone.mean, alone.std], [whole.mean, whole.std], rtol=1e-9)


def test_unfinished_texts_are_normalised_and_not_counted():
    scorer = RunningNormalization(Table(a=1.0, b=3.0, c=5.0))
    assert values(scorer, "c", done=False) == [5.0]
    observed(scorer, "a", "b")
    state = scorer.get_state()
    assert values(scorer, "c", done=False) == [3.0]
    mixed = batch_of("c", "b")
    mixed.done = np.array([False, True])
    assert scorer.get_state() == state
    scorer.observe(mixed, scorer.score_components(mixed))
    assert scorer.get_state()["count"] == 3
    assert scorer.mean == pytest.approx(7 / 3)


def test_equal_scores_are_centred_and_not_divided_by_zero():
    scorer = RunningNormalization(Table(a=0.1, b=0.3))
    np.testing.assert_allclose(observed(scorer, *"a" * 7), [0.0] * 7, atol=1e-12)
    assert scorer.std == 1.0
    np.testing.assert_allclose(values(scorer, "b", done=False), [0.2])


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"center": False}, [1.0, 3.0]), ({"scale": False}, [-2.0, 2.0]), ({"clip": 0.5}, [-0.5, 0.5])],
)
def test_centre_scale_and_clip_are_options(options, expected):
    np.testing.assert_allclose(values(RunningNormalization(Table(a=2.0, b=6.0), **options), "a", "b"), expected)


def test_frozen_statistics_do_not_change_and_are_deterministic():
    scorer = RunningNormalization(Table(a=1.0, b=3.0, c=5.0))
    observed(scorer, "a", "b")
    assert not scorer.deterministic
    scorer.frozen = True
    assert scorer.deterministic
    assert observed(scorer, "c") == observed(scorer, "c") == [3.0]
    assert scorer.count == 2


def test_statistics_survive_json_and_pickle():
    scorer = RunningNormalization(Table(a=1.0, b=4.0))
    observed(scorer, "a", "b")
    other = RunningNormalization(Table(a=1.0, b=4.0))
    other.set_state(json.loads(json.dumps(scorer.get_state())))
    copied = pickle.loads(pickle.dumps(scorer))
    assert values(other, "b") == values(copied, "b") == values(scorer, "b")


@pytest.mark.parametrize("wrong", [{"count": -1}, {"mean": NAN}, {"sum_of_squares": -1.0}])
def test_impossible_statistics_are_rejected(wrong):
    scorer = RunningNormalization(len)
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        scorer.set_state(scorer.get_state() | wrong)


@pytest.mark.parametrize(
    "build",
    [
        lambda table: RunningNormalization(table),
        lambda table: GroupPercentile(table),
        lambda table: Constrained(table, table, 5.0, episodes_per_update=1),
        lambda table: WeightedSum({"x": (Clip(RunningNormalization({"y": (table, 2.0)}), -5), 1.0), "z": (len, 1.0)}),
    ],
)
def test_scoring_does_not_change_the_state_and_observing_does(build):
    scorer = build(Table(a=1.0, b=4.0, c=3.0))
    before = get_states(scorer)
    first = values(scorer, "a", "b")
    assert values(scorer, "a", "b") == first
    assert get_states(scorer) == before
    assert observed(scorer, "a", "b") == first
    assert get_states(scorer) != before


# Percentile ranks


def test_a_text_is_ranked_among_the_texts_of_its_prompt():
    scorer = GroupPercentile(Table(a=1.0, b=2.0, c=2.0, d=5.0, e=None))
    ranks = values(scorer, *"abcdea", prompts=["p", "p", "p", "p", "p", "other"])
    np.testing.assert_allclose(ranks, [0.0, 1.5 / 3, 1.5 / 3, 1.0, NAN, 0.5])


def test_texts_that_end_later_are_ranked_among_those_that_ended_before():
    scorer = GroupPercentile(Table(a=1.0, b=2.0, c=3.0))
    assert observed(scorer, "b") == [0.5]
    assert observed(scorer, "c") == [1.0]
    assert observed(scorer, "a") == [0.0]
    assert observed(scorer, "b") == [0.5]  # above a, below c, equal to itself


def test_unfinished_texts_are_ranked_and_not_stored():
    scorer = GroupPercentile(Table(a=1.0, b=2.0))
    observed(scorer, "a")
    for _ in range(2):
        assert values(scorer, "b", done=False) == [1.0]
    mixed = batch_of("b", "a", "b")
    mixed.done = np.array([False, True, True])
    np.testing.assert_allclose(scorer(mixed), [2.5 / 3, 0.25, 1.0])


def test_only_the_last_scores_of_the_last_prompts_are_stored():
    scorer = GroupPercentile(Table(a=1.0, b=2.0, c=3.0), memory_size=2, max_prompts=1)
    for text in "acc":
        observed(scorer, text, prompts=["p"])
    assert values(scorer, "b", prompts=["p"], done=False) == [0.0]  # a is forgotten
    observed(scorer, "a", prompts=["q"])
    assert values(scorer, "b", prompts=["p"], done=False) == [0.5]  # so is p
    assert values(GroupPercentile(Table(a=1.0, b=2.0), memory_size=0), "a", "b") == [0.0, 1.0]


def test_without_memory_every_batch_is_ranked_on_its_own():
    scorer = GroupPercentile(Table(a=1.0, b=2.0), memory_size=0)
    for _ in range(2):
        assert observed(scorer, "b") == [0.5]


# The cache


def test_only_uncached_texts_are_scored_and_each_once():
    table = Table(a=1.0, b=2.0, c=None)
    scorer = Cached(table)
    assert values(scorer, "a", "b", "a") == [1.0, 2.0, 1.0]
    np.testing.assert_array_equal(values(scorer, "c", "a", "c"), [NAN, 1.0, NAN])
    np.testing.assert_array_equal(values(scorer, "c", "b"), [NAN, 2.0])
    assert table.calls == [["a", "b"], ["c"]]
    assert (scorer.hits, scorer.misses, scorer.hit_rate) == (5, 3, 5 / 8)
    scorer.clear()
    assert (scorer.hits, scorer.misses, scorer.hit_rate) == (0, 0, 0.0)
    values(scorer, "a")
    assert table.calls[-1] == ["a"]


@pytest.mark.parametrize(
    "other",
    [
        {"prompts": ["q"]},
        {"references": [["s"]]},
        {"metadata": [{"level": 2}]},
        {"metadata": [{"level": 1.0}]},
        {"metadata": [{"level": True}]},
        {"metadata": [{"level": [1]}]},
        {"metadata": [{"level": np.array([1])}]},
        {"metadata": [{}]},
    ],
)
def test_prompt_references_and_metadata_are_part_of_the_key(other):
    table = Table(a=1.0)
    scorer = Cached(table)
    columns = {"prompts": ["p"], "references": [["r"]], "metadata": [{"level": 1}]}
    for changed in (columns, columns | other):
        for _ in range(2):
            values(scorer, "a", **changed)
    assert len(table.calls) == 2


def test_metadata_without_a_hash_is_not_cached():
    table = Table(a=1.0)
    scorer = Cached(table)
    for _ in range(2):
        assert values(scorer, "a", "a", metadata=[{"tags": bytearray(b"x")}] * 2) == [1.0, 1.0]
    assert table.calls == [["a", "a"]] * 2
    assert scorer.hits == 0


def test_the_least_recently_used_text_is_dropped():
    table = Table(a=1.0, b=2.0, c=3.0)
    scorer = Cached(table, max_size=2)
    values(scorer, "a", "b")
    values(scorer, "a")
    assert values(scorer, "c", "b", "a") == [3.0, 2.0, 1.0]
    values(scorer, "b")
    assert table.calls == [["a", "b"], ["c"], ["b"]]
    assert values(Cached(table, max_size=1), *"abcabc") == [1.0, 2.0, 3.0] * 2


def test_a_failure_is_not_cached():
    inner = FailsFor("b")
    scorer = Cached(inner)
    batch = batch_of("a", "b", "b", "c")
    scores = evaluate(scorer, batch, "invalid")
    np.testing.assert_array_equal(scores.total, [1.0, NAN, NAN, 1.0])
    assert scores.failed.tolist() == [False, True, True, False]
    inner.texts = ()
    assert scorer(batch).tolist() == [1.0] * 4
    assert inner.calls == [["a", "b", "c"], ["b"]]


def test_cached_texts_keep_their_components():
    scorer = Cached(WeightedSum({"x": (Table(a=1.0, b=2.0), 1.0), "y": (Clip(Table(a=3.0, b=4.0), 0, 3.5), 1.0)}))
    expected = components(scorer, "a", "b")
    assert components(scorer, "a", "b") == expected == {"x": [1, 2], "y": [3, 3.5], "y/table": [3, 4]}
    assert list(components(scorer)) == ["x", "y", "y/table"]


def test_a_copy_of_a_cache_is_empty():
    scorer = Cached(Table(a=1.0))
    values(scorer, "a")
    copied = pickle.loads(pickle.dumps(scorer))
    assert (copied.hits, copied.misses, scorer.misses) == (0, 0, 1)
    assert values(copied, "a") == [1.0]
    assert copied.misses == 1


def test_progress_empties_a_cache_where_it_changes_scores():
    changing = Cached({"x": (Schedule("length_band", {0: 0.0, 1: 1.0}), 1.0)})
    assert values(changing, "a" * 8) == [0.0]
    changing.set_progress(1.0)
    assert values(changing, "a" * 8) == [1.0]
    steady = Cached(Clip(Product(["length_band"]), 0))
    for _ in range(2):
        values(steady, "a")
        steady.set_progress(1.0)
    assert steady.hits == 1


# A constraint


def test_the_multiplier_rises_while_the_constraint_is_violated_and_falls_to_zero():
    objective, constraint = Table(a=4.0, b=2.0), Table(a=0.2, b=0.9)
    scorer = Constrained(objective, constraint, at_least=0.5, learning_rate=2.0, episodes_per_update=2)
    assert observed(scorer, "a") == [4.0]
    assert scorer.multiplier == 0.0
    assert observed(scorer, "a") == [4.0]
    assert scorer.multiplier == pytest.approx(0.6)  # 0 + 2 * (0.5 - 0.2)
    np.testing.assert_allclose(observed(scorer, "a", "b"), [(4 - 0.6 * 0.3) / 1.6, (2 + 0.6 * 0.4) / 1.6])
    assert scorer.multiplier == pytest.approx(0.5)  # 0.6 - 2 * (0.55 - 0.5)
    observed(scorer, *"bbbb")
    assert scorer.multiplier == 0.0


def test_the_multiplier_does_not_depend_on_batch_sizes():
    texts = ["a", "a", "b", "a", "a", "b", "a"]
    whole, alone = (Constrained(NoRange(), Table(a=0.2, b=0.9), 0.5, episodes_per_update=3) for _ in range(2))
    observed(whole, *texts)
    for text in texts:
        observed(alone, text)
    assert whole.get_state() == alone.get_state()
    assert whole.get_state()["pending"] == [0.2]
    assert whole.multiplier > 0


def test_unfinished_texts_and_nan_do_not_change_the_multiplier():
    scorer = Constrained(Table(a=4.0, b=None), Table(a=None, b=0.0), 0.5, episodes_per_update=1)
    np.testing.assert_array_equal(observed(scorer, "a"), [4.0])
    np.testing.assert_array_equal(observed(scorer, "b", done=False), [NAN])
    assert scorer.multiplier == 0.0
    scorer.multiplier = 1.0
    assert observed(scorer, "a") == [2.0]
    scorer.frozen = True
    observed(scorer, "b")
    assert scorer.multiplier == 1.0
    assert scorer.deterministic


def test_the_multiplier_survives_json_and_pickle():
    scorer = Constrained(len, Table(a=0.0), 0.5, episodes_per_update=2)
    observed(scorer, *"aaa")
    other = Constrained(len, Table(a=0.0), 0.5, episodes_per_update=2)
    other.set_state(json.loads(json.dumps(scorer.get_state())))
    copied = pickle.loads(pickle.dumps(scorer))
    for one in (scorer, other, copied):
        observed(one, "a")
    assert scorer.get_state() == other.get_state() == copied.get_state()
    with pytest.raises(ValueError, match="multiplier is -1"):
        other.set_state({"multiplier": -1.0, "pending": []})


# A time limit


class Waits(Scorer):
    """Blocks until it is released."""

    def __init__(self, release):
        self.release = release
        self.calls = 0
        self.finished = threading.Semaphore(0)

    def __call__(self, batch):
        self.calls += 1
        self.release.wait()
        self.finished.release()
        return np.full(len(batch), float(self.calls))


def test_a_scorer_that_hangs_fails_with_a_timeout():
    release = threading.Event()
    inner = Waits(release)
    scorer = TimeLimit(inner, 0.01)
    scores = evaluate(WeightedSum({"slow": (scorer, 1.0), "len": (len, 1.0)}), batch_of("a", "b"), "invalid")
    assert isinstance(scores.cause, TimeoutError)
    assert (
        "component 'slow': scorer 'waits' raised TimeoutError: no scores for 2 texts within 0.01 seconds"
        in scores.error
    )
    assert np.isnan(scores.total).all()
    assert scores.failed.all()
    assert list(scores.components) == ["slow", "slow/waits", "len"]
    with pytest.raises(ScorerError, match="TimeoutError") as caught:
        scorer(batch_of("a"))
    assert isinstance(caught.value.__cause__, TimeoutError)
    release.set()
    for _ in range(2):
        inner.finished.acquire()
    scorer.seconds = 60.0
    assert scorer(batch_of("a", "b")).tolist() == [3.0, 3.0]  # a new call; results of the old ones are dropped


def test_a_time_limit_does_not_change_scores():
    inner = Product({"x": Table(a=2.0, b=None), "y": Table(a=3.0, b=4.0)})
    limited = score_batch(TimeLimit(inner, 60), batch_of("a", "b"))
    plain = score_batch(inner, batch_of("a", "b"))
    np.testing.assert_array_equal(limited.total, plain.total)
    assert list(limited.components) == list(plain.components)


def test_a_wrapped_scorer_that_raises_keeps_its_component_names():
    class Broken(Scorer):
        def __init__(self):
            self.components = ("x", "y")

        def __call__(self, batch): ...

        def score_components(self, batch):
            raise KeyError("lost")

    for scorer in (Clip(Broken(), 0), Cached(Broken())):
        assert list(score_batch(scorer, batch_of("a")).components) == ["x", "y"]


def test_system_exit_passes_through_the_time_limit():
    def leaves(completion):
        raise SystemExit

    with pytest.raises(SystemExit):
        TimeLimit(leaves, 60)(batch_of("a"))


def test_numpy_error_state_of_the_caller_applies_in_the_thread():
    scorer = TimeLimit(Affine(Table(a=1e308), 10.0), 60)
    with np.errstate(over="raise"), pytest.raises(ScorerError, match="FloatingPointError"):
        scorer(batch_of("a"))


# Invalid arguments


class Learns(Scorer):
    """A learning scorer without a state that declares itself deterministic."""

    def __call__(self, batch):
        return np.zeros(len(batch))

    def observe(self, batch, scores):
        raise AssertionError


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Clip(len), ValueError, "neither low nor high"),
        (lambda: Clip(len, 1, 0), ValueError, "expected low <= high, got low=1, high=0"),
        (lambda: Clip(len, NAN), ValueError, "low is nan"),
        (lambda: Clip(len, "0"), TypeError, "low is '0'"),
        (lambda: Affine(len, scale=float("inf")), ValueError, "scale is inf"),
        (lambda: Affine(len, shift=None), TypeError, "shift is None"),
        (lambda: Affine("lenght_band"), ValueError, "did you mean 'length_band'"),
        (lambda: Schedule(len, {}), ValueError, "at least one point"),
        (lambda: Schedule(len, 0.5), ValueError, "at least one point"),
        (lambda: Schedule(len, {2: 1.0}), ValueError, r"a progress is 2.0, expected 0 to 1"),
        (lambda: Schedule(len, {"0": 1.0}), TypeError, "a progress is '0'"),
        (lambda: Schedule(len, {0: NAN}), ValueError, "the weight at 0 is nan"),
        (lambda: Gate(len, NAN, len), ValueError, "at_least is nan"),
        (lambda: Gate(len, 1, len, float("inf")), ValueError, "otherwise is inf"),
        (lambda: Gate(len, 1, len, None), TypeError, "otherwise is None"),
        (lambda: Sequential({}), ValueError, "at least one scorer"),
        (lambda: Sequential({"a": (len, "1")}), TypeError, "the threshold of 'a' is '1'"),
        (lambda: Sequential({"a": len}), TypeError, r"expected \(scorer, threshold\)"),
        (lambda: RunningNormalization(len, clip=0), ValueError, "clip is 0"),
        (lambda: GroupPercentile(len, memory_size=-1), ValueError, "memory_size is -1"),
        (lambda: GroupPercentile(len, max_prompts=0), ValueError, "max_prompts is 0"),
        (lambda: Cached(len, max_size=0), ValueError, "max_size is 0"),
        (
            lambda: Cached(RunningNormalization(len)),
            ValueError,
            r"put Cached inside it: RunningNormalization\(Cached\(\.\.\.\)\)",
        ),
        (lambda: Cached({"a": (Clip(GroupPercentile(len), 0), 1.0)}), ValueError, r"GroupPercentile\(Cached\("),
        (lambda: Cached(Learns()), ValueError, "Learns changes with the texts .* do not cache it"),
        (lambda: Cached(Novelty()), ValueError, "Novelty changes with the texts .* do not cache it"),
        (lambda: Constrained(len, len, NAN), ValueError, "at_least is nan"),
        (lambda: Constrained(len, len, 0, learning_rate=0), ValueError, "learning_rate is 0"),
        (lambda: Constrained(len, len, 0, episodes_per_update=0.5), ValueError, "episodes_per_update is 0.5"),
        (lambda: TimeLimit(len, 0), ValueError, "seconds is 0"),
        (lambda: TimeLimit(len, "1"), TypeError, "seconds is '1'"),
    ],
)
def test_invalid_arguments_are_rejected_at_construction(build, error, message):
    with pytest.raises(error, match=message):
        build()


# The contract


def all_kinds():
    return {
        "weighted_sum": WeightedSum({"size": ("length_band", 1.0), "again": ("repetition", -0.5)}),
        "product": Product({"size": LengthBand(1, 30), "words": Keywords(["cat", "dog"])}),
        "minimum": Minimum(["length_band", "repetition"]),
        "maximum": Maximum(["length_band", "repetition"]),
        "gate": Gate("length_band", 0.5, Product(["repetition"]), otherwise=-0.5),
        "sequential": Sequential({"size": ("length_band", 0.5), "words": (Keywords(["cat"]), 1.0)}),
        "clip": Clip("length_band", 0.2, 0.7),
        "affine": Affine({"repetition": 1.0, "length_band": 1.0}, -1.0, 2.0),
        "schedule": Schedule("length_band", {0.0: 0.5, 1.0: -1.0}),
        "cached": Cached("repetition"),
        "agent_turns": AgentTurns("repetition"),
        "time_limit": TimeLimit("repetition", 60),
        "constrained": Constrained("length_band", "repetition", 0.5, episodes_per_update=4),
        "running_normalization": RunningNormalization("length_band"),
        "group_percentile": GroupPercentile("length_band"),
    }


@pytest.mark.parametrize("kind", all_kinds())
def test_every_combination_fulfils_the_scorer_contract(kind):
    scorer = all_kinds()[kind]
    assert check_scorer(scorer).passed
    incremental = ("weighted_sum", "product", "minimum", "maximum", "clip", "affine", "schedule")
    adaptive = ("constrained", "running_normalization", "group_percentile")
    assert scorer.pointwise == (kind in incremental)
    assert scorer.deterministic == (kind not in adaptive)


@pytest.mark.parametrize("scorer", incremental_scorers(), ids=lambda scorer: type(scorer).__name__)
def test_incremental_scores_equal_scores_of_whole_texts(scorer):
    check_scorer(scorer)


@pytest.mark.parametrize("kind", all_kinds())
def test_no_episodes_have_no_scores(kind):
    scores = evaluate(all_kinds()[kind], batch_of())
    assert scores.total.shape == (0,)
    assert scores.error is None


def test_every_exported_combination_is_checked_here():
    exported = {name for name, entry in CATALOGUE.items() if entry.module.startswith("combine.")}
    assert {type(scorer).__name__ for scorer in all_kinds().values()} == exported
