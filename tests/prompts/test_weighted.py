"""Prompts drawn by weights and by the spread of their scores."""

import copy
import json

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from fixtures import TOKENIZER, small_lm
from textgym.prompts import GeneratorPrompts, ListPrompts, PrioritizedPrompts, Sample, WeightedPrompts
from textgym_agents import GRPO, LMPolicy

PROMPTS = ["a", "b", "c"]
NAN = float("nan")


def shares(source, num=4_000, seed=0):
    """Return the share of draws of each of ``PROMPTS``."""
    rng = np.random.default_rng(seed)
    drawn = [source.draw(rng).prompt for _ in range(num)]
    return np.array([drawn.count(prompt) for prompt in PROMPTS]) / num


def observe(source, prompt, *scores):
    source.observe([Sample(prompt)] * len(scores), np.array(scores))


def test_prompts_are_drawn_in_proportion_to_their_weights():
    source = WeightedPrompts(PROMPTS, [1, 0, 3])
    np.testing.assert_allclose(shares(source), [0.25, 0.0, 0.75], atol=0.03)
    assert len(source) == 3
    assert source[1].prompt == "b"
    assert source.get_state() is None
    assert [source.draw(np.random.default_rng(5)).prompt for _ in range(2)] == ["c", "c"]  # the seed decides


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"shape \(3,\), one for each prompt, got \(2,\)"),
        ([1, -1, 1], "at least 0"),
        ([1, NAN, 1], "finite"),
        ([0, 0, 0], "not all 0"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        WeightedPrompts(PROMPTS, weights)


@pytest.mark.parametrize("make", [PrioritizedPrompts, lambda source: WeightedPrompts(source, [1.0])])
def test_a_source_without_indices_is_refused(make):
    with pytest.raises(TypeError, match=r"weighs the prompts of an indexed source, .* got GeneratorPrompts"):
        make(GeneratorPrompts(lambda rng: "a"))


def test_prompts_are_drawn_in_proportion_to_the_deviation_of_their_scores():
    source = PrioritizedPrompts(PROMPTS, uniform_share=0.1)
    observe(source, "a", 1.0, 1.0, 1.0)
    observe(source, "b", 0.0, 1.0)  # deviation 1/2
    observe(source, "c", 0.0, 3.0, 0.0, 3.0)  # deviation 3/2
    expected = 0.9 * np.array([0, 0.25, 0.75]) + 0.1 / 3
    np.testing.assert_allclose(source.probabilities(), expected)
    np.testing.assert_allclose(shares(source), expected, atol=0.03)
    squared = PrioritizedPrompts(PROMPTS, exponent=2.0, uniform_share=0.0)
    squared.set_state(source.get_state())
    np.testing.assert_allclose(squared.probabilities(), [0, 0.1, 0.9])


def test_the_statistics_are_those_of_all_scores_and_later_forget():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=30)
    source = PrioritizedPrompts(["a"], patience=30)
    observe(source, "a", *scores)
    count, mean, variance = source.get_state()["statistics"]["a"]
    assert (count, mean, variance) == (30, pytest.approx(scores.mean()), pytest.approx(scores.var()))
    observe(source, "a", *[5.0] * 300)
    _, mean, variance = source.get_state()["statistics"]["a"]
    assert mean == pytest.approx(5.0, abs=1e-2)
    assert variance < 1e-2


def test_a_prompt_that_is_not_known_yet_counts_as_the_best():
    source = PrioritizedPrompts(PROMPTS, uniform_share=0.0)
    np.testing.assert_allclose(source.probabilities(), [1 / 3] * 3)
    observe(source, "a", 0.0, 4.0)
    observe(source, "b", 0.0, 0.0)
    observe(source, "c", 1.0)  # one score has no deviation
    np.testing.assert_allclose(source.probabilities(), [0.5, 0.0, 0.5])
    observe(source, "a", *[2.0] * 1_000)
    observe(source, "c", 1.0)
    assert source.probabilities()[0] == pytest.approx(1.0)  # a rest of a deviation
    equal = PrioritizedPrompts(["a", "b"])
    observe(equal, "a", 1.0, 1.0)
    observe(equal, "b", 0.0, 0.0)
    np.testing.assert_allclose(equal.probabilities(), [0.5, 0.5])


def test_failed_scorers_and_prompts_of_others_are_ignored():
    source = PrioritizedPrompts(PROMPTS)
    observe(source, "a", NAN, 1.0, NAN)
    observe(source, "z", 1.0, 2.0)
    assert source.get_state() == {"statistics": {"a": (1, 1.0, 0.0)}}


