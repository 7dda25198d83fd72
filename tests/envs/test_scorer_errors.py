"""Scorers that fail in a step or a reset, under each error policy."""

import numpy as np
import pytest
from letter_env import EOS, length, make, make_vector, started, unchanged, write

from textgym import ScorerError


class Fragile:
    """Scores the length, or fails in the way ``fault`` names."""

    def __init__(self):
        self.fault = None

    def __call__(self, batch):
        scores = np.array([len(text) for text in batch.completions], dtype=np.float64)
        if self.fault == "raise":
            raise RuntimeError("the model is away")
        if self.fault == "nan":
            scores[-1] = np.nan
        return scores[1:] if self.fault == "fewer" else scores


FAULTS = [("raise", "RuntimeError: the model is away"), ("nan", "no score"), ("fewer", "scores for")]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("reward", ["terminal", "potential"])
def test_a_step_whose_scorer_fails_is_undone_and_can_be_repeated(fault, message, reward):
    scorer = Fragile()
    envs = make_vector(3, scorer=scorer, reward=reward, autoreset_mode="Disabled")
    reference = make_vector(3, scorer=length, reward=reward, autoreset_mode="Disabled")
    for each in (envs, reference):
        each.reset(seed=0)
        each.step([3, 4, 5])
    scorer.fault = fault
    actions = [6, EOS, EOS]
    unchanged(envs, ScorerError, message, lambda: envs.step(actions))
    scorer.fault = None
    for expected, got in zip(reference.step(actions)[:4], envs.step(actions)[:4], strict=True):
        np.testing.assert_array_equal(expected, got)


def test_a_reset_whose_scorer_fails_leaves_every_episode():
    scorer = Fragile()
    envs = make_vector(2, scorer=scorer, reward="potential")
    envs.reset(seed=0)
    envs.step([3, 4])
    scorer.fault = "raise"
    unchanged(envs, ScorerError, "the model is away", envs.reset)


def test_a_failed_score_may_be_invalid():
    scorer = Fragile()
    env = started(scorer=scorer, on_scorer_error="invalid")
    scorer.fault = "raise"
    _, reward, terminated, _, info = write(env, "ab$")
    assert (reward, terminated) == (0.0, True)
    assert np.isnan(info["score"])
    assert "the model is away" in info["scorer_error"]


def test_a_failed_score_may_be_replaced():
    scorer = Fragile()
    env = started(scorer=scorer, on_scorer_error=-2)
    scorer.fault = "nan"
    _, reward, _, _, info = write(env, "ab$")
    assert (reward, info["score"]) == (-2.0, -2.0)
    assert "no score" in info["scorer_error"]


def test_a_failure_concerns_its_slots_alone():
    scorer = Fragile()
    envs = make_vector(3, scorer=scorer, reward="potential", on_scorer_error="invalid")
    envs.reset(seed=0)
    scorer.fault = "nan"
    _, rewards, _, _, info = envs.step([3, 4, 5])
    assert info["_scorer_error"].tolist() == [False, False, True]
    assert rewards.tolist() == [1.0, 1.0, 0.0]


def test_a_failure_over_the_prompt_alone_is_in_the_info_of_the_reset():
    scorer = Fragile()
    scorer.fault = "raise"
    keywords = {"scorer": scorer, "reward": "potential", "on_scorer_error": "invalid"}
    assert "the model is away" in make(**keywords).reset()[1]["scorer_error"]
    _, info = make_vector(2, **keywords).reset()
    assert info["_scorer_error"].tolist() == [True, True]
