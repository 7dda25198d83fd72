import random

import numpy as np
import pytest

from fixtures import quick_but
from textgym.scorers import Keywords, LengthBand, Repetition, Scorer, Scores, WeightedSum, as_scorer, scorer_names
from textgym.testing import check_scorer


def lengths(batch):
    return np.array([len(text) for text in batch.completions], dtype=np.float64)


@pytest.mark.parametrize("name", quick_but(scorer_names(), "fluency"))
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
def test_valid_scorers_pass(scorer):
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


class TooFew(Scorer):
    def __call__(self, batch):
        return lengths(batch)[1:]


class BreaksWithoutEpisodes(Scorer):
    def __call__(self, batch):
        return np.minimum(lengths(batch), lengths(batch).max())


class Infinite(Scorer):
    def __call__(self, batch):
        with np.errstate(divide="ignore"):
            return 1 / lengths(batch)


class OutOfItsRange(Scorer):
    score_range = (0, 10)

    def __call__(self, batch):
        return lengths(batch)


class BelowItsRange(Scorer):
    score_range = (0, 1)

    def __call__(self, batch):
        return -np.minimum(lengths(batch), 1)


class Counts(Scorer):
    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return lengths(batch) + self.calls


class LearnsWhileScoring(Counts):
    deterministic = False

    def get_state(self):
        return {"calls": self.calls}


class RanksInTheBatch(Scorer):
    def __call__(self, batch):
        return lengths(batch) - lengths(batch).sum() if len(batch) else np.zeros(0)


class DependsOnTheOrder(Scorer):
    def __call__(self, batch):
        return lengths(batch) + np.arange(len(batch))


class HoldsALambda(Scorer):
    def __init__(self):
        self.function = lambda: None

    def __call__(self, batch):
        return lengths(batch)


class ForgetsWhenPickled(Scorer):
    def __init__(self):
        self.weight = 2.0

    def __getstate__(self):
        return {"weight": 1.0}

    def __call__(self, batch):
        return lengths(batch) * self.weight


class OverwritesTheIds(Scorer):
    def __call__(self, batch):
        scores = lengths(batch)
        batch.ids[:] = 0
        return scores


class EmptiesTheMetadata(Scorer):
    def __call__(self, batch):
        for row in batch.metadata:
            row.clear()
        return lengths(batch)


class FinishesTheTexts(Scorer):
    def __call__(self, batch):
        scores = lengths(batch)
        batch.done[:] = True
        return scores


class ChokesOnSurrogates(Scorer):
    def __call__(self, batch):
        return np.array([len(text.encode()) for text in batch.completions])


class DividesByWords(Scorer):
    def __call__(self, batch):
        return np.array([len(text) / len(text.split()) for text in batch.completions])


class BreaksInLargeBatches(Scorer):
    def __call__(self, batch):
        return np.array([len(text) for text in batch.completions])[:64]


class RanksInLargeBatches(Scorer):
    def __call__(self, batch):
        return np.array([len(text) + (len(batch) > 32) for text in batch.completions])


class SeedsNumpy(Scorer):
    def __call__(self, batch):
        np.random.seed(0)  # noqa: NPY002
        return np.zeros(len(batch))


class DrawsGlobally(Scorer):
    def __call__(self, batch):
        return np.zeros(len(batch)) * random.random()


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (BreaksInLargeBatches(), "given a batch of 100, fails: .* returned 64 scores for 100 episodes"),
        (RanksInLargeBatches(), "depends on the rest of the batch: in one of 100, it gives the plain English 24"),
        (SeedsNumpy(), "uses or seeds the global random generator of numpy"),
        (DrawsGlobally(), "uses or seeds the global random generator of random"),
        (TooFew(), "'too_few' fails.*returned 12 scores for 13 episodes"),
        (BreaksWithoutEpisodes(), "given a batch of 0 episodes, fails"),
        (Infinite(), "'infinite' fails for: empty text: .* gave inf"),
        (OutOfItsRange(), r"leaves its range \[0, 10\] for the plain English: 23.0"),
        (BelowItsRange(), r"leaves its range \[0, 1\] for the plain English: -1.0"),
        (Counts(), "'counts' is not deterministic: called again, it gives the plain English"),
        (LearnsWhileScoring(), "'learns_while_scoring' changes its state when it scores; .* observe"),
        (RanksInTheBatch(), "depends on the rest of the batch: alone, it gives the plain English"),
        (DependsOnTheOrder(), "depends on the order of the batch: reversed, it gives the plain English"),
        (HoldsALambda(), "'holds_a_lambda' cannot be pickled: .*; instead of a lambda .* use a function of a module"),
        (ForgetsWhenPickled(), "does not survive pickling: its copy gives the plain English"),
        (OverwritesTheIds(), "modifies the batch"),
        (EmptiesTheMetadata(), "modifies the batch"),
        (FinishesTheTexts(), "modifies the batch of unfinished texts"),
        (ChokesOnSurrogates(), "fails for: lone surrogate: .*UnicodeEncodeError"),
        (DividesByWords(), "fails for: empty text, white space: .*ZeroDivisionError"),
    ],
)
def test_a_broken_scorer_fails_with_its_defect_in_the_message(scorer, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer, metadata={"level": 1})


