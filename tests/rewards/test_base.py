"""The contract of rewards: names, plain functions, and what the core requires of a reward."""

import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.batch import TextBatch
from textgym.constraints import BanTokens
from textgym.rewards import PerTurn, Potential, Reward, Terminal, as_reward
from textgym.scorers import LengthBand, Scorer
from textgym.users import Reply, ScriptedUser


def test_as_reward_accepts_names_and_objects():
    assert isinstance(as_reward("terminal"), Terminal)
    assert isinstance(as_reward("potential"), Potential)
    reward = Potential(0.9)
    assert as_reward(reward) is reward


def test_an_unknown_reward_suggests_the_nearest_name():
    with pytest.raises(
        ValueError, match=r"unknown reward 'potental'; did you mean 'potential'\? Known: per_token, per_turn, pot"
    ):
        as_reward("potental")


@pytest.mark.parametrize("spec", [1.0, None, len, Terminal])
def test_as_reward_rejects_other_objects(spec):
    with pytest.raises(TypeError, match="reward is"):
        as_reward(spec)


def test_a_reward_object_that_needs_no_scorer_is_returned_unchanged():
    reward = Potential()
    assert as_reward(reward, LengthBand()) is reward


def test_terminal_gives_the_final_score_once():
    env = TextGenEnv(tokenizer="char", prompts=["a"], scorer=len, max_new_tokens=3)
    env.reset(seed=0)
    assert [env.step(0)[1] for _ in range(3)] == [0.0, 0.0, 3.0]


def test_terminal_returns_its_arguments():
    final, state = np.zeros(2), np.zeros(2)
    rewards, new_state = Terminal()(lambda batch: None, TextBatch.from_texts(["a", "b"]), final, state)
    assert rewards is final
    assert new_state is state


# Arguments are read-only


class InPlace(Reward):
    """Changes one of its arguments in place, and returns it."""

    def __init__(self, argument):
        self.argument = argument

    def __call__(self, score, batch, final_scores, state):
        changed = final_scores if self.argument == "final_scores" else state
        changed += np.nan
        return final_scores, state


@pytest.mark.parametrize("argument", ["final_scores", "state"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_reward_that_changes_its_arguments_in_place_is_an_error_and_the_step_is_undone(argument, num_envs):
    env = TextGenVectorEnv(
        num_envs, tokenizer="char", prompts=["a"], scorer=len, reward=InPlace(argument), max_new_tokens=1
    )
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match="read-only"):
        env.step(np.zeros(num_envs, dtype=np.int64))
    np.testing.assert_equal(env.get_state(), before)


class OwnBuffer(Reward):
    """Returns the same array in every step."""

    def __init__(self):
        self.buffer = np.zeros(1)

    def __call__(self, score, batch, final_scores, state):
        self.buffer[:] = batch.num_new_tokens
        return self.buffer, state


@pytest.mark.parametrize("reward", ["terminal", "potential", "redistributed", OwnBuffer()])
def test_the_rewards_of_a_step_belong_to_the_caller(reward):
    env = TextGenVectorEnv(1, tokenizer="char", prompts=["a"], scorer=len, reward=reward, max_new_tokens=3)
    env.reset(seed=0)
    first = env.step(np.zeros(1, dtype=np.int64))[1]
    copied = first.copy()
    env.step(np.zeros(1, dtype=np.int64))
    assert first.tolist() == copied.tolist()
    first += 1.0  # as a wrapper or an agent may do


class TokenRewards(Terminal):
    """A terminal reward with token rewards from a function of the final scores."""

    per_token = True

    def __init__(self, function):
        self.function = function

    def on_episode_end(self, score, texts, final_scores):
        return [self.function(final_scores)]


def last_step(function, **keywords):
    env = TextGenEnv(
        tokenizer="char", prompts=["a"], reward=TokenRewards(function), max_new_tokens=1, **{"scorer": len} | keywords
    )
    env.reset(seed=0)
    before = env.get_state()
    try:
        return env.step(0)
    except ValueError:
        np.testing.assert_equal(env.get_state(), before)
        raise


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_token_rewards_that_are_not_finite_are_an_error_and_the_step_is_undone(value):
    with pytest.raises(
        ValueError, match=rf"TokenRewards\.on_episode_end returned .*{value}.*, expected finite numbers"
    ):
        last_step(lambda final_scores: [value])


def test_token_rewards_of_a_failed_score_that_are_nan_are_0():
    def fails(completion):
        raise RuntimeError("no")

    _, reward, *_, info = last_step(lambda final_scores: final_scores / 2, scorer=fails, on_scorer_error="invalid")
    assert (reward, info["token_rewards"]) == (0.0, [0.0])


def test_final_scores_cannot_be_changed_at_an_episodes_end():
    with pytest.raises(ValueError, match="read-only"):
        last_step(lambda final_scores: final_scores.fill(7.0))


# What the scorers of a reward observe


class Records(Scorer):
    """Records the completions that it scores and observes."""

    def __init__(self):
        self.scored, self.observed = [], []

    def __call__(self, batch):
        self.scored += batch.completions
        return np.zeros(len(batch))

    def observe(self, batch, scores):
        assert len(batch) == len(scores.total) > 0
        self.observed += zip(batch.completions, batch.prompts, [m["n"] for m in batch.metadata], strict=True)


def single_env(turn_scorer, **keywords):
    settings = {"tokenizer": "byte", "prompts": [{"prompt": "p", "n": 1}], "scorer": len, "max_new_tokens": 6}
    env = TextGenEnv(**settings | {"reward": PerTurn(turn_scorer)} | keywords)
    env.reset(seed=0)
    return env


def test_a_turn_scorer_observes_the_turns_that_it_scores():
    scorer = Records()
    env = single_env(scorer, user=ScriptedUser(lambda _, turns: Reply("no", "end" if len(turns) == 2 else None)))
    for token in (97, 98, 256, 99, 256):
        assert scorer.observed == []
        env.step(token)
    assert scorer.observed == [("ab", "p", 1), ("c", "p", 1)]
    assert scorer.scored == ["ab", "c", "ab", "c"]  # at each turn's end, and for observe


def test_without_a_user_a_turn_scorer_observes_the_completion():
    scorer = Records()
    single_env(scorer).step(256)
    assert scorer.observed == [("", "p", 1)]


def test_a_scorer_of_both_turns_and_texts_observes_the_text_only():
    scorer = Records()
    single_env(scorer, scorer=scorer, max_new_tokens=1).step(97)
    assert scorer.observed == [("a", "p", 1)]


def test_a_turn_scorer_observes_nothing_of_an_episode_without_turns():
    scorer = Records()
    env = single_env(scorer, user=lambda messages: None, constraints=BanTokens(["b"]), on_invalid_action="terminate")
    assert env.step(98)[2]
    assert scorer.observed == []


def test_a_reward_may_choose_what_its_scorers_observe():
    class Prompts(Potential):
        def observe(self, batch, seen):
            self.seen_prompts = batch.prompts

    reward = Prompts(potential=Records())
    single_env(None, reward=reward, max_new_tokens=1).step(97)
    assert reward.seen_prompts == ["p"]
    assert reward.potential.observed == []


def test_a_plain_object_with_a_hook_is_rejected():
    class Observes:
        def __call__(self, score, batch, final_scores, state):
            return final_scores, state

        def observe(self, batch, seen):
            raise AssertionError

    with pytest.raises(TypeError, match="Observes with observe: inherit"):
        as_reward(Observes())
