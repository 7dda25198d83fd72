import itertools
import pickle

import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.batch import TextBatch
from textgym.constraints import BanTokens
from textgym.errors import ScorerError
from textgym.rewards import PerToken, Potential, Redistributed, as_reward, discounted, leave_one_out, uniform
from textgym.scorers import (
    CharacterShare,
    Clip,
    Keywords,
    LengthBand,
    Product,
    RunningNormalization,
    Scorer,
    WeightedSum,
)
from textgym.scorers.registry import _FACTORIES
from textgym.tokenizers import CharTokenizer

TOKENIZER = CharTokenizer("ab ")
A, B, SPACE, EOS = range(4)
KEYWORDS = {"tokenizer": TOKENIZER, "prompts": ["ab"], "max_new_tokens": 5}


class Follower(Scorer):
    """The number of letters a, followed token by token; fails where it is told to."""

    name = "follower"
    incremental = True

    def __init__(self, fails_at=()):
        self.fails_at = set(fails_at)
        self.asked = []

    def __call__(self, batch):
        return np.array([float(text.count("a")) for text in batch.completions])

    def begin(self, batch):
        self.asked.append("begin")
        return [text.count("a") for text in batch.completions]

    def advance(self, states, batch):
        self.asked.append("advance")
        if self.fails_at & set(batch.num_new_tokens.tolist()):
            raise RuntimeError("lost the thread")
        return [count + (piece == "a") for count, piece in zip(states, batch.last_pieces, strict=True)]

    def value(self, states, batch):
        return np.array(states, dtype=np.float64)


def rewards_of(env, actions, **reset):
    env.reset(seed=0, **reset)
    return [env.step(action)[1] for action in actions]


def test_each_token_is_paid_for_what_it_adds():
    env = TextGenEnv(scorer=Follower(), reward="per_token", **KEYWORDS)
    assert rewards_of(env, [A, B, A, A, EOS]) == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_a_text_is_followed_and_not_scored_again_until_it_ends():
    scorer = Follower()
    env = TextGenEnv(scorer=scorer, reward="per_token", **KEYWORDS)
    rewards_of(env, [A, B, A, A, EOS])
    assert scorer.asked == ["begin"] + ["advance"] * 5


@pytest.mark.parametrize(
    "scorer",
    [
        Keywords(["ab", "ba a"]),
        CharacterShare("a"),
        LengthBand(2, 3, "characters"),
        WeightedSum({"a": (CharacterShare("a"), 2.0), "length": (LengthBand(2, 4), -0.5)}),
    ],
)
def test_the_rewards_of_any_episode_sum_to_its_score(scorer):
    env = TextGenVectorEnv(num_envs=3, scorer=scorer, reward="per_token", autoreset_mode="SameStep", **KEYWORDS)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    sums, checked = np.zeros(3), 0
    for _ in range(60):
        _, rewards, terminated, truncated, infos = env.step(rng.integers(0, 4, size=3))
        sums += rewards
        for slot in np.flatnonzero(terminated | truncated):
            assert sums[slot] == pytest.approx(infos["final_info"]["score"][slot])
            sums[slot] = 0.0
            checked += 1
    assert checked > 20


def test_a_text_that_is_begun_is_paid_for_what_it_begins_with():
    env = TextGenEnv(scorer=Follower(), reward="per_token", **KEYWORDS)
    assert rewards_of(env, [B, A, EOS], options={"prefix": "aa"}) == [2.0, 1.0, 0.0]


def test_a_snapshot_holds_what_has_been_paid():
    env = TextGenEnv(scorer=Follower(), reward="per_token", **KEYWORDS)
    rewards_of(env, [A, A])
    twin, state = env.clone(), env.get_state()
    assert twin.step(A)[1] == env.step(A)[1] == 1.0
    env.step(B)
    env.set_state(state)
    assert [env.step(action)[1] for action in (B, A)] == [0.0, 1.0]


def test_an_action_that_is_ignored_pays_nothing():
    keywords = {"constraints": BanTokens(["b"]), "on_invalid_action": "ignore", "invalid_action_penalty": 0.25}
    env = TextGenEnv(scorer=Follower(), reward="per_token", **KEYWORDS, **keywords)
    assert rewards_of(env, [A, B, A]) == [1.0, -0.25, 1.0]


