"""The Stable-Baselines3 interface."""

import warnings

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym.actions import Subset
from textgym.constraints import AllowTokens
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
KEYWORDS = {"tokenizer": "char", "prompts": ["Hi ", "Hello "], "max_new_tokens": 4, "scorer": "length_band"}


def make_vec(num_envs=3, autoreset_mode="SameStep", **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=autoreset_mode, **KEYWORDS | kwargs)


def make_sb3(num_envs=3, **kwargs):
    return textgym.TextGenVecEnv(num_envs, **KEYWORDS | kwargs)


def test_an_episode_end_has_the_info_that_stable_baselines3_expects():
    envs = make_sb3(max_new_tokens=2, time_limit="truncated")
    envs.seed(0)
    assert envs.reset().shape == (3, 34)
    envs.step(np.array([1, EOS, 2]))
    observations, rewards, dones, infos = envs.step(np.array([1, 2, EOS]))
    assert rewards.dtype == np.float32
    assert dones.tolist() == [True, False, True]
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[2]["TimeLimit.truncated"] is False
    assert EOS in infos[2]["terminal_observation"]
    assert EOS not in observations
    assert infos[1] == {}


def test_seeds_and_options_are_those_of_the_next_reset_only():
    envs = make_sb3(prompts=[f"{i} " for i in range(50)])
    envs.seed(3)
    first = envs.reset()
    assert not (envs.reset() == first).all()
    envs.seed(3)
    np.testing.assert_array_equal(envs.reset(), first)
    envs.set_options({"prompt": "ab"})
    assert (envs.reset()[:, 0] == CHAR.encode("a")[0]).all()
    assert not (envs.reset()[:, 0] == CHAR.encode("a")[0]).any()
    envs.set_options([{"prompt": "ab"}, {}, {"index": 1}])
    assert envs.reset()[2, :2].tolist() == CHAR.encode("1 ")


def test_a_reset_that_fails_in_one_slot_leaves_all_as_they_were():
    envs = make_sb3()
    envs.reset()
    envs.step(np.array([1, 2, 3]))
    before = envs.get_state()
    envs.seed(4)
    envs.set_options([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c" * 100}])
    with pytest.raises(ValueError, match="100"):
        envs.reset()
    check_same(before, envs.get_state(), "the state after a reset that failed")


def test_an_ended_episode_has_its_own_error_and_not_the_next_ones():
    prompts = iter(["good"] * 2 + ["bad"] * 9)

    def fails_on_bad(prompts, completions):
        if "bad" in prompts:
            raise RuntimeError("bad prompt")
        return [0.0] * len(prompts)

    envs = make_sb3(1, prompts=prompts, scorer=fails_on_bad, reward="potential", on_scorer_error="invalid")
    envs.reset()
    assert [list(envs.step(np.array([EOS]))[3][0]).count("scorer_error") for _ in range(3)] == [0, 0, 1]
    assert "bad prompt" in envs.reset_infos[0]["scorer_error"]


def test_each_slot_has_its_own_error():
    def fails(completion):
        raise RuntimeError(f"no score for {completion!r}")

    keywords = KEYWORDS | {"scorer": fails, "on_scorer_error": "invalid", "max_new_tokens": 1}
    envs = textgym.TextGenVectorEnv(2, autoreset_mode="SameStep", **keywords)
    ours = textgym.TextGenVecEnv(2, **keywords)
    envs.reset(seed=0), ours.reset()
    actions = np.array([CHAR.encode("a")[0], CHAR.encode("b")[0]])
    texts = [
        *envs.step(actions)[4]["final_info"]["scorer_error"],
        *(info["scorer_error"] for info in ours.step(actions)[3]),
    ]
    assert [text[-3:] for text in texts] == ["'a'", "'b'"] * 2


@pytest.mark.parametrize("on_scorer_error", ["raise", "invalid"])
def test_a_reward_that_float32_cannot_hold_is_refused_and_the_step_undone(on_scorer_error):
    envs = make_sb3(2, scorer=lambda completion: 1e308, on_scorer_error=on_scorer_error)
    envs.reset()
    envs.step(np.array([1, 2]))
    for one in (envs, envs.clone()):
        before = one.get_state()
        with pytest.raises(textgym.ScorerError, match=r"a reward of 1e\+308 does not fit this interface"):
            one.step(np.array([EOS, 3]))
        check_same(before, one.get_state(), "the state after a reward that does not fit")


def test_a_clone_writes_no_reset_info_of_the_original():
    envs = make_sb3(step_info=("action_mask",))
    envs.reset()
    before = list(map(id, envs.reset_infos))
    other = envs.clone()
    while not other.step(np.zeros(3, dtype=np.int64))[2].any():
        pass
    assert list(map(id, envs.reset_infos)) == before


def test_attributes_and_methods_are_per_environment():
    envs = make_sb3(constraints=AllowTokens(["a"]))
    envs.reset()
    assert envs.get_attr("pad_token_id") == [97, 97, 97]
    assert envs.get_attr("max_new_tokens", [0, 2]) == [4, 4]
    assert envs.get_attr("running") == [True, True, True]
    assert envs.get_attr("parked", [0, 2]) == [False, False]
    assert [method()[0].sum() for method in envs.get_attr("action_masks")] == [2, 2, 2]
    masks = envs.env_method("action_masks", indices=[1])
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[*CHAR.encode("a"), EOS]]
    assert envs.has_attr("action_masks")
    assert len(envs.env_method("get_state")) == 3
    assert envs.env_method("set_log_probs", [0.0, 0.0, 0.0]) == [None, None, None]
    envs.set_attr("render_mode", "ansi")
    assert envs.get_attr("render_mode") == ["ansi"] * 3
    with pytest.raises(ValueError, match="can only be set for all 3"):
        envs.set_attr("render_mode", None, indices=0)
    with pytest.raises(AttributeError):
        envs.get_attr("nothing")
    assert envs.env_is_wrapped(gym.Wrapper) == [False] * 3


def test_the_mask_of_a_new_episode_is_in_the_reset_infos():
    envs = make_sb3(step_info=("action_mask",), constraints="no_repeat_ngram")
    envs.reset()
    envs.step(np.array([EOS, 1, 2]))
    np.testing.assert_array_equal(envs.reset_infos[0]["action_mask"], envs.action_masks()[0])


def test_the_monitor_counts_episodes():
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(scorer=len))
    envs.reset()
    envs.step(np.array([1, 2, 3]))
    *_, infos = envs.step(np.array([EOS, 2, 3]))
    assert (infos[0]["episode"]["r"], infos[0]["episode"]["l"]) == (1.0, 2)


