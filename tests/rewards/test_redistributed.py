"""Credit functions and the token rewards of ``Redistributed``."""

import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.batch import TextBatch
from textgym.rewards import Redistributed, discounted, leave_one_out, uniform
from textgym.scorers import CharacterShare, RunningNormalization
from textgym.tokenizers import CharTokenizer

TOKENIZER = CharTokenizer("ab ")
A, B, SPACE, EOS = range(4)
KEYWORDS = {"tokenizer": TOKENIZER, "prompts": ["ab"], "max_new_tokens": 5}


def rewards_of(env, actions, **reset):
    env.reset(seed=0, **reset)
    return [env.step(action)[1] for action in actions]


def finished(*texts):
    return TextBatch.from_texts(list(texts), prompts=["ab"] * len(texts), tokenizer=TOKENIZER)


def count_of_a(batch, scorer=None):
    return np.array([float(text.count("a")) for text in batch.completions])


def test_uniform_gives_every_token_the_same_share():
    shares = uniform(count_of_a, finished("abb", "a"), np.array([1.5, 2.0]))
    assert [share.tolist() for share in shares] == [[0.5, 0.5, 0.5], [2.0]]


def test_discounted_shares_decrease_from_the_last_token_back():
    (share,) = discounted(count_of_a, finished("aba"), np.array([7.0]), gamma=0.5)
    assert share.tolist() == [1.0, 2.0, 4.0]


def test_leave_one_out_gives_each_token_the_drop_of_the_score():
    first, second = leave_one_out(count_of_a, finished("aba", "bb"), np.array([2.0, 0.0]))
    assert (first.tolist(), second.tolist()) == ([1.0, 0.0, 1.0], [0.0, 0.0])


def test_the_remainder_of_leave_one_out_is_spread_evenly():
    def pair(batch, scorer=None):  # 1 for "ab" somewhere: of "aab", either a can go, b cannot
        return np.array([float("ab" in text) for text in batch.completions])

    (share,) = Redistributed("leave_one_out").on_episode_end(pair, finished("aab"), np.array([1.0]))
    assert share.tolist() == [0.0, 0.0, 1.0]
    (share,) = Redistributed("leave_one_out").on_episode_end(pair, finished("abab"), np.array([1.0]))
    assert share.tolist() == [0.25] * 4


@pytest.mark.parametrize(
    "credit",
    [
        "uniform",
        "discounted",
        "leave_one_out",
        lambda score, texts, final: [np.arange(float(length)) for length in texts.num_new_tokens],
    ],
)
@pytest.mark.parametrize("prefix", ["", "ab"])
def test_every_redistribution_sums_to_the_score(credit, prefix):
    env = TextGenVectorEnv(num_envs=4, scorer=CharacterShare("a"), reward=Redistributed(credit), **KEYWORDS)
    rng = np.random.default_rng(1)
    for seed in range(5):
        _, done = env.reset(seed=seed, options={"prefix": prefix})[0], False
        while not done:
            _, rewards, terminated, truncated, infos = env.step(rng.integers(0, 4, size=4))
            ended = terminated | truncated
            for slot in np.flatnonzero(ended):
                shares = infos["token_rewards"][slot]
                assert len(shares) == infos["length"][slot]
                assert sum(shares) == pytest.approx(infos["score"][slot]) == pytest.approx(rewards[slot])
            done = ended.any()


def test_step_rewards_remain_terminal():
    env = TextGenEnv(scorer=CharacterShare("a"), reward="redistributed", **KEYWORDS)
    assert rewards_of(env, [A, A, B, B]) == [0.0, 0.0, 0.0, 0.0]
    assert env.step(EOS)[1] == pytest.approx(0.5)


def test_a_failed_score_has_zero_shares():
    def fails(completion):
        raise RuntimeError("no")

    env = TextGenEnv(scorer=fails, reward="redistributed", on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    env.step(A)
    assert env.step(EOS)[4]["token_rewards"] == [0.0, 0.0]


def test_a_failed_score_has_zero_shares_though_the_shorter_texts_have_scores():
    def fails(completion):
        if len(completion) == 2:
            raise RuntimeError("no")
        return float(completion.count("a"))

    env = TextGenEnv(scorer=fails, reward=Redistributed("leave_one_out"), on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    env.step(A)
    env.step(B)
    assert env.step(EOS)[4]["token_rewards"] == [0.0, 0.0, 0.0]


def test_texts_with_a_token_left_out_are_not_observed():
    scorer = RunningNormalization(len)
    env = TextGenEnv(scorer=scorer, reward=Redistributed("leave_one_out"), **KEYWORDS)
    rewards_of(env, [A, A, A, EOS])
    assert (scorer.count, scorer.mean) == (1, 3.0)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.0], r"returned \[1\] numbers for texts of \[2\] tokens"),
        ([0.0, np.nan], "returned a number that is not finite"),
    ],
)
def test_a_credit_function_must_return_a_finite_number_per_token(shares, message):
    env = TextGenEnv(scorer=len, reward=Redistributed(lambda score, texts, final: [shares]), **KEYWORDS)
    rewards_of(env, [A])
    with pytest.raises(ValueError, match=message):
        env.step(EOS)


def test_a_credit_function_may_return_lists():
    env = TextGenEnv(scorer=len, reward=Redistributed(lambda score, texts, final: [[1, 0]]), **KEYWORDS)
    rewards_of(env, [A])
    assert env.step(EOS)[4]["token_rewards"] == [1.0, 0.0]


def test_an_unknown_credit_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        Redistributed("unifrom")