class DeclaresItselfRandom(Counts):
    deterministic = False


class PrefersTheLonger(Scorer):
    def __init__(self, sign=1.0):
        self.sign = sign

    def __call__(self, batch):
        return self.sign * lengths(batch)


class NeedsFinishedTexts(Scorer):
    def __call__(self, batch):
        if not batch.done.all():
            raise RuntimeError("a text is not finished")
        return lengths(batch)


class HasAComponentItDoesNotReport(Scorer):
    def __init__(self):
        self.components = ("first",)

    def __call__(self, batch):
        return lengths(batch)


class ReportsAnotherName(HasAComponentItDoesNotReport):
    def score_components(self, batch):
        return Scores(self(batch), {"second": self(batch)})


class CountsCharacters(Scorer):
    """A correct incremental scorer; each subclass has one fault."""

    incremental = True

    def __call__(self, batch):
        return lengths(batch)

    def begin(self, batch):
        return [len(text) for text in batch.completions]

    def advance(self, states, batch):
        return [count + len(piece) for count, piece in zip(states, batch.last_pieces, strict=True)]

    def value(self, states, batch):
        return np.array(states, dtype=np.float64)


class CountsTokensInstead(CountsCharacters):
    def advance(self, states, batch):
        return [count + 1 for count in states]


class DecodesTokensAlone(CountsCharacters):
    def advance(self, states, batch):
        last = [batch.tokenizer.decode([token]) for token in batch.last_ids.tolist()]
        return [count + len(piece) for count, piece in zip(states, last, strict=True)]


class BeginsWithNothing(CountsCharacters):
    def begin(self, batch):
        return [0] * len(batch)


class ChangesStatesInPlace(CountsCharacters):
    def begin(self, batch):
        return [[len(text)] for text in batch.completions]

    def advance(self, states, batch):
        for state, piece in zip(states, batch.last_pieces, strict=True):
            state[0] += len(piece)
        return list(states)

    def value(self, states, batch):
        return np.array([state[0] for state in states], dtype=np.float64)


class StatesHoldAGenerator(CountsCharacters):
    def begin(self, batch):
        return [(count, (i for i in ())) for count in super().begin(batch)]

    def advance(self, states, batch):
        counts = super().advance([count for count, _ in states], batch)
        return [(count, (i for i in ())) for count in counts]

    def value(self, states, batch):
        return super().value([count for count, _ in states], batch)


class LosesAState(CountsCharacters):
    def begin(self, batch):
        return super().begin(batch)[1:]


class RaisesInAdvance(CountsCharacters):
    def advance(self, states, batch):
        raise KeyError("nothing known")


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (CountsTokensInstead(), r"another score incrementally: advance and value, with the tokenizer 'byte', gives"),
        (DecodesTokensAlone(), "another score incrementally: advance and value, with the tokenizer 'byte'"),
        (BeginsWithNothing(), "another score incrementally: begin in the middle, with the tokenizer 'byte'"),
        (ChangesStatesInPlace(), "incrementally: advance from states used before"),
        (StatesHoldAGenerator(), "states cannot be pickled"),
        (LosesAState(), "begin gives .* states for .* texts, expected a list of"),
        (RaisesInAdvance(), "fails, same score token by token: KeyError"),
    ],
)
def test_an_incremental_scorer_that_differs_from_itself_is_caught(scorer, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer)


def test_a_valid_incremental_scorer_passes_and_the_report_has_the_number_of_comparisons():
    report = check_scorer(CountsCharacters())
    assert "states of unfinished texts, tokenizers byte, char, tiny" in str(report)


def test_preferences_are_verified():
    pairs = [("a long text", "short")]
    assert "preferences" in str(check_scorer(PrefersTheLonger(), prefers=pairs))
    with pytest.raises(AssertionError, match=r"does not prefer 'a long text' \(-11\) to 'short' \(-5\)"):
        check_scorer(PrefersTheLonger(-1.0), prefers=pairs)
    check_scorer(PrefersTheLonger(-1.0), prefers=[("short", "a long text")])


def test_scorers_of_textgym_have_known_preferences():
    assert "preferences" in str(check_scorer("distinct_n"))
    assert "preferences" not in str(check_scorer("distinct_n", prefers=[]))
    assert "preferences" not in str(check_scorer("length_band"))


def test_preferences_are_scored_with_the_columns_and_the_prompt_that_are_given():
    pairs = [("cat", "dog")]
    check_scorer(matches, references=["cat"], metadata={"weight": 0.5}, prefers=pairs)
    check_scorer(continues, prompt="The c", prefers=[("at", "og")])
    with pytest.raises(AssertionError, match="does not prefer 'cat'"):
        check_scorer(matches, references=["dog"], metadata={"weight": 0.5}, prefers=pairs)