def test_equal_prompts_share_their_statistics():
    source = PrioritizedPrompts([{"prompt": "a", "references": "x"}, {"prompt": "a", "references": "y"}, "b"])
    observe(source, "a", 0.0, 1.0)
    observe(source, "b", 1.0, 1.0)
    np.testing.assert_allclose(source.probabilities(), [0.9 / 2 + 0.1 / 3] * 2 + [0.1 / 3])


def test_the_state_survives_json_and_belongs_to_its_prompts():
    source, other = PrioritizedPrompts(PROMPTS), PrioritizedPrompts(PROMPTS)
    observe(source, "a", 0.0, 1.0)
    observe(source, "b", 0.5)
    other.set_state(json.loads(json.dumps(source.get_state())))
    for each in (source, other):
        observe(each, "b", 0.0)
    assert source.get_state() == other.get_state()
    np.testing.assert_array_equal(source.probabilities(), other.probabilities())
    with pytest.raises(ValueError, match="statistics of 1 prompts that this source does not have, such as 'a'"):
        PrioritizedPrompts(["b", "c"]).set_state(source.get_state())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"exponent": -1.0}, ValueError, "finite exponent >= 0"),
        ({"uniform_share": 1.5}, ValueError, "0 <= uniform_share <= 1"),
        ({"patience": 1}, ValueError, "at least 2 episodes, got 1"),
        ({"patience": 2.5}, TypeError, r"an integer, got 2\.5"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        PrioritizedPrompts(PROMPTS, **settings)


# In an environment ----------------------------------------------------------------------------------------------------


def spread_after_b(prompts, completions, **_):
    """Score all texts after "a" and "c" the same."""
    return [float(prompt == "b" and "a" in text) for prompt, text in zip(prompts, completions, strict=True)]


def vector_env(num_envs=8, **keywords):
    settings = {"tokenizer": TOKENIZER, "scorer": spread_after_b, "max_new_tokens": 3, "prompts": PROMPTS}
    return textgym.TextGenVectorEnv(num_envs, autoreset_mode="SameStep", **settings | keywords)


def play(env, num_steps, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(num_steps):
        env.step(rng.integers(env.num_actions, size=env.num_envs))


def test_an_environment_asks_more_often_for_prompts_whose_scores_vary():
    source = PrioritizedPrompts(PROMPTS, uniform_share=0.3)
    env = vector_env(64, prompts=source)
    env.reset(seed=0)
    play(env, 40)
    assert source.probabilities()[1] == pytest.approx(0.8)
    prompts = [sample.prompt for sample in env.core.samples]
    assert 0.6 < prompts.count("b") / 64 < 0.95


def test_a_clone_has_statistics_of_its_own_and_a_snapshot_restores_them():
    source = PrioritizedPrompts(PROMPTS)
    env = vector_env(prompts=source)
    env.reset(seed=0)
    play(env, 10)
    state, before = env.get_state(), copy.deepcopy(source.get_state())
    twin = env.clone()
    play(twin, 20)
    assert source.get_state() == before != twin.get_training_state()["prompts"]
    play(env, 20)
    assert env.get_training_state() == twin.get_training_state()
    env.set_state(state)
    assert source.get_state() == before


def test_a_run_with_prioritized_prompts_resumes_exactly(tmp_path):
    def env():
        return vector_env(prompts=PrioritizedPrompts(PROMPTS), group_size=4)

    straight = GRPO(LMPolicy(small_lm()), env(), num_episodes=16, kl_coef=0.0).learn(100)
    straight.save(tmp_path / "agent")
    resumed = GRPO.load(tmp_path / "agent", env())
    for agent in (straight, resumed):
        agent.learn(100)
    assert straight.env.get_training_state() == resumed.env.get_training_state()
    assert torch.equal(straight.episodes.ids, resumed.episodes.ids)


def test_exact_solutions_weigh_the_prompts_as_they_are_drawn():
    def solution(prompts):
        env = gym.make_vec("TextGen-v0", num_envs=1, prompts=prompts, **settings)
        return textgym.probes.solve(env, lambda ids: np.zeros((len(ids), 8)))

    settings = {"tokenizer": TOKENIZER, "scorer": spread_after_b, "max_new_tokens": 2, "max_prompt_tokens": 1}
    only = solution(["b"]).expected_return
    assert solution(PROMPTS).expected_return == pytest.approx(only / 3)
    weighted = solution(WeightedPrompts(PROMPTS, [1, 3, 0]))
    assert weighted.expected_return == pytest.approx(0.75 * only)
    assert np.isfinite(weighted.values).all()
    source = PrioritizedPrompts(ListPrompts(PROMPTS), uniform_share=0.0)
    observe(source, "b", 0.0, 1.0)
    observe(source, "a", 0.0, 0.0)
    observe(source, "c", 0.0, 0.0)
    assert solution(source).expected_return == pytest.approx(only)
