"""What inspect accepts, what it refuses, and the report that it returns."""

import json
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3 import PPO as SB3PPO

from fixtures import TOKENIZER, make_env, share_of_b, small_lm, small_q_policy
from textgym import TextGenVecEnv
from textgym.actions import Subset
from textgym.testing.traces import check_same
from textgym_agents import DQN, PPO, EpisodeRecorder, LMPolicy, QPolicy, RunFolder, SoftQ, collect, read_episodes
from textgym_agents.decoding import RandomPolicy
from textgym_agents.inspection import Report, compare, inspect
from textgym_agents.sb3 import EpisodeReplayBuffer, EpisodeRolloutBuffer, LMActorCriticPolicy, LMQPolicy

TASK = {
    "tokenizer": TOKENIZER, "prompts": ["a", "cab", "dag"], "scorer": share_of_b, "max_new_tokens": 6,
    "max_prompt_tokens": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


@pytest.fixture(scope="module")
def episodes(policy):
    return collect(make_env(), policy, 8, seed=0, generator=torch.Generator().manual_seed(0))


def test_a_report_holds_episodes_tokens_and_columns(policy, episodes):
    report = inspect(policy, episodes, env=make_env(), reference=LMPolicy(small_lm(1)))
    assert len(report.episodes) == 8
    token = report.episodes[3].tokens[-1]
    assert token.reward == pytest.approx(report.infos[3]["return"])
    assert report.episodes[-1].tokens[0].id == int(episodes.ids[7, episodes.prompt_lengths[7]])
    assert [len(episode.tokens) for episode in report.episodes[2:4]] == episodes.num_steps[2:4].tolist()
    assert report.episodes[0].info["completion"] == episodes.infos[0]["completion"]
    assert {"log_prob", "kl"} <= set(dir(token))
    for shown in (report, report.episodes, report.episodes[0], token):
        assert len(repr(shown)) < 700
    json.dumps([report.infos, report.about])  # plain numbers and texts
    with pytest.raises(AttributeError, match="no column 'advantage_mc'; it has log_prob"):
        _ = token.advantage_mc
    with pytest.raises(IndexError):
        _ = report.episodes[8]


def test_views_are_made_on_access_and_a_report_can_be_pickled(policy, episodes):
    report = inspect(policy, episodes, env=make_env())
    copy = pickle.loads(pickle.dumps(report))
    assert isinstance(copy, Report)
    assert copy.episodes[2].tokens[1].log_prob == report.episodes[2].tokens[1].log_prob


def test_a_file_of_the_recorder_gives_the_report_of_its_episodes(policy, episodes, tmp_path):
    path = tmp_path / "episodes.jsonl"
    EpisodeRecorder(path).write(episodes)
    report, same = (inspect(policy, each, env=make_env()) for each in (path, episodes))
    for name, column in same.table.columns.items():
        np.testing.assert_array_equal(report.table.columns[name], column)
    assert [info["completion"] for info in report.infos] == [info["completion"] for info in same.infos]


def test_a_number_of_episodes_is_collected_in_a_copy_of_the_environment(policy):
    env = make_env()
    env.reset(seed=5)
    before = env.unwrapped.get_state()
    report = inspect(policy, 4, env=env, seed=2)
    assert len(report.episodes) == 4
    check_same(before, env.unwrapped.get_state(), "state")
    again = inspect(policy, 4, env=env, seed=2)
    np.testing.assert_array_equal(report.table.ids, again.table.ids)


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_of_an_agent_is_its_initial_policy(lora):
    if lora:
        pytest.importorskip("peft")
    policy = LMPolicy(small_lm(), **({"lora": 2} if lora else {}))
    agent = PPO(policy, make_env(), num_episodes=8, learning_rate=1e-2).learn(96)
    report = inspect(agent, agent.collect())
    same = inspect(agent, agent.episodes, reference=LMPolicy(small_lm()))
    assert report.about["reference"] == "the agent's own"
    for name in ("log_prob_before", "kl", "top_log_probs_before", "gae_advantage", "return_to_go"):
        np.testing.assert_allclose(report.table.columns[name], same.table.columns[name], atol=1e-5)
    assert report.table.columns["kl"].max() > 0.01
    assert same.about["return"] == report.about["return"]


def test_a_reference_is_a_policy_a_name_or_a_folder(policy, episodes, tmp_path):
    agent = PPO(LMPolicy(small_lm(1)), make_env(), num_episodes=8)
    agent.save(tmp_path / "agent")
    agent.policy.save_pretrained(tmp_path / "policy")
    agent.policy.model.save_pretrained(tmp_path / "lm")
    columns = [
        inspect(policy, episodes, env=make_env(), reference=each).table.columns["kl"]
        for each in (agent, agent.policy, agent.policy.model, *map(tmp_path.joinpath, ("agent", "policy", "lm")))
    ]
    for column in columns[1:]:
        np.testing.assert_allclose(column, columns[0], atol=1e-6)
    q_policy = QPolicy(small_lm(1), q_from="logits")
    q_policy.temperature = 1.0
    q_policy.save_pretrained(tmp_path / "q")  # with its temperature, it acts as its model
    report = inspect(policy, episodes, env=make_env(), reference=tmp_path / "q")
    np.testing.assert_allclose(report.table.columns["kl"], columns[0], atol=1e-5)


def test_the_two_halves_of_a_comparison_share_prompts_and_random_numbers(policy):
    env = make_env(4)
    env.reset(seed=1)
    state = env.unwrapped.get_state()
    report = compare(policy, LMPolicy(small_lm(1)), env, 10, seed=7)
    check_same(state, env.unwrapped.get_state(), "state")
    assert len(report.episodes) == 20
    for number, info in enumerate(report.infos):
        assert info["policy"] == ("before" if number < 10 else "after")
        assert report.infos[info["pair"]]["pair"] == number
        assert report.infos[info["pair"]]["prompt"] == info["prompt"]
    same = compare(policy, policy, env, 10, seed=7)
    texts = [info["completion"] for info in same.infos]
    assert texts[:10] == texts[10:]
    assert same.table.columns["kl"] == pytest.approx(0, abs=1e-6)
    assert texts[:10] == [info["completion"] for info in report.infos[:10]]


def test_stock_sb3_with_our_language_model_gives_the_columns_of_the_policy():
    env = TextGenVecEnv(4, **TASK)
    model = SB3PPO(
        LMActorCriticPolicy, env, n_steps=6, batch_size=24, rollout_buffer_class=EpisodeRolloutBuffer, gamma=0.9,
        gae_lambda=0.7, policy_kwargs={"model": small_lm()},
    ).learn(24)  # fmt: skip
    episodes = collect(make_env(), model.policy.lm, 8, seed=0)
    report = inspect(model, episodes)
    assert (report.about["gamma"], report.about["gae_lambda"]) == (0.9, 0.7)
    same = inspect(model.policy.lm, episodes, env=make_env(), gamma=0.9, gae_lambda=0.7)
    for name, column in same.table.columns.items():
        np.testing.assert_allclose(report.table.columns[name], column, atol=1e-6)
    dqn = SB3DQN(
        LMQPolicy, env, replay_buffer_class=EpisodeReplayBuffer, learning_starts=8, buffer_size=64, train_freq=8,
        policy_kwargs={"model": small_lm()},
    ).learn(32)  # fmt: skip
    token = inspect(dqn, episodes).episodes[2].tokens[1]
    with torch.no_grad():
        window = np.full((1, 10), 8)
        window[0, : int(episodes.positions[2, 1])] = episodes.ids[2, : int(episodes.positions[2, 1])]
        q = dqn.policy.q_net(dqn.policy.obs_to_tensor(window)[0])[0]
    assert token.q_value == pytest.approx(float(q[token.id]), abs=1e-5)
    assert token.max_q == pytest.approx(float(q.max()), abs=1e-5)


@pytest.mark.parametrize("algorithm", [SB3PPO, SB3DQN])
def test_an_mlp_policy_has_the_columns_that_exist(algorithm):
    settings = {"n_steps": 8, "batch_size": 32} if algorithm is SB3PPO else {"learning_starts": 8, "buffer_size": 64}
    model = algorithm("MlpPolicy", TextGenVecEnv(4, **TASK), seed=0, **settings).learn(32)
    report = inspect(model, 4, env=make_env(4), num_alternatives=3)
    columns = report.table.columns
    assert {"log_prob", "rank", "entropy", "top_ids", "return_to_go", "value"} <= columns.keys()
    assert ("q_value" in columns) == (algorithm is SB3DQN)
    assert "kl" not in columns
    assert columns["ratio"] == pytest.approx(1, abs=1e-4)
    episode = report.episodes[1]
    if algorithm is SB3PPO:
        ids = TOKENIZER.encode(episode.info["prompt"]) + [token.id for token in episode.tokens[:2]]
        window = np.full((1, 10), 8)
        window[0, : len(ids)] = ids
        distribution = model.policy.get_distribution(model.policy.obs_to_tensor(window)[0])
        expected = distribution.log_prob(torch.tensor([episode.tokens[2].id])).item()
        assert episode.tokens[2].log_prob == pytest.approx(expected, abs=1e-5)


def test_the_metrics_of_a_run_are_those_that_it_logged(tmp_path):
    agent = PPO(small_lm(), make_env(), num_episodes=8)
    run = RunFolder(tmp_path / "run")
    agent.learn(96, callback=run)
    report = inspect(agent, agent.episodes, run=tmp_path / "run", checkpoints=[tmp_path / "run"])
    assert [row["train/loss"] for row in report.metrics] == [row["train/loss"] for row in run.rows]
    assert report.table.columns["biography"][:, 0] == pytest.approx(report.table.columns["log_prob_after"], abs=1e-6)
    with pytest.raises(FileNotFoundError, match=r"has no metrics\.csv"):
        inspect(agent, agent.episodes, run=tmp_path)
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("0.5,0.")
    with pytest.raises(ValueError, match=r"update \d+ is damaged or cut off"):
        inspect(agent, agent.episodes, run=tmp_path / "run")


def test_what_is_not_a_policy_is_refused(policy, episodes):
    for wrong in (RandomPolicy(8), "tiny", None):
        with pytest.raises(TypeError, match="inspect needs a policy with probabilities of tokens"):
            inspect(wrong, episodes, env=make_env())
    with pytest.raises(TypeError, match="episodes must be Episodes, a file"):
        inspect(policy, [episodes], env=make_env())
    with pytest.raises(TypeError, match="env must be an environment of the TextGen family, got int"):
        inspect(policy, episodes, env=3)


def test_an_mlp_on_other_actions_is_refused():
    env = TextGenVecEnv(2, **TASK, actions=Subset(["a", "b"], eos=False))
    model = SB3PPO("MlpPolicy", env, n_steps=8, batch_size=16)
    with pytest.raises(TypeError, match="an SB3 policy is inspected where an action is a token id"):
        inspect(model, 2, env=make_env())


def test_episodes_of_another_vocabulary_are_refused(policy, episodes, tmp_path):
    tiny = LMPolicy("tiny")
    larger = collect(gym.make_vec("TextGen-v0", num_envs=2, max_new_tokens=4, autoreset_mode="SameStep"), tiny, 2)
    with pytest.raises(ValueError, match="the policy's vocabulary ends at 7"):
        inspect(policy, larger, env=make_env())
    with pytest.raises(ValueError, match="the episodes are of another vocabulary: the ids of the completion"):
        inspect(tiny, episodes)
    with pytest.raises(ValueError, match="the reference has a vocabulary of 2670, the policy one of 8"):
        inspect(policy, episodes, env=make_env(), reference=tiny)
    with pytest.raises(ValueError, match=r"the tokenizer of the episodes is not known: give tokenizer="):
        inspect(policy, episodes)
    assert len(inspect(policy, episodes, tokenizer=TOKENIZER).infos) == 8


def test_an_empty_file_and_no_episodes_are_refused(policy, episodes, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.touch()
    with pytest.raises(ValueError, match="contains no episodes"):
        inspect(policy, path, env=make_env())
    with pytest.raises(FileNotFoundError):
        inspect(policy, tmp_path / "missing.jsonl", env=make_env())
    EpisodeRecorder(path, append=True).write(episodes)
    assert len(read_episodes(path)) == 8


def test_more_episodes_than_memory_allows_are_refused_with_the_number_that_fits(policy, episodes):
    with pytest.raises(
        MemoryError, match=r"8 episodes, \d+ tokens, take about .* inspect fewer, such as episodes\[:\d"
    ):
        inspect(policy, episodes, env=make_env(), memory_limit=10_000)
    inspect(policy, episodes, env=make_env(), memory_limit=10_000_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branches": 8, "seconds": 0}, "seconds must be above 0, got 0; branches=0 does no rollouts"),
        ({"branches": 1}, "branches must be 0 or at least 2"),
        ({"branches": -2}, "branches must be at least 0"),
        ({"branches": 8, "env": None, "tokenizer": TOKENIZER}, "branches needs the environment"),
        ({"num_alternatives": -1}, "num_alternatives must be at least 0"),
        ({"gamma": 2.0}, "gamma must be from 0 to 1"),
        ({"columns": ["kl"]}, "the column 'kl' needs a reference"),
        ({"columns": ["q_value"]}, "the column 'q_value' needs a policy with a Q-function"),
        ({"columns": ["advantages"]}, "unknown column 'advantages'"),
    ],
)
def test_arguments_out_of_range_are_refused(policy, episodes, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect(policy, episodes, **{"env": make_env()} | arguments)


def test_only_the_named_columns_are_kept(policy, episodes):
    report = inspect(policy, episodes, env=make_env(), columns=["entropy", "log_prob"])
    assert list(report.table.columns) == ["entropy", "log_prob"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: PPO(small_lm(), make_env(max_new_tokens=3), num_episodes=8, kl_coef=0.2, learning_rate=1e-2),
        lambda: PPO(
            small_lm(), make_env(max_new_tokens=3), num_episodes=8, kl_coef=0.2, kl_estimator="k3", learning_rate=1e-2
        ),
        lambda: SoftQ(small_lm(), make_env(max_new_tokens=3), num_episodes=8, temperature=0.2, learning_rate=1e-2),
        lambda: SoftQ(small_lm(), make_env(max_new_tokens=3), num_episodes=8, temperature=0.2, relative_to_start=False),
        lambda: PPO(
            small_lm(), make_env(max_new_tokens=3, kl_penalty=0.2, reference=small_lm(1)), num_episodes=8, kl_coef=0.0
        ),
        lambda: DQN(
            QPolicy(small_lm(), q_from="logits"), make_env(max_new_tokens=3), num_episodes=8, initial_temperature=0.5
        ),
    ],
    ids=["k1", "k3", "soft q", "soft q, entropy", "in the environment", "dqn"],
)
def test_advantages_by_rollouts_and_the_other_columns_are_of_one_return(make):
    agent = make().learn(48)
    episodes = agent.collect()[:2]
    report = inspect(agent, episodes, branches=2, seconds=None)
    for episode in report.episodes:  # the advantages add up to the return minus V(s_0)
        total = episode.tokens[0].return_to_go - episode.tokens[0].value_mc
        assert episode.column("advantage_mc").sum() == pytest.approx(total, abs=1e-4)
    starts = np.array([episode.tokens[0].return_to_go for episode in report.episodes])
    name = report.about["return"]
    is_penalized = name != "score" and "environment" not in name
    assert is_penalized == (np.abs(starts - episodes.returns.numpy()).max() > 1e-4)


def test_clip_of_episodes_without_advantages_is_that_of_the_normalized_advantage():
    agent = PPO(small_lm(), make_env(), num_episodes=16, batch_size=4, n_epochs=6, learning_rate=1e-2, kl_coef=0.0)
    episodes = agent.collect()
    episodes.values = torch.full_like(episodes.values, 0.01)  # below the returns, as at the start of training
    recorded = replace(episodes, advantages=None)
    agent.update(episodes)  # sets episodes.advantages, normalized
    used = inspect(agent, episodes).table.columns["clipped"]
    assert np.nansum(used) > 0
    np.testing.assert_array_equal(inspect(agent, recorded).table.columns["clipped"], used)


def test_td_error_of_dqn_is_of_one_q_function():
    settings = {"initial_temperature": 0.1, "final_temperature": 0.1, "exploration_initial_eps": 0.1}
    agent = DQN(small_q_policy(), make_env(), num_episodes=16, batch_size=16, learning_rate=1e-2, **settings)
    episodes = agent.collect()
    agent.learn(400)
    table = inspect(agent, episodes).table
    q, v = (torch.from_numpy(table.by_step(name)).nan_to_num() for name in ("q_value", "soft_value"))
    following = torch.cat([v[:, 1:], torch.zeros(len(v), 1)], dim=1)
    following[torch.arange(q.shape[1]) == episodes.num_steps[:, None] - 1] = 0.0
    expected = (episodes.rewards + following - q)[episodes.mask]
    torch.testing.assert_close(torch.from_numpy(table.by_step("td_error"))[episodes.mask], expected, atol=1e-4, rtol=0)


def test_an_adapted_coefficient_of_the_environment_is_named_by_its_current_value():
    env = make_env(kl_penalty=0.2, reference=small_lm(1), kl_penalty_target=0.01, kl_penalty_horizon=32)
    policy = LMPolicy(small_lm())
    episodes = collect(env, policy, 64, seed=0)
    coef = env.unwrapped.core.components.kl.coefficient.coef
    assert coef != 0.2
    assert f"{coef:.4g}" in inspect(policy, episodes, env=env).about["return"]


def test_a_comparison_keeps_what_rollouts_need_of_the_starts():
    env = make_env()
    report = compare(LMPolicy(small_lm()), LMPolicy(small_lm(1)), env, 3, branches=4, seconds=None)
    assert np.isfinite(report.table.columns["advantage_mc"]).all()


def test_values_of_a_comparison_are_those_of_the_policy_after():
    agent = PPO(LMPolicy(small_lm(), value_function="linear"), make_env(), num_episodes=8).learn(200)
    report = compare(LMPolicy(small_lm()), agent, make_env(), 3)
    assert report.table.columns["value"][report.table.rows(0)].all()  # the policy before has V = 0