def test_a_failure_is_made_up_for_by_the_next_token():
    scorer = Follower(fails_at=[2])
    env = TextGenEnv(scorer=scorer, reward="per_token", on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    steps = [env.step(action) for action in (A, A, A, B, EOS)]
    assert [step[1] for step in steps] == [1.0, 0.0, 2.0, 0.0, 0.0]
    assert ["scorer_error" in step[4] for step in steps] == [False, True, False, False, False]
    assert "lost the thread" in steps[1][4]["scorer_error"]


def test_a_number_in_the_place_of_a_failed_score_is_paid_and_taken_back():
    env = TextGenEnv(scorer=Follower(fails_at=[2]), reward="per_token", on_scorer_error=-7.0, **KEYWORDS)
    assert rewards_of(env, [A, A, A, EOS]) == [1.0, -8.0, 10.0, 0.0]


def test_a_failure_that_raises_leaves_the_episode_as_it_was():
    scorer = Follower(fails_at=[2])
    env = TextGenEnv(scorer=scorer, reward="per_token", **KEYWORDS)
    rewards_of(env, [A])
    with pytest.raises(ScorerError, match="lost the thread"):
        env.step(A)
    scorer.fails_at = set()
    assert [env.step(A)[1], env.step(EOS)[1]] == [1.0, 0.0]


def test_a_scorer_that_cannot_follow_is_refused_with_the_names_of_those_that_can():
    with pytest.raises(ValueError, match=r"'sentiment' is not; incremental are, .*length_band.*Potential"):
        TextGenEnv(scorer="sentiment", reward="per_token")
    with pytest.raises(ValueError, match="'weighted_sum' is not because of 'sentiment';"):
        TextGenEnv(scorer={"length_band": 1.0, "sentiment": 1.0}, reward=PerToken())


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (Clip(WeightedSum({"a": (LengthBand(), 1.0), "b": ("sentiment", 1.0)}), 0), " because of 'sentiment';"),
        (Product({"x": {"length_band": 1.0, "sentiment": 1.0}}), " because of 'sentiment';"),
        (Product({"mood": Clip("sentiment", 0)}), " because of 'sentiment';"),
        (Clip("sentiment", 0), "'sentiment' is not;"),
        (Clip(RunningNormalization(LengthBand()), 0), " because of RunningNormalization;"),
    ],
)
def test_a_refusal_names_the_part_that_cannot_follow(scorer, message):
    with pytest.raises(ValueError, match=message):
        TextGenEnv(scorer=scorer, reward="per_token")


def test_a_refusal_makes_none_of_the_scorers_that_it_names(monkeypatch):
    monkeypatch.setitem(_FACTORIES, "broken", lambda: 1 / 0)
    with pytest.raises(ValueError, match="needs an incremental scorer"):
        TextGenEnv(scorer="sentiment", reward="per_token")


def test_it_plugs_into_gym_make():
    env = gym.make("TextGen-v0", scorer="length_band", reward="per_token", max_new_tokens=8)
    env.reset(seed=0)
    assert env.step(0)[1] == pytest.approx(1 / 8)


# Redistribution


def finished(*texts):
    return TextBatch.from_texts(list(texts), prompts=["ab"] * len(texts), tokenizer=TOKENIZER)


def count_of_a(batch, scorer=None):
    return np.array([float(text.count("a")) for text in batch.completions])


def test_the_uniform_share_is_the_same_for_every_token():
    shares = uniform(count_of_a, finished("abb", "a"), np.array([1.5, 2.0]))
    assert [share.tolist() for share in shares] == [[0.5, 0.5, 0.5], [2.0]]


def test_the_discounted_share_falls_from_the_last_token_back():
    (share,) = discounted(count_of_a, finished("aba"), np.array([7.0]), gamma=0.5)
    assert share.tolist() == [1.0, 2.0, 4.0]


def test_a_token_left_out_is_worth_what_the_score_falls_by():
    first, second = leave_one_out(count_of_a, finished("aba", "bb"), np.array([2.0, 0.0]))
    assert (first.tolist(), second.tolist()) == ([1.0, 0.0, 1.0], [0.0, 0.0])


def test_what_left_out_tokens_do_not_explain_is_spread_evenly():
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


