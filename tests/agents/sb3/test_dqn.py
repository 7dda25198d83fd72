"""Stock DQN with an LM Q-network and a replay buffer of whole episodes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from fixtures import TOKENIZER, share_of_b, small_lm
from textgym import TextGenVecEnv
from textgym.actions import Subset
from textgym.constraints import BanTokens
from textgym.rewards import Redistributed
from textgym_agents.sb3 import EpisodeReplayBuffer, LMFeatures, LMQPolicy, export_hf
from textgym_agents.sb3.dqn import NextStates


def make_env(num_envs=8, **keywords):
    settings = {
        "tokenizer": TOKENIZER, "prompts": ["a", "cab", "dag"], "scorer": share_of_b, "max_new_tokens": 6,
        "max_prompt_tokens": 4,
    }  # fmt: skip
    return VecMonitor(TextGenVecEnv(num_envs, **settings | keywords))


def make(env=None, policy_kwargs=None, buffer_kwargs=None, **settings):
    defaults = {
        "learning_rate": 1e-3, "gamma": 1.0, "learning_starts": 256, "batch_size": 96, "train_freq": 4,
        "target_update_interval": 96, "exploration_fraction": 0.5, "exploration_final_eps": 0.02,
        "buffer_size": 10_000, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return DQN(
        LMQPolicy, make_env() if env is None else env, policy_kwargs={"model": small_lm()} | (policy_kwargs or {}),
        replay_buffer_class=EpisodeReplayBuffer, replay_buffer_kwargs={"gamma": 1.0} | (buffer_kwargs or {}),
        **defaults | settings,
    )  # fmt: skip


def fill(buffers, env, num_steps):
    """Write the same random steps into several buffers, as SB3 does."""
    rng = np.random.default_rng(0)
    observations = env.reset()
    for _ in range(num_steps):
        actions = rng.integers(8, size=env.num_envs)
        following, rewards, dones, infos = env.step(actions)
        after = following.copy()
        for slot in np.flatnonzero(dones):
            after[slot] = infos[slot]["terminal_observation"]
        for buffer in buffers:
            buffer.add(observations, after, actions, rewards, dones, infos)
        observations = following


def buffers_of(env, size=10_000, **kwargs):
    arguments = size, env.observation_space, env.action_space, "cpu"
    return EpisodeReplayBuffer(*arguments, n_envs=env.num_envs, **kwargs), ReplayBuffer(*arguments, n_envs=env.num_envs)


def parameters(model):
    return {name: value.clone() for name, value in model.policy.named_parameters()}


# Replay --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time_limit", ["terminated", "truncated"])
def test_whole_episodes_contain_the_transitions_of_sb3s_buffer(time_limit):
    env = make_env(time_limit=time_limit)
    ours, theirs = buffers_of(env, gamma=0.5)
    fill([ours, theirs], env, 40)
    known = set()
    for step in range(40):
        for slot in range(8):
            texts = (theirs.observations[step, slot], theirs.next_observations[step, slot])
            done = theirs.dones[step, slot] * (1 - theirs.timeouts[step, slot])
            action, reward = int(theirs.actions[step, slot, 0]), float(theirs.rewards[step, slot])
            known.add((*(tuple(text[text != 8].tolist()) for text in texts), action, reward, float(done)))
    np.random.seed(0)  # noqa: NPY002
    sample = ours.sample(2_000)
    assert ours.size() == 320
    assert len(sample.actions) >= 2_000
    states, after = sample.observations, sample.next_observations
    drawn = set()
    for m in range(len(sample.actions)):
        texts = [s.ids[s.rows[m], : s.columns[m] + 1] for s in (states, after)]
        numbers = int(sample.actions[m]), float(sample.rewards[m]), float(sample.dones[m])
        drawn.add((*(tuple(text.tolist()) for text in texts), *numbers))
    assert drawn == known
    assert (sample.discounts == 0.5).all()


def test_redistributed_rewards_are_stored_at_their_tokens():
    envs = [make_env(reward=reward) for reward in ("terminal", "redistributed")]
    plain, shared = (buffers_of(env)[0] for env in envs)
    for buffer, env in zip((plain, shared), envs, strict=True):
        env.seed(0)
        fill([buffer], env, 40)
    ended = [pair for pair in zip(plain.episodes, shared.episodes, strict=True) if pair[0] not in plain._open]
    assert len(ended) > 20
    for one, other in ended:
        expected = np.full(one.num_steps, one.steps["reward"].sum() / one.num_steps)
        np.testing.assert_allclose(other.steps["reward"], expected, atol=1e-6)


@pytest.mark.parametrize("final_info", ["numbers", "none"])
def test_an_environment_without_token_rewards_in_info_raises(final_info):
    env = make_env(reward="redistributed", final_info=final_info)
    with pytest.raises(ValueError, match="make the environment with final_info='full'"):
        fill(buffers_of(env)[:1], env, 40)


@pytest.mark.parametrize("on_invalid_action", ["ignore", "terminate"])
def test_invalid_actions_get_no_token_reward(on_invalid_action):
    env = make_env(
        reward=Redistributed(lambda score, texts, finals: [np.arange(n, dtype=float) for n in texts.num_new_tokens]),
        constraints=BanTokens([1]), on_invalid_action=on_invalid_action, invalid_action_penalty=0.0,
    )  # fmt: skip
    buffer, _ = buffers_of(env)
    fill([buffer], env, 60)
    checked = 0
    for episode in buffer.episodes:
        written = episode.steps["action"] != 1
        if episode not in buffer._open and not written.all() and written.any():
            np.testing.assert_allclose(np.diff(episode.steps["reward"][written]), 1.0, atol=1e-6)
            assert (episode.steps["reward"][~written] == 0).all()
            checked += 1
    assert checked > 5


def test_the_oldest_episodes_are_dropped():
    env = make_env()
    buffer, _ = buffers_of(env, size=100)
    fill([buffer], env, 60)
    assert 92 <= buffer.size() <= 100 + 8 * 6
    assert buffer.full
    assert buffer.size() == sum(episode.num_steps for episode in buffer.episodes)


def test_ids_are_stored_once():
    env = make_env(max_new_tokens=50)
    ours, theirs = buffers_of(env)
    fill([ours, theirs], env, 100)
    stored = sum(episode.ids.nbytes + episode.steps.nbytes for episode in ours.episodes)
    assert stored < 0.1 * (theirs.observations[:100].nbytes + theirs.next_observations[:100].nbytes)


def test_an_episode_interrupted_by_a_reset_is_closed():
    env = make_env(max_new_tokens=20)
    model = make(env, learning_starts=10_000, buffer_kwargs={"q_lambda": 1.0})
    model.learn(32)  # four steps, in which few texts end
    cut = [episode for episode in model.replay_buffer._open if episode is not None]
    model.learn(32)  # resets the environment
    model.set_env(make_env(max_new_tokens=20))  # which makes SB3 reset it, too
    model.learn(32, reset_num_timesteps=False)
    assert len(cut) > 4
    assert not any(episode.terminated for episode in cut)
    buffer = model.replay_buffer
    assert buffer.size() == sum(episode.num_steps for episode in buffer.episodes) == 96
    for episode in buffer.episodes:
        steps = episode.steps[: episode.num_steps]
        assert (np.diff(steps["column"]) == 1).all()
        np.testing.assert_array_equal(episode.ids[steps["column"] + 1], steps["action"])


def test_unfinished_episodes_can_be_sampled():
    env = make_env()
    buffer, _ = buffers_of(env)
    fill([buffer], env, 1)
    sample = buffer.sample(8)
    assert len(sample.actions) >= 8


def test_rewards_can_be_normalised():
    class Halves:
        def normalize_reward(self, reward):
            return reward / 2

    env = make_env()
    buffer, _ = buffers_of(env)
    fill([buffer], env, 20)
    rewards = []
    for normalise in (None, Halves()):
        np.random.seed(0)  # noqa: NPY002
        rewards.append(buffer.sample(200, env=normalise).rewards)
    assert rewards[0].any()
    torch.testing.assert_close(rewards[1], rewards[0] / 2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 1.5}, "gamma must be from 0 to 1, got 1.5"),
        ({"q_lambda": -1}, "q_lambda must be from 0 to 1, got -1"),
        ({"optimize_memory_usage": True}, "leave out optimize_memory_usage=True"),
    ],
)
def test_settings_of_the_replay_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=message):
        buffers_of(make_env(), **kwargs)


def test_lambda_values_by_hand():
    texts, zeros = torch.zeros(3, 4, dtype=torch.int64), torch.zeros(7, dtype=torch.int64)
    rewards = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])  # three steps, cut off; two, ended; two, cut off
    is_end = torch.tensor([False, True, False])
    after = NextStates(texts, zeros, zeros, rewards, torch.tensor([3, 2, 2]), is_end, gamma=0.5, q_lambda=0.25)
    values = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0])
    u2 = 30.0
    u1 = 0.75 * 20 + 0.25 * (4 + 0.5 * u2)
    u0 = 0.75 * 10 + 0.25 * (2 + 0.5 * u1)
    v0 = 0.75 * 40 + 0.25 * 16
    v1 = 50.0  # which SB3 leaves out, as the episode is done
    w0 = 0.75 * 60 + 0.25 * (64 + 0.5 * 70)
    assert after.lambda_values(values).tolist() == pytest.approx([u0, u1, u2, v0, v1, w0, 70.0])


def test_lambda_values_of_episodes_of_one_step_are_the_values():
    ones = torch.ones(2)
    numbers = ones.long()
    after = NextStates(numbers[:, None], numbers, numbers, ones, numbers, ones.bool(), gamma=0.5, q_lambda=0.25)
    assert after.lambda_values(ones).tolist() == [1.0, 1.0]


# Networks ------------------------------------------------------------------------------------------------------------


def test_pretrained_weights_survive_construction_and_q_is_0():
    model = make()
    for name, value in small_lm().state_dict().items():
        torch.testing.assert_close(model.q_net.backbone.model.state_dict()[name], value, atol=0, rtol=0)
        torch.testing.assert_close(model.q_net_target.backbone.model.state_dict()[name], value, atol=0, rtol=0)
    assert (model.q_net(torch.as_tensor(model.env.reset())) == 0).all()


def test_states_of_whole_texts_have_the_values_of_single_observations():
    env = make_env()
    model = make(env)
    model.learn(400)
    sample = model.replay_buffer.sample(64)
    states = sample.observations
    windows = torch.full((len(states.rows), 10), 8)
    for m, (row, column) in enumerate(zip(states.rows, states.columns, strict=True)):
        windows[m, : column + 1] = states.ids[row, : column + 1]
    torch.testing.assert_close(model.q_net(states), model.q_net(windows), atol=1e-5, rtol=1e-5)
    best = model.q_net(windows[:8]).argmax(dim=1).numpy()
    np.testing.assert_array_equal(model.predict(windows[:8].numpy(), deterministic=True)[0], best)


@pytest.mark.parametrize("double", [False, True])
def test_the_target_network_returns_double_q_values(double):
    model = make(policy_kwargs={"double": double})
    torch.manual_seed(0)
    for network in (model.q_net, model.q_net_target):
        torch.nn.init.normal_(network.head[1].weight)
    windows = torch.as_tensor(model.env.reset())
    slow = super(type(model.q_net_target), model.q_net_target).forward(windows)
    best = model.q_net(windows).argmax(dim=1) if double else slow.argmax(dim=1)
    torch.testing.assert_close(model.q_net_target(windows)[:, 0], slow[torch.arange(8), best])


def test_the_target_follows_only_at_its_interval():
    model = make(target_update_interval=10_000)
    model.learn(600)
    assert (model.q_net_target.head[1].weight == 0).all()
    assert (model.q_net.head[1].weight != 0).any()
    model = make(target_update_interval=8, policy_kwargs={"trainable_layers": 1})
    before = model.q_net_target.backbone.model.get_input_embeddings().weight.clone()
    model.learn(600)
    assert (model.q_net_target.head[1].weight != 0).any()
    torch.testing.assert_close(model.q_net_target.backbone.model.get_input_embeddings().weight, before)


# SB3's own life ------------------------------------------------------------------------------------------------------


def test_same_seed_same_parameters():
    trained = []
    for _ in range(2):
        model = make()
        model.learn(400)
        trained.append(parameters(model))
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], atol=0, rtol=0)


def test_a_loaded_model_is_the_saved_one_and_continues_exactly(tmp_path):
    model = make()
    model.learn(400)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DQN.load(tmp_path / "model", device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    for name, value in parameters(model).items():
        torch.testing.assert_close(value, parameters(loaded)[name], atol=0, rtol=0)
    observations = make_env().reset()
    np.testing.assert_array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))
    for one in (model, loaded):  # the environment's and the global generators' state are not SB3's to keep
        env = make_env()
        env.seed(3)
        one.set_env(env)
        one.action_space.seed(3)
        np.random.seed(3)  # noqa: NPY002
        one.learn(200, reset_num_timesteps=False)
    for name, value in parameters(model).items():
        torch.testing.assert_close(value, parameters(loaded)[name], atol=0, rtol=0)


def test_the_policy_alone_can_be_saved(tmp_path):
    policy = make(policy_kwargs={"double": False}).policy
    policy.save(tmp_path / "policy")
    loaded = LMQPolicy.load(tmp_path / "policy", device="cpu")
    for name, value in policy.named_parameters():
        torch.testing.assert_close(value, loaded.get_parameter(name), atol=0, rtol=0)


def test_sb3s_own_replay_works_too():
    model = DQN(
        LMQPolicy, make_env(), policy_kwargs={"model": small_lm()}, learning_starts=64, buffer_size=1_000, seed=0,
        device="cpu",
    )  # fmt: skip
    model.learn(128)
    assert model._n_updates > 0


def test_q_values_are_not_exported(tmp_path):
    model = make()
    with pytest.raises(TypeError, match="got LMQPolicy"):
        export_hf(model, tmp_path / "exported")
    model.save(tmp_path / "model")
    with pytest.raises(TypeError, match="got LMQPolicy"):
        export_hf(tmp_path / "model.zip", tmp_path / "exported")


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (lambda: make_env(tokenizer="byte"), ValueError, "a vocabulary of .*, the model one of 8"),
        (lambda: make_env(actions=Subset(["a", "b"])), ValueError, "3 actions, the model a vocabulary of 8"),
        (lambda: make_env(max_new_tokens=70), ValueError, "window is 74 tokens"),
    ],
)
def test_an_incompatible_environment_raises(env, error, message):
    with pytest.raises(error, match=message):
        make(env=env())


def test_an_observation_without_token_ids_raises():
    with pytest.raises(TypeError, match="needs token ids"):
        EpisodeReplayBuffer(10, spaces.Box(0, 1, (4,)), spaces.Discrete(2))


def test_dqn_with_its_own_mlp_reads_features():
    kwargs = {"features_extractor_class": LMFeatures, "features_extractor_kwargs": {"model": small_lm()}}
    model = DQN(
        "MlpPolicy", make_env(), policy_kwargs=kwargs, learning_starts=64, buffer_size=1_000, seed=0, device="cpu"
    )
    model.learn(256)
    assert not any("features_extractor" in name for name in model.policy.state_dict())


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])  # benchmarks/probe_ladder.py takes three
def test_it_learns(seed):
    model = make(seed=seed)
    test_env = make_env()
    test_env.seed(0)
    model.learn(6_000)
    assert evaluate_policy(model, test_env, n_eval_episodes=24, deterministic=True)[0] >= 0.9
