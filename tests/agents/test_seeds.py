"""Runs with different seeds are independent in prompts and sampling."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from fixtures import make_env, small_lm, small_q_policy
from textgym_agents import DQN, DQNConfig, LMPolicy, Reinforce, ReinforceConfig, env_seed

NUM_EPISODES = 64
CRITICAL_VALUE = 18.47
"""Of chi-square with 4 degrees of freedom, exceeded by chance once in 1,000 times."""


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def prompts_of_the_first_update(policy, env, seed):
    agent = Reinforce(policy, env, ReinforceConfig(num_episodes=NUM_EPISODES, kl_coef=0.0, seed=seed))
    return [info["prompt"] for info in agent.collect().infos]


@pytest.mark.parametrize("others", [(1, 2, 3), (1000, 1001)], ids=["neighbours", "far apart"])
def test_runs_of_different_seeds_share_no_more_prompts_than_chance(policy, others):
    words = ["".join(letters) for letters in itertools.product("abcdefg", repeat=4)]
    env = make_env(NUM_EPISODES, prompts=words, max_new_tokens=1)
    expected = NUM_EPISODES**2 / len(words)  # 1.7
    first = Counter(prompts_of_the_first_update(policy, env, 0))
    for seed in others:
        shared = first & Counter(prompts_of_the_first_update(policy, env, seed))
        assert shared.total() <= expected + 4 * expected**0.5, seed


def test_over_sixty_seeds_equally_likely_prompts_are_drawn_equally_often(policy):
    env = make_env(NUM_EPISODES, prompts=list("abcde"), max_new_tokens=1)
    counts = Counter(prompt for seed in range(60) for prompt in prompts_of_the_first_update(policy, env, seed))
    expected = 60 * NUM_EPISODES / 5
    assert counts.total() == 60 * NUM_EPISODES
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < CRITICAL_VALUE


def test_the_sampling_of_a_run_is_that_of_no_other_and_of_no_generator_seeded_by_hand(policy):
    env = make_env(8)
    agents = [Reinforce(policy, env, ReinforceConfig(seed=seed)) for seed in range(4)]
    agents += [DQN(small_q_policy(), env, DQNConfig(seed=4))]
    by_hand = [torch.Generator().manual_seed(seed) for seed in [*range(5), *map(env_seed, range(5))]]
    draws = [torch.rand(8, generator=generator) for generator in [*(agent.generator for agent in agents), *by_hand]]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_the_seed_of_the_environment_is_no_seed_that_a_study_would_count_through():
    seeds = [env_seed(seed) for seed in range(100)]
    assert np.diff(sorted(seeds)).min() > NUM_EPISODES
    assert min(seeds) > 100_000
    assert max(seeds) < 2**32  # which Stable-Baselines3 hands to numpy
