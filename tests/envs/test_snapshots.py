"""Snapshots, clones and random generators."""

import numpy as np
import pytest
from letter_env import EOS, make, make_vector, started, write

from textgym.actions import Subset
from textgym.testing.traces import check_same


def test_one_slot_and_sixty_four_give_the_same_episodes():
    keywords = {"prompts": ["a", "bcd", "ef "], "stop": "ab"}
    many = make_vector(64, autoreset_mode="SameStep", actions=Subset([*"abc"]), **keywords)
    ones = [make(actions=Subset([*"abc"]), **keywords) for _ in range(64)]
    observations, _ = many.reset(seed=5)
    for slot, one in enumerate(ones):
        np.testing.assert_array_equal(one.reset(seed=5 + slot)[0], observations[slot])
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = rng.integers(4, size=64)
        observations, rewards, terminated, truncated, _ = many.step(actions)
        for slot, one in enumerate(ones):
            observation, *outcome, _ = one.step(actions[slot])
            if outcome[1] or outcome[2]:
                observation, _ = one.reset()
            assert outcome == [rewards[slot], terminated[slot], truncated[slot]]
            np.testing.assert_array_equal(observation, observations[slot])


def test_no_global_generator_is_read_or_set():
    before = np.random.get_state()  # noqa: NPY002
    envs = make_vector(4, prompts=["a", "b"], reward="potential")
    envs.reset(seed=3)
    for _ in range(20):
        envs.step([1, 2, 3, EOS])
    check_same(before, np.random.get_state(), "global state")  # noqa: NPY002


def test_a_clone_is_independent_its_action_space_included():
    env = started(prompts=["a", "b", "c", "d"])
    env.action_space.seed(0)
    write(env, "xy")
    other = env.clone()
    expected = other.action_space.sample()
    write(other, "z$")
    other.reset()
    assert env.action_space.sample() == expected
    assert write(env, "$")[4]["completion"] == "xy"


def test_a_snapshot_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 40\), this environment has \(2, 40\)"):
        make_vector(2).set_state(make().get_state())


def test_an_episode_can_be_branched_from_a_snapshot_many_times():
    env = started(max_new_tokens=3)
    write(env, "a")
    state = env.get_state()
    completions = []
    for text in ("bc", "de", "$"):
        env.set_state(state)
        completions.append(write(env, text)[4]["completion"])
    assert completions == ["abc", "ade", "a"]
