"""Agents that learn from recorded episodes: they fit the data, score more than its policy, and resume exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures import make_env, small_lm
from textgym_agents import BehaviourCloning, LMPolicy, collect
from textgym_agents.ilql import ILQL, ILQLConfig, ILQLPolicy
from textgym_agents.recording import EpisodeRecorder
from textgym_agents.soft_q import OfflineSoftQ, OfflineSoftQConfig

LETTER_B = 1


class NoB:
    """The letter b is invalid."""

    def mask(self, batch):
        return np.tile(np.arange(8) != LETTER_B, (len(batch), 1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def recorded(num_episodes=1024, seed=0, **keywords):
    """Episodes of an untrained language model, whose return is about 1/8."""
    return collect(
        make_env(64, **keywords), LMPolicy(small_lm(seed)), num_episodes, seed=seed, generator=generator(seed)
    )


def ilql(data, seed=0, policy=None, **settings):
    policy = ILQLPolicy(small_lm(seed + 10)) if policy is None else policy
    return ILQL(policy, data, ILQLConfig(seed=seed, **{"learning_rate": 1e-3} | settings))


def offline_soft_q(data, seed=0, **settings):
    config = OfflineSoftQConfig(seed=seed, **{"learning_rate": 3e-3, "temperature": 0.02} | settings)
    return OfflineSoftQ(LMPolicy(small_lm(seed + 10)), data, config)


def mean_return(agent, deterministic, **keywords):
    env = make_env(64, **keywords)
    return (
        collect(env, agent.policy, 64, seed=9, deterministic=deterministic, generator=generator()).returns.mean().item()
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ilql_scores_far_more_than_the_behaviour_policy(seed):
    data = recorded(seed=seed)
    agent = ilql(data, seed).learn(60_000)
    assert data.returns.mean() < 0.15
    assert mean_return(agent, deterministic=False) > 0.4
    assert mean_return(agent, deterministic=True) > 0.4


@pytest.mark.slow
def test_without_beta_ilql_writes_as_its_data_were_written():
    data = recorded()
    agent = ilql(data, beta=0.0).learn(20_000)
    assert mean_return(agent, deterministic=False) == pytest.approx(data.returns.mean().item(), abs=0.05)
    with torch.no_grad():
        own = LMPolicy(small_lm()).evaluate(data).log_probs.sum()
        learned = LMPolicy(agent.policy.backbone).evaluate(data).log_probs.sum()
    assert (learned / own).item() == pytest.approx(1.0, abs=0.03)


def test_the_conservative_loss_keeps_q_of_unseen_tokens_low():
    data = recorded(256, constraints=NoB())
    data.action_masks = None  # without the masks
    gaps = []
    for cql_coef in (0.0, 1.0):
        q = ilql(data, cql_coef=cql_coef).learn(5_000).policy.evaluate(data).target_q
        gaps.append(float((q[:, LETTER_B] - q.mean(dim=1)).mean()))
    assert gaps[1] < gaps[0] - 0.5


def test_ilql_targets_and_values_by_hand():
    data = recorded(8, time_limit="truncated")
    agent = ilql(data, gamma=0.5, expectile=0.75, cql_coef=2.0, q_lambda=0.0, bootstrap_truncated=True)
    with torch.no_grad():
        agent.policy.value_head[1].bias.fill_(3.0)
        agent.policy.q_heads[0][1].bias.fill_(1.0)
        agent.policy.q_heads[1][1].bias.fill_(2.0)
        agent.policy.target_q_heads[0][1].bias.fill_(5.0)
        agent.policy.target_q_heads[1][1].bias.fill_(7.0)
    metrics = agent.backward(data, agent.loss)
    following = torch.full_like(data.rewards, 3.0)
    last = data.num_steps - 1
    following[torch.arange(8), last] = torch.where(data.truncated, 3.0, 0.0)
    targets = (data.rewards + 0.5 * following)[data.mask]
    assert metrics["train/q_loss"] == pytest.approx(float(((1 - targets) ** 2 + (2 - targets) ** 2).mean() / 2))
    assert metrics["train/value_loss"] == pytest.approx(0.75 * (5.0 - 3.0) ** 2)  # the least of the target heads
    assert metrics["train/cql_loss"] == pytest.approx(2 * np.log(8), abs=1e-5)
    parts = metrics["train/q_loss"] + metrics["train/value_loss"] + 2 * metrics["train/cql_loss"]
    assert metrics["train/loss"] == pytest.approx(parts + metrics["train/cross_entropy"], abs=1e-4)


def test_ilql_micro_batches_add_up_to_the_whole():
    data, gradients = recorded(10), []
    for micro_batch in (None, 3):
        agent = ilql(data, micro_batch=micro_batch)
        agent.backward(data, agent.loss)
        gradients.append(agent.policy.backbone.model.transformer.wte.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)


def test_ilql_writes_no_invalid_token():
    agent = ilql(recorded(64, constraints=NoB())).learn(1_000)
    episodes = collect(make_env(8, constraints=NoB()), agent.policy, 8, seed=0, generator=generator())
    rows, columns = episodes.states()
    assert not (episodes.ids[rows, columns + 1] == LETTER_B).any()


def test_without_head_gradient_only_imitation_trains_the_model():
    agent = ilql(recorded(32), policy=ILQLPolicy(small_lm(), head_gradient=False), bc_coef=0.0).learn(500)
    assert torch.equal(agent.policy.model.transformer.wte.weight, small_lm().transformer.wte.weight)


def test_a_saved_ilql_policy_comes_back(tmp_path):
    agent = ilql(recorded(64)).learn(500)
    agent.policy.save_pretrained(tmp_path)
    ids = np.array([[0, 1, 8]])
    mine, its = (p.act(ids, generator=generator()) for p in (agent.policy, ILQLPolicy.from_pretrained(tmp_path)))
    assert (mine.actions, mine.log_probs, mine.values) == (its.actions, its.log_probs, its.values)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_soft_q_scores_more_than_the_behaviour_policy(seed):
    data = recorded(seed=seed)
    agent = offline_soft_q(data, seed).learn(40_000)
    assert mean_return(agent, deterministic=True) > 3 * data.returns.mean()


@pytest.mark.parametrize("make", [ilql, offline_soft_q])
def test_the_same_seed_gives_the_same_parameters(make):
    data = recorded(64)
    first, again = make(data).learn(500), make(data).learn(500)
    for name, tensor in first.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], tensor), name


@pytest.mark.parametrize("make", [ilql, offline_soft_q])
def test_saving_and_loading_in_the_middle_changes_nothing(make, tmp_path):
    data = recorded(64, time_limit="truncated")
    straight = make(data, bootstrap_truncated=True).learn(500)
    straight.save(tmp_path)
    straight.learn(500)
    resumed = type(straight).load(tmp_path, data)
    assert resumed.num_timesteps < straight.num_timesteps
    resumed.learn(500)
    for name, tensor in straight.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], tensor), name


def test_the_tokens_learned_from_are_counted():
    agent = ilql(recorded(64), batch_size=16)
    metrics = agent.learn_from(agent.collect())
    assert agent.num_timesteps == int(agent.episodes.num_steps.sum())
    assert len(agent.episodes) == 16
    assert {"train/loss", "train/q_loss", "train/value_loss"} <= metrics.keys()


def test_episodes_in_a_file_serve_as_those_in_memory(tmp_path):
    data = recorded(32)
    with EpisodeRecorder(tmp_path / "data.jsonl") as recorder:
        recorder.write(data)
    from_memory, from_file = ilql(data).learn(300), ilql(tmp_path / "data.jsonl").learn(300)
    for name, tensor in from_memory.policy.state_dict().items():
        assert torch.equal(from_file.policy.state_dict()[name], tensor), name


def fails_for_a(completion):
    if completion.startswith("a"):
        raise RuntimeError("no")
    return -1.0


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("make", [ilql, offline_soft_q, lambda data: BehaviourCloning(LMPolicy(small_lm()), data)])
def test_an_episode_whose_scorer_failed_is_not_among_the_data(make, from_file, tmp_path):
    data = recorded(64, scorer=fails_for_a, on_scorer_error="invalid")
    failed = sum("scorer_error" in info for info in data.infos)
    if from_file:
        with EpisodeRecorder(tmp_path / "data.jsonl") as recorder:
            recorder.write(data)
        data = tmp_path / "data.jsonl"
    kept = make(data).data
    assert 0 < failed == 64 - len(kept)
    assert (kept.returns == -1.0).all()


def test_a_number_in_the_place_of_a_failed_score_is_learned_as_the_score():
    data = recorded(64, scorer=fails_for_a, on_scorer_error=-2.0)
    assert len(ilql(data).data) == 64


def test_data_without_any_score_are_learned_from_but_not_data_whose_every_score_failed(tmp_path):
    data = recorded(8)
    unscored = replace(data, infos=[{**info, "score": float("nan")} for info in data.infos])
    assert len(ilql(unscored).data) == 8
    failed = replace(unscored, infos=[{**info, "scorer_error": "no"} for info in unscored.infos])
    with pytest.raises(ValueError, match="the scorer failed for every one of the 8 episodes"):
        ilql(failed)


def test_data_of_another_vocabulary_are_refused():
    data = recorded(8)
    with pytest.raises(ValueError, match="the data hold ids from 0 to 9, the policy has ids from 0 to 7"):
        ilql(replace(data, ids=data.ids.clamp(max=0).index_fill(1, torch.tensor([0]), 9)))
    masks = np.zeros((*data.rewards.shape, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="masks have 3 bytes a step, a vocabulary of 8 needs 1"):
        ilql(replace(data, action_masks=masks))


def test_data_of_another_type_raise():
    with pytest.raises(TypeError, match="data must be Episodes or the path of recorded ones, got dict"):
        ilql({})
    with pytest.raises(FileNotFoundError):
        ilql("no-such-file.jsonl")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"expectile": 1.5}, "expectile must be from 0 to 1, got 1.5"),
        ({"beta": -1.0}, "beta must be at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ILQLConfig(**setting)


def test_a_policy_without_q_heads_is_refused():
    with pytest.raises(ValueError, match="num_q_heads must be at least 1, got 0"):
        ILQLPolicy(small_lm(), num_q_heads=0)