def test_a_stock_agent_still_sees_the_score_at_the_end():
    env = TextGenEnv(scorer=CharacterShare("a"), reward="redistributed", **KEYWORDS)
    assert rewards_of(env, [A, A, B, B]) == [0.0, 0.0, 0.0, 0.0]
    assert env.step(EOS)[1] == pytest.approx(0.5)


def test_a_failed_score_has_nothing_to_share():
    def fails(completion):
        raise RuntimeError("no")

    env = TextGenEnv(scorer=fails, reward="redistributed", on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    env.step(A)
    assert env.step(EOS)[4]["token_rewards"] == [0.0, 0.0]


def test_a_failed_score_has_nothing_to_share_though_the_shorter_texts_have_one():
    def fails(completion):
        if len(completion) == 2:
            raise RuntimeError("no")
        return float(completion.count("a"))

    env = TextGenEnv(scorer=fails, reward=Redistributed("leave_one_out"), on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    env.step(A)
    env.step(B)
    assert env.step(EOS)[4]["token_rewards"] == [0.0, 0.0, 0.0]


def test_texts_without_a_token_are_not_counted_as_finished():
    scorer = RunningNormalization(len)
    env = TextGenEnv(scorer=scorer, reward=Redistributed("leave_one_out"), **KEYWORDS)
    rewards_of(env, [A, A, A, EOS])
    assert (scorer.count, scorer.mean) == (1, 3.0)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.0], r"gave \[1\] numbers for texts of \[2\] tokens"),
        ([0.0, np.nan], "gave a number that is not finite"),
    ],
)
def test_a_credit_function_has_to_speak_of_every_token(shares, message):
    env = TextGenEnv(scorer=len, reward=Redistributed(lambda score, texts, final: [shares]), **KEYWORDS)
    rewards_of(env, [A])
    with pytest.raises(ValueError, match=message):
        env.step(EOS)


def test_a_credit_function_may_give_lists():
    env = TextGenEnv(scorer=len, reward=Redistributed(lambda score, texts, final: [[1, 0]]), **KEYWORDS)
    rewards_of(env, [A])
    assert env.step(EOS)[4]["token_rewards"] == [1.0, 0.0]


def test_an_unknown_credit_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        Redistributed("unifrom")


# Shaping on a world that can be enumerated


def value_of(env, actions):
    return sum(rewards_of(env, actions))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_potential_based_shaping_leaves_the_best_text_and_the_order_of_all_as_they_are(every):
    worth = {text: float(rank) for rank, text in enumerate(["bab", "aab", "abb", "bba", "aaa", "bbb", "baa", "aba"])}

    def score(completion):
        return worth.get(completion, float(len(completion) * 3 - completion.count("b") * 5))

    keywords = {"tokenizer": CharTokenizer("ab"), "prompts": ["a"], "max_new_tokens": 3, "scorer": score}
    plain = TextGenEnv(**keywords)
    shaped = TextGenEnv(reward=Potential(every=every), **keywords)
    texts = list(itertools.product([A, B], repeat=3))
    differences = [value_of(plain, text) - value_of(shaped, text) for text in texts]
    assert differences == pytest.approx([score("")] * len(texts))


def test_shaping_every_few_tokens_asks_the_scorer_only_then():
    asked = []

    def score(completion):
        asked.append(completion)
        return float(len(completion))

    env = TextGenEnv(scorer=score, reward=Potential(every=2), **KEYWORDS)
    assert rewards_of(env, [A, A, A, A, A]) == [0.0, 2.0, 0.0, 2.0, 5.0 - 4.0]
    assert asked == ["", "aa", "aaaa", "aaaaa"]


class DerivesLocally(Scorer):
    def __call__(self, batch):
        return np.array(batch.derived(lambda text: float(len(text))))


def test_an_environment_pickles_whatever_its_scorer_has_derived_from_the_texts():
    env = TextGenEnv(scorer=DerivesLocally(), reward="potential", **KEYWORDS)
    rewards_of(env, [A, A])
    twin = pickle.loads(pickle.dumps(env))
    assert twin.step(A)[1] == env.step(A)[1] == 1.0


def test_shaping_needs_a_positive_interval():
    with pytest.raises(ValueError, match="every must be a positive integer, got 0"):
        Potential(every=0)


def test_a_reward_object_that_needs_no_scorer_is_used_as_it_is():
    reward = Potential()
    assert as_reward(reward, LengthBand()) is reward
