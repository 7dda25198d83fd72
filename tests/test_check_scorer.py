import numpy as np
import pytest

from textgym.scorers import Keywords, LengthBand, Repetition, WeightedSum, as_scorer, scorer_names
from textgym.testing import check_scorer


def lengths(batch):
    return np.array([len(text) for text in batch.completions], dtype=np.float64)


@pytest.mark.parametrize("name", scorer_names())
def test_every_registered_scorer_passes(name):
    check_scorer(name)


@pytest.mark.parametrize(
    "scorer",
    [
        Keywords(["cat", "happy"]),
        LengthBand(3, 9, "words"),
        LengthBand(0, 9, "characters"),
        Repetition(1),
        WeightedSum({"mine": (len, 0.1), "sentiment": ("sentiment", 1.0)}),
        as_scorer({"nested": ({"repetition": -1.0}, 2.0)}),
        len,
        lengths,
    ],
)
def test_sound_scorers_pass(scorer):
    check_scorer(scorer)


def test_a_scorer_that_does_not_apply_to_some_texts_passes():
    check_scorer(nothing_for_the_empty)


def nothing_for_the_empty(completion):
    return len(completion) if completion else None


def test_a_scorer_that_needs_columns_is_given_them():
    check_scorer(matches, references=["cat"], metadata={"weight": 0.5}, score_range=(0, 0.5))
    with pytest.raises(AssertionError, match="needs the column 'weight'"):
        check_scorer(matches)


def matches(completions, references, weight):
    rows = zip(completions, references, weight, strict=True)
    return [float(text in accepted) * part for text, accepted, part in rows]


class TooFew:
    def __call__(self, batch):
        return lengths(batch)[1:]


class BreaksWithoutEpisodes:
    def __call__(self, batch):
        return np.minimum(lengths(batch), lengths(batch).max())


class Infinite:
    def __call__(self, batch):
        with np.errstate(divide="ignore"):
            return 1 / lengths(batch)


class OutOfItsRange:
    score_range = (0, 10)

    def __call__(self, batch):
        return lengths(batch)


class BelowItsRange:
    score_range = (0, 1)

    def __call__(self, batch):
        return -np.minimum(lengths(batch), 1)


class Counts:
    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return lengths(batch) + self.calls


class RanksInTheBatch:
    def __call__(self, batch):
        return lengths(batch) - lengths(batch).sum() if len(batch) else np.zeros(0)


class DependsOnTheOrder:
    def __call__(self, batch):
        return lengths(batch) + np.arange(len(batch))


class HoldsALambda:
    def __init__(self):
        self.function = lambda: None

    def __call__(self, batch):
        return lengths(batch)


class ForgetsWhenPickled:
    def __init__(self):
        self.weight = 2.0

    def __getstate__(self):
        return {"weight": 1.0}

    def __call__(self, batch):
        return lengths(batch) * self.weight


class OverwritesTheIds:
    def __call__(self, batch):
        scores = lengths(batch)
        batch.ids[:] = 0
        return scores


class EmptiesTheMetadata:
    def __call__(self, batch):
        for row in batch.metadata:
            row.clear()
        return lengths(batch)


class ChokesOnSurrogates:
    def __call__(self, batch):
        return np.array([len(text.encode()) for text in batch.completions])


class DividesByWords:
    def __call__(self, batch):
        return np.array([len(text) / len(text.split()) for text in batch.completions])


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (TooFew(), "'too_few' fails.*returned 10 scores for 11 episodes"),
        (BreaksWithoutEpisodes(), "given a batch of 0 episodes, fails"),
        (Infinite(), "'infinite' fails for: empty text: .* gave inf"),
        (OutOfItsRange(), r"leaves its range \[0, 10\] for the plain English: 23.0"),
        (BelowItsRange(), r"leaves its range \[0, 1\] for the plain English: -1.0"),
        (Counts(), "'counts' is not deterministic: asked twice, gives the plain English"),
        (RanksInTheBatch(), "depends on the rest of the batch: alone, it gives the plain English"),
        (DependsOnTheOrder(), "depends on the order of the batch: reversed, it gives the plain English"),
        (HoldsALambda(), "'holds_a_lambda' cannot be pickled"),
        (ForgetsWhenPickled(), "does not survive pickling: its copy gives the plain English"),
        (OverwritesTheIds(), "modifies the batch"),
        (EmptiesTheMetadata(), "modifies the batch"),
        (ChokesOnSurrogates(), "fails for: lone surrogate: .*UnicodeEncodeError"),
        (DividesByWords(), "fails for: empty text, white space: .*ZeroDivisionError"),
    ],
)
def test_a_broken_scorer_is_caught_and_the_message_says_how(scorer, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer, metadata={"level": 1})


def test_a_range_that_is_given_counts_instead_of_the_declared_one():
    check_scorer(OutOfItsRange(), score_range=(0, 200_000))


def test_a_scorer_that_is_said_to_be_random_may_vary():
    check_scorer(Counts(), deterministic=False)