def continues(prompts, completions):
    return [float(prompt + text == "The cat") for prompt, text in zip(prompts, completions, strict=True)]


def test_a_scorer_declared_random_may_vary():
    check_scorer(DeclaresItselfRandom())
    with pytest.raises(AssertionError, match="is not deterministic"):
        check_scorer(DeclaresItselfRandom(), deterministic=True)


def test_unfinished_texts_do_not_crash_it():
    with pytest.raises(AssertionError, match=r"given unfinished texts, fails for: every text: .* is not finished"):
        check_scorer(NeedsFinishedTexts())


def test_names_of_parts_and_of_components_agree():
    with pytest.raises(AssertionError, match="reports the components none, but declares first"):
        check_scorer(HasAComponentItDoesNotReport())
    with pytest.raises(AssertionError, match="reports the components second, but declares first"):
        check_scorer(ReportsAnotherName())


class Remembers(Scorer):
    """Learns the number of texts; each subclass has one fault."""

    deterministic = False

    def __init__(self):
        self.count = 0

    def __call__(self, batch):
        return lengths(batch)

    def observe(self, batch, scores):
        self.count += len(batch)

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


class CannotObserveFailures(Remembers):
    def observe(self, batch, scores):
        self.count += int(scores.total.sum())


class NeedsInnerScores(Remembers):
    def __init__(self):
        super().__init__()
        self.scorers = (Remembers(), Remembers())

    def score_components(self, batch):
        return Scores(self(batch), {}, inner=(Scores(lengths(batch), {}),))


class HasAStateBeyondJSON(Remembers):
    def get_state(self):
        return {"count": {self.count}}


class ForgetsItsState(Remembers):
    def set_state(self, state):
        pass


class HasNoSetState(Remembers):
    set_state = Scorer.set_state


class BreaksWithProgress(Remembers):
    def set_progress(self, progress):
        raise KeyError("progress")


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (CannotObserveFailures(), "fails to observe the scores of a failed call: ValueError"),
        (NeedsInnerScores(), "reports scores of 1 of its 2 inner scorers"),
        (HasAStateBeyondJSON(), "has a state that JSON cannot hold: Object of type set"),
        (ForgetsItsState(), "has another state after set_state"),
        (HasNoSetState(), "HasNoSetState .* set_state"),
        (BreaksWithProgress(), "observation, state and progress: KeyError"),
    ],
)
def test_a_scorer_that_cannot_be_trained_with_is_caught(scorer, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer)


def test_a_valid_stateful_scorer_passes_and_is_unchanged():
    scorer = Remembers()
    assert "observes, 1 states" in str(check_scorer(scorer))
    assert scorer.count == 0


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"score_range": (1, 0)}, r"has the score_range \(1, 0\), expected \(least, greatest\)"),
        ({"deterministic": "yes"}, "as deterministic, expected True or False"),
        ({"name": "a/b"}, "has the name 'a/b', expected a non-empty string without '/'"),
    ],
)
def test_invalid_declarations_fail(claim, message):
    scorer = type("Claims", (CountsCharacters,), claim)()
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer)


def test_every_failure_is_in_the_message():
    with pytest.raises(AssertionError) as caught:
        check_scorer(DependsOnTheOrder(), score_range=(0, 10), prefers=[("a", "cat")])
    assert [line.partition(" gives")[0] for line in str(caught.value).splitlines()] == [
        "scorer 'depends_on_the_order' leaves its range [0, 10] for the plain English: 23.0",
        "scorer 'depends_on_the_order' does not prefer 'a' (1) to 'cat' (4)",
        "scorer 'depends_on_the_order' depends on the order of the batch: reversed, it",
        "scorer 'depends_on_the_order' depends on the rest of the batch: alone, it",
        "scorer 'depends_on_the_order' depends on the rest of the batch: in one of 100, it",
    ]


def test_the_report_is_a_table_with_the_observed_range_and_optionally_the_time():
    report = check_scorer("length_band", timed=True)
    lines = str(report).splitlines()
    assert report.passed
    assert report.range_seen == (0.0, 1.0)
    assert lines[0].split() == ["check", "passed", "detail"]
    assert lines[-2] == f"scorer 'length_band': {len(report.checks)} checks passed, scores observed in [0, 1]."
    assert lines[-1].startswith("Microseconds per text of 20 words: ")
    assert check_scorer("length_band").microseconds is None


def test_the_report_notes_that_no_score_was_observed():
    hint = "No score observed: pass references=, metadata= or prompt= if the scorer needs them."
    assert hint in str(check_scorer(never_applies)).splitlines()
    assert hint not in str(check_scorer("length_band"))


def never_applies(completion):
    return None


def test_a_range_that_is_given_counts_instead_of_the_declared_one():
    check_scorer(OutOfItsRange(), score_range=(0, 200_000))


def test_deterministic_false_skips_the_comparisons():
    check_scorer(Counts(), deterministic=False)
