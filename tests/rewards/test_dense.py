"""Score increments per token, and potential-based shaping. Per-turn rewards are tested with the users."""

import itertools
import pickle

import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.batch import TextBatch
from textgym.constraints import BanTokens
from textgym.errors import ScorerError
from textgym.rewards import PerToken, Potential, Terminal
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


def rewards_of(env, actions, **reset):
    env.reset(seed=0, **reset)
    return [env.step(action)[1] for action in actions]


# Per token


class CountA(Scorer):
    """The number of letters a, incrementally; raises at the lengths ``fails_at``."""

    name = "count_a"
    incremental = True

    def __init__(self, fails_at=()):
        self.fails_at = set(fails_at)
        self.calls = []

    def __call__(self, batch):
        return np.array([float(text.count("a")) for text in batch.completions])

    def begin(self, batch):
        self.calls.append("begin")
        return [text.count("a") for text in batch.completions]

    def advance(self, states, batch):
        self.calls.append("advance")
        if self.fails_at & set(batch.num_new_tokens.tolist()):
            raise RuntimeError("cannot advance")
        return [count + (piece == "a") for count, piece in zip(states, batch.last_pieces, strict=True)]

    def value(self, states, batch):
        return np.array(states, dtype=np.float64)


def test_each_token_gets_its_score_increment():
    env = TextGenEnv(scorer=CountA(), reward="per_token", **KEYWORDS)
    assert rewards_of(env, [A, B, A, A, EOS]) == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_a_text_is_scored_incrementally_until_it_ends():
    scorer = CountA()
    env = TextGenEnv(scorer=scorer, reward="per_token", **KEYWORDS)
    rewards_of(env, [A, B, A, A, EOS])
    assert scorer.calls == ["begin"] + ["advance"] * 5


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


def test_the_first_token_after_a_prefix_includes_the_prefixs_score():
    env = TextGenEnv(scorer=CountA(), reward="per_token", **KEYWORDS)
    assert rewards_of(env, [B, A, EOS], options={"prefix": "aa"}) == [2.0, 1.0, 0.0]


def test_a_snapshot_holds_the_score_so_far():
    env = TextGenEnv(scorer=CountA(), reward="per_token", **KEYWORDS)
    rewards_of(env, [A, A])
    twin, state = env.clone(), env.get_state()
    assert twin.step(A)[1] == env.step(A)[1] == 1.0
    env.step(B)
    env.set_state(state)
    assert [env.step(action)[1] for action in (B, A)] == [0.0, 1.0]


def test_an_ignored_action_has_no_increment():
    keywords = {"constraints": BanTokens(["b"]), "on_invalid_action": "ignore", "invalid_action_penalty": 0.25}
    env = TextGenEnv(scorer=CountA(), reward="per_token", **KEYWORDS, **keywords)
    assert rewards_of(env, [A, B, A]) == [1.0, -0.25, 1.0]