def learn(agent):
    import torch

    torch.set_num_threads(1)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(2 * agent.n_steps * agent.n_envs)
    assert agent.num_timesteps == 2 * agent.n_steps * agent.n_envs
    after = list(agent.policy.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert len(agent.ep_info_buffer) > 0


def test_stock_ppo_learns_and_is_evaluated():
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(4, actions=Subset([*"abc"])))
    agent = PPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=2, seed=0, device="cpu")
    learn(agent)
    returns, lengths = evaluate_policy(agent, envs, n_eval_episodes=6, return_episode_rewards=True)
    assert len(returns) == 6
    assert max(lengths) <= 4


def test_stock_ppo_learns_from_the_dict_observation():
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(4, actions=Subset([*"abc"]), observation="dict"))
    learn(PPO("MultiInputPolicy", envs, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu"))


def test_maskable_ppo_learns_and_never_takes_an_invalid_action():
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(4, constraints=AllowTokens([*"abc"])))  # an invalid action would raise
    agent = MaskablePPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=2, seed=0, device="cpu")
    learn(agent)
    returns, _ = evaluate_policy(agent, envs, n_eval_episodes=4, return_episode_rewards=True)
    assert len(returns) == 4


def test_the_single_environment_works_under_stable_baselines3s_own_vectorisation():
    from stable_baselines3.common.env_util import make_vec_env

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for render_mode="rgb_array", whatever the environment can do
        theirs = make_vec_env("TextGen-v0", n_envs=3, env_kwargs=KEYWORDS, seed=5)
    ours = make_sb3()
    ours.seed(5)
    np.testing.assert_array_equal(theirs.reset(), ours.reset())
    for actions in ([1, 2, EOS], [EOS, 2, 3], [3, 3, 3], [1, 2, 3], [1, 2, 3]):
        for expected, got in zip(theirs.step(np.array(actions))[:3], ours.step(np.array(actions))[:3], strict=True):
            np.testing.assert_array_equal(expected, got)
