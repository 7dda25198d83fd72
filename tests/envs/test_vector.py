"""The vector environment under Gymnasium's API, and rendering in all interfaces."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

import textgym
from textgym.constraints import AllowTokens
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
KEYWORDS = {"tokenizer": "char", "prompts": ["Hi ", "Hello "], "max_new_tokens": 4, "scorer": "length_band"}


def make_vec(num_envs=3, autoreset_mode="SameStep", **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=autoreset_mode, **KEYWORDS | kwargs)


# Gymnasium's vector API -----------------------------------------------------------------------------------------------


def test_make_vec_makes_the_arrays_and_not_single_environments():
    envs = gym.make_vec("TextGen-v0", num_envs=3, **KEYWORDS)
    assert isinstance(envs.unwrapped, textgym.TextGenVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert envs.observation_space.shape == (3, 36)
    assert envs.single_action_space == gym.spaces.Discrete(97)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_make_vec_also_makes_gymnasiums_own_vector_environments(mode):
    theirs = gym.make_vec("TextGen-v0", num_envs=2, vectorization_mode=mode, **KEYWORDS)
    ours = gym.make_vec("TextGen-v0", num_envs=2, **KEYWORDS)
    try:
        np.testing.assert_array_equal(theirs.reset(seed=4)[0], ours.reset(seed=4)[0])
        for _ in range(6):
            check_same(theirs.step(np.array([5, EOS])), ours.step(np.array([5, EOS])), mode)
    finally:
        theirs.close()


def test_next_step_mode_resets_in_the_step_after_the_end():
    envs = make_vec(autoreset_mode="NextStep")
    envs.reset(seed=0)
    last, _, terminated, _, info = envs.step([EOS, 1, 2])
    assert terminated.tolist() == [True, False, False]
    assert info["_completion"].tolist() == [True, False, False]
    assert EOS in last[0]
    first, rewards, terminated, _, info = envs.step([7, 1, 2])
    assert (rewards[0], terminated.any(), info) == (0.0, False, {})
    assert 7 not in first[0]
    assert envs.unwrapped.core.steps.tolist() == [0, 2, 2]
    assert envs.step([7, 1, 2])[0][0].tolist().count(7) == 1


def test_next_step_mode_ignores_whatever_action_a_waiting_slot_is_given():
    envs = make_vec(autoreset_mode="NextStep", constraints=AllowTokens(["a"]))
    envs.reset(seed=0)
    a = CHAR.encode("a")[0]
    envs.step([EOS, a, a])
    envs.step([5000, a, a])
    assert envs.unwrapped.core.running.all()


def test_next_step_mode_may_have_every_slot_waiting():
    envs = make_vec(autoreset_mode="NextStep")
    envs.reset(seed=0)
    envs.step([EOS, EOS, EOS])
    _, rewards, terminated, truncated, info = envs.step([0, 0, 0])
    assert not rewards.any()
    assert not (terminated | truncated).any()
    assert info == {}


def test_same_step_mode_returns_the_new_episode_and_the_old_end():
    envs = make_vec()
    envs.reset(seed=0)
    observations, _, terminated, _, info = envs.step([EOS, 1, EOS])
    assert terminated.tolist() == [True, False, True]
    assert EOS not in observations
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == [True, False, True]
    assert info["final_obs"][1] is None
    assert EOS in info["final_obs"][0]
    assert info["final_info"]["end_reason"].tolist() == ["eos", None, "eos"]
    assert "completion" not in info


def test_same_step_mode_steps_and_ends_with_every_step():
    envs = make_vec()
    envs.reset(seed=0)
    for _ in range(3):
        assert envs.step([EOS, EOS, EOS])[2].all()


def test_disabled_mode_waits_for_a_masked_reset_which_leaves_the_others_alone():
    envs = make_vec(autoreset_mode="Disabled")
    before, _ = envs.reset(seed=0)
    after, _, _, _, _ = envs.step([EOS, 1, 2])
    with pytest.raises(ResetNeeded):
        envs.step([0, 0, 0])
    mask = np.array([True, False, False])
    options = {"reset_mask": mask}
    reset, _ = envs.reset(options=options, seed=[0, 100, 200])
    np.testing.assert_array_equal(reset[0], before[0])
    np.testing.assert_array_equal(reset[1:], after[1:])
    assert options == {"reset_mask": mask}
    other = make_vec(autoreset_mode="Disabled")
    other.reset(seed=0)
    # The generators of the slots that were not reset were not seeded either.
    check_same(other.unwrapped.get_rng_states()[1:], envs.unwrapped.get_rng_states()[1:], "generators")


@pytest.mark.parametrize("mask", [[False] * 3, np.ones(2, bool), np.ones(3), 1])
def test_a_masked_reset_needs_a_mask(mask):
    envs = make_vec(autoreset_mode="Disabled")
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="reset_mask must be bool"):
        envs.reset(options={"reset_mask": mask})


def test_a_masked_reset_takes_options_for_its_slots():
    envs = make_vec(autoreset_mode="Disabled")
    envs.reset(seed=0)
    mask = np.array([True, False, True])
    observations, _ = envs.reset(options={"reset_mask": mask, "prompt": ["x", "y"]})
    assert [CHAR.decode(row[:1]) for row in observations] == ["x", "H", "y"]


@pytest.mark.parametrize("seed", [7, np.int64(7), [7, 8, 9], (7, 8, 9)])
def test_seeds_are_one_for_all_or_one_for_each_slot(seed):
    envs = make_vec(prompts=[f"{i} " for i in range(50)])
    observations, _ = envs.reset(seed=seed)
    for slot in range(3):
        single = gym.make("TextGen-v0", **KEYWORDS | {"prompts": [f"{i} " for i in range(50)]})
        np.testing.assert_array_equal(single.reset(seed=7 + slot)[0], observations[slot])


def test_a_list_of_seeds_may_leave_slots_as_they_are_and_has_n_entries():
    envs = make_vec()
    envs.reset(seed=0)
    states = envs.unwrapped.get_rng_states()
    envs.reset(seed=[1, None, None])
    assert envs.unwrapped.get_rng_states()[0] != states[0]
    with pytest.raises(ValueError, match="2 seeds for num_envs=3"):
        envs.reset(seed=[1, 2])


def test_there_is_at_least_one_slot():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        textgym.TextGenVectorEnv(0, **KEYWORDS)


def test_an_unknown_autoreset_mode_is_refused():
    with pytest.raises(ValueError, match=r"unknown autoreset_mode .* Known: Disabled, NextStep, SameStep"):
        textgym.TextGenVectorEnv(2, autoreset_mode="Sometimes", **KEYWORDS)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_statistics_wrapper_counts_episodes(mode):
    envs = gym.wrappers.vector.RecordEpisodeStatistics(make_vec(autoreset_mode=mode))
    envs.reset(seed=0)
    for _ in range(10):
        envs.step([1, 2, EOS])
    assert envs.episode_count >= 6
    if mode == "NextStep":  # with SAME_STEP, gymnasium 1.2 miscounts the lengths
        assert set(envs.length_queue) == {4, 1}


def test_the_public_properties_reach_through_wrappers():
    env = gym.make("TextGen-v0", **KEYWORDS)
    assert env.get_wrapper_attr("pad_token_id") == 97
    assert env.get_wrapper_attr("eos_token_id") == 96
    assert env.get_wrapper_attr("max_new_tokens") == 4
    assert env.get_wrapper_attr("window") == 36
    assert env.get_wrapper_attr("num_actions") == 97
    assert env.get_wrapper_attr("action_masks")().all()
    assert env.get_wrapper_attr("tokenizer").decode([0, 1]) == "\n "
    assert not env.get_wrapper_attr("has_invalid_actions")


# Actions and attributes -----------------------------------------------------------------------------------------------


def test_a_single_environment_takes_one_integer_only():
    env = gym.make("TextGen-v0", **KEYWORDS).unwrapped
    env.reset(seed=0)
    for action in (5, np.int64(5), np.array(5)):
        env.step(action)
    with pytest.raises(ValueError, match=r"action must be one integer, got an array of shape \(1,\): .*action\[0\]"):
        env.step(np.array([5]))


def test_call_and_get_attr_return_what_gymnasiums_own_vector_environment_does():
    ours = gym.make_vec("TextGen-v0", num_envs=2, constraints=AllowTokens(["a"]), **KEYWORDS)
    theirs = gym.make_vec(
        "TextGen-v0", num_envs=2, vectorization_mode="sync", constraints=AllowTokens(["a"]), **KEYWORDS
    )
    ours.reset(seed=0), theirs.reset(seed=0)
    for name in ("max_new_tokens", "action_space", "observation_space", "pad_token_id", "reward_names"):
        assert ours.get_attr(name) == theirs.get_attr(name)
    check_same(theirs.call("action_masks"), ours.call("action_masks"), "action_masks")
    ours.set_attr("render_mode", "ansi")
    assert ours.call("render") == ours.render()
    ours.set_attr("note", [3, 3])
    assert ours.get_attr("note") == (3, 3)
    for values in ([1], [1, 2]):
        with pytest.raises(ValueError, match="'note' must have one value in all 2"):
            ours.set_attr("note", values)
    with pytest.raises(AttributeError):
        ours.call("nothing")


# Rendering ------------------------------------------------------------------------------------------------------------


def test_without_a_render_mode_nothing_is_printed(capsys):
    env = textgym.TextGenEnv(**KEYWORDS)
    env.reset(seed=0)
    env.step(1)
    assert env.render() is None
    assert capsys.readouterr().out == ""


def test_vector_environments_render_a_text_for_each_slot():
    for interface in (textgym.TextGenVectorEnv, textgym.TextGenVecEnv):
        envs = interface(2, render_mode="ansi", **KEYWORDS | {"prompts": ["Hi "]})
        envs.reset()
        envs.step(np.array(CHAR.encode("ab")))
        assert list(envs.render()) == ["Hi |a", "Hi |b"]
        with pytest.raises(ValueError, match="unknown render_mode 'human'"):
            interface(2, render_mode="human", **KEYWORDS)