def test_the_token_after_a_failure_includes_its_increment():
    scorer = CountA(fails_at=[2])
    env = TextGenEnv(scorer=scorer, reward="per_token", on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    steps = [env.step(action) for action in (A, A, A, B, EOS)]
    assert [step[1] for step in steps] == [1.0, 0.0, 2.0, 0.0, 0.0]
    assert ["scorer_error" in step[4] for step in steps] == [False, True, False, False, False]
    assert "cannot advance" in steps[1][4]["scorer_error"]


def test_a_replacement_score_counts_as_the_score_so_far():
    env = TextGenEnv(scorer=CountA(fails_at=[2]), reward="per_token", on_scorer_error=-7.0, **KEYWORDS)
    assert rewards_of(env, [A, A, A, EOS]) == [1.0, -8.0, 10.0, 0.0]


def test_a_failure_that_raises_leaves_the_episode_unchanged():
    scorer = CountA(fails_at=[2])
    env = TextGenEnv(scorer=scorer, reward="per_token", **KEYWORDS)
    rewards_of(env, [A])
    with pytest.raises(ScorerError, match="cannot advance"):
        env.step(A)
    scorer.fails_at = set()
    assert [env.step(A)[1], env.step(EOS)[1]] == [1.0, 0.0]


def test_a_scorer_that_is_not_incremental_is_rejected_with_the_names_of_incremental_ones():
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
def test_the_error_names_the_component_that_is_not_incremental(scorer, message):
    with pytest.raises(ValueError, match=message):
        TextGenEnv(scorer=scorer, reward="per_token")


def test_the_error_builds_none_of_the_scorers_that_it_names(monkeypatch):
    monkeypatch.setitem(_FACTORIES, "broken", lambda: 1 / 0)
    with pytest.raises(ValueError, match="needs an incremental scorer"):
        TextGenEnv(scorer="sentiment", reward="per_token")


def test_per_token_works_with_gym_make():
    env = gym.make("TextGen-v0", scorer="length_band", reward="per_token", max_new_tokens=8)
    env.reset(seed=0)
    assert env.step(0)[1] == pytest.approx(1 / 8)


# Potential

SCORES = {"": 0.3, "a": 0.9, "b": -0.2, "aa": 0.8, "ab": 0.1, "ba": 0.0, "bb": -0.5}
SCORES |= {"aaa": 0.2, "aab": 0.1, "aba": 0.0, "abb": 0.4, "baa": -1.0, "bab": 1.0, "bba": 0.6, "bbb": 0.5}
"""Score of each text with two tokens and three steps; greedy steps miss the best text."""


def table(batch):
    return np.array([SCORES[text] for text in batch.completions])


def batch_of(texts, done):
    batch = TextBatch.from_texts(texts)
    batch.done = np.array(done, dtype=np.bool_)
    return batch


def shaped_rewards(reward, text, score=table):
    """Return the step rewards of the episode that generates ``text`` and ends with its last token."""
    state = reward.start(score, batch_of([""], [False]))
    rewards = []
    for length in range(1, len(text) + 1):
        done = length == len(text)
        batch = batch_of([text[:length]], [done])
        final = score(batch) if done else np.zeros(1)
        step, state = reward(score, batch, final, state)
        rewards.append(step.item())
    return rewards


def test_potential_gives_each_step_its_change_of_phi():
    # Phi: "" 0.3, "b" -0.2, "ba" 0.0, and 0 for the finished "bab", whose score is 1.
    assert shaped_rewards(Potential(), "bab") == pytest.approx([-0.2 - 0.3, 0.0 + 0.2, 1.0 + 0.0 - 0.0])


def test_potential_discounts_the_next_phi():
    assert shaped_rewards(Potential(gamma=0.5), "bab") == pytest.approx([0.5 * -0.2 - 0.3, 0.5 * 0.0 + 0.2, 1.0])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_potential_telescopes_to_the_final_score_minus_that_of_the_prompt(gamma):
    for text in (text for text in SCORES if text):
        shaped = sum(gamma**t * r for t, r in enumerate(shaped_rewards(Potential(gamma), text)))
        plain = sum(gamma**t * r for t, r in enumerate(shaped_rewards(Terminal(), text)))
        assert shaped == pytest.approx(plain - SCORES[""])


@pytest.mark.parametrize("potential", [None, lambda completion: completion.count("b") * 3.0])
def test_potential_preserves_the_best_action_sequence_and_the_order_of_all(potential):
    sequences = ["".join(tokens) for tokens in itertools.product("ab", repeat=3)]
    plain = [sum(shaped_rewards(Terminal(), text)) for text in sequences]
    shaped = [sum(shaped_rewards(Potential(potential=potential), text)) for text in sequences]
    assert sequences[int(np.argmax(shaped))] == "bab"
    assert np.argsort(shaped).tolist() == np.argsort(plain).tolist()


def test_potential_scores_only_the_unfinished_texts():
    scored = []

    def spy(batch):
        scored.append(batch.completions)
        return table(batch)

    batch = batch_of(["aa", "bab", "b"], [False, True, False])
    rewards, state = Potential()(spy, batch, np.array([0.0, 1.0, 0.0]), np.array([0.9, 0.0, 0.3]))
    assert scored == [["aa", "b"]]
    assert rewards == pytest.approx([0.8 - 0.9, 1.0 + 0.0 - 0.0, -0.2 - 0.3])
    assert state.tolist() == [0.8, 0.0, -0.2]


def test_potential_calls_no_scorer_when_all_texts_are_finished():
    def never(batch):
        raise AssertionError("called")

    rewards, state = Potential()(never, batch_of(["bab"], [True]), np.array([1.0]), np.array([0.25]))
    assert rewards.tolist() == [0.75]
    assert state.tolist() == [0.0]


def test_potential_does_not_change_the_state_in_place():
    state = np.array([0.3])
    Potential()(table, batch_of(["a"], [False]), np.zeros(1), state)
    assert state.tolist() == [0.3]


def test_potential_counts_a_missing_score_as_zero():
    def missing(batch):
        return np.full(len(batch), np.nan)

    assert shaped_rewards(Potential(), "ab", missing) == [0.0, 0.0]


def test_potential_may_have_its_own_scorer_whose_errors_raise():
    assert shaped_rewards(Potential(potential=len), "bab") == [1.0, 1.0, 1.0 - 2.0]
    with pytest.raises(ScorerError, match="raised ValueError"):
        shaped_rewards(Potential(potential=lambda completion: float(completion)), "bab")


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1.5, float("nan")])
def test_potential_rejects_a_gamma_outside_its_range(gamma):
    with pytest.raises(ValueError, match=r"gamma must be in \(0, 1\]"):
        Potential(gamma)


def value_of(env, actions):
    return sum(rewards_of(env, actions))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_shaped_and_plain_returns_differ_by_a_constant(every):
    ranks = {text: float(rank) for rank, text in enumerate(["bab", "aab", "abb", "bba", "aaa", "bbb", "baa", "aba"])}

    def score(completion):
        return ranks.get(completion, float(len(completion) * 3 - completion.count("b") * 5))

    keywords = {"tokenizer": CharTokenizer("ab"), "prompts": ["a"], "max_new_tokens": 3, "scorer": score}
    plain = TextGenEnv(**keywords)
    shaped = TextGenEnv(reward=Potential(every=every), **keywords)
    texts = list(itertools.product([A, B], repeat=3))
    differences = [value_of(plain, text) - value_of(shaped, text) for text in texts]
    assert differences == pytest.approx([score("")] * len(texts))


def test_shaping_every_k_tokens_calls_the_scorer_only_then():
    scored = []

    def score(completion):
        scored.append(completion)
        return float(len(completion))

    env = TextGenEnv(scorer=score, reward=Potential(every=2), **KEYWORDS)
    assert rewards_of(env, [A, A, A, A, A]) == [0.0, 2.0, 0.0, 2.0, 5.0 - 4.0]
    assert scored == ["", "aa", "aaaa", "aaaaa"]


class DerivesLocally(Scorer):
    def __call__(self, batch):
        return np.array(batch.derived(lambda text: float(len(text))))


def test_an_environment_can_be_pickled_after_its_scorer_derived_values():
    env = TextGenEnv(scorer=DerivesLocally(), reward="potential", **KEYWORDS)
    rewards_of(env, [A, A])
    twin = pickle.loads(pickle.dumps(env))
    assert twin.step(A)[1] == env.step(A)[1] == 1.0


def test_shaping_rejects_an_interval_below_1():
    with pytest.raises(ValueError, match="every must be a positive integer, got 0"):
        Potential(every=0)
