"""BehaviourCloning and ExpertIteration: selection of episodes, learning, exact resume."""

import numpy as np
import pytest
import torch

from fixtures import ONE_SEED_AND_TWO_SLOW, make_env, small_lm
from textgym.constraints import BanTokens
from textgym_agents import LMPolicy, collect
from textgym_agents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from textgym_agents.decoding import Sampling
from textgym_agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from textgym_agents.recording import EpisodeRecorder
from textgym_agents.returns import best_of_groups


def sampled(policy, num_episodes=64, **keywords):
    env = make_env(32, **keywords)
    return collect(env, policy, num_episodes, seed=9, generator=torch.Generator().manual_seed(0))


def mean_return(policy):
    return sampled(policy).returns.mean().item()


@pytest.fixture(scope="module")
def data():
    return sampled(LMPolicy(small_lm()), 1000)


def cloning_of(data, seed=0, **settings):
    config = BehaviourCloningConfig(seed=seed, **{"batch_size": 32, "learning_rate": 3e-3} | settings)
    return BehaviourCloning(LMPolicy(small_lm(1)), data, config)


def expert_of(seed=0, env=None, **settings):
    config = ExpertIterationConfig(seed=seed, **{"num_episodes": 32, "learning_rate": 3e-3} | settings)
    return ExpertIteration(LMPolicy(small_lm(seed)), make_env(32) if env is None else env, config)


def assert_same_parameters(first, second):
    for name, tensor in first.policy.state_dict().items():
        assert torch.equal(second.policy.state_dict()[name], tensor), name


def test_cloning_raises_the_likelihood_to_that_of_the_behaviour_policy():
    data = sampled(Sampling(small_lm(), temperature=0.1), 1000)
    agent = cloning_of(data)

    def cross_entropy():
        return -agent.policy.evaluate(data).log_probs.sum().item() / int(data.num_steps.sum())

    theirs = -data.log_probs.sum().item() / int(data.num_steps.sum())
    assert cross_entropy() > theirs + 0.3
    agent.learn(12_000)
    assert cross_entropy() < theirs + 0.1


def test_cloning_the_best_scores_more_than_the_behaviour_policy(data):
    assert mean_return(cloning_of(data, top_fraction=0.05).learn(6_000).policy) > 3 * data.returns.mean().item()


def test_the_loss_is_the_mean_over_the_tokens_that_were_written(data):
    agent = cloning_of(data)
    part = data[np.arange(3)]
    rows = [agent.policy.evaluate(part[np.array([b])]).log_probs[0, : int(part.num_steps[b])] for b in range(3)]
    expected = -torch.cat(rows).mean().item()
    assert agent.update(part)["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_only_valid_tokens_share_the_probability():
    masked = sampled(LMPolicy(small_lm()), constraints=[BanTokens(["c"])])
    agent = cloning_of(masked)
    before = agent.policy.evaluate(masked).log_probs.detach()
    masked.action_masks = None
    assert (agent.policy.evaluate(masked).log_probs < before)[masked.mask].all()


def test_micro_batches_give_the_same_step(data):
    first, second = cloning_of(data).learn(1), cloning_of(data, micro_batch=7).learn(1)
    for one, other in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_filters_keep_the_episodes_they_name(data):
    returns = data.returns.sort(descending=True).values
    assert cloning_of(data, top_fraction=0.1).data.returns.sort(descending=True).values.equal(returns[:100])
    assert cloning_of(data, min_return=0.3).data.returns.min() >= 0.3
    assert len(cloning_of(data).data) == 1000


def test_a_filter_that_leaves_nothing_raises(data):
    with pytest.raises(ValueError, match=r"at least min_return=2; the best has 0\."):
        cloning_of(data, min_return=2)


def test_cloning_reads_recorded_files(data, tmp_path):
    with EpisodeRecorder(tmp_path / "episodes.jsonl") as recorder:
        recorder.write(data)
    assert_same_parameters(cloning_of(data).learn(500), cloning_of(recorder.path).learn(500))


@pytest.mark.parametrize("make", [cloning_of, lambda _, **settings: expert_of(**settings)])
def test_the_same_seed_gives_the_same_parameters_and_another_does_not(make, data):
    first, again = make(data).learn(500), make(data).learn(500)
    assert_same_parameters(first, again)
    other = make(data)
    other.generator.manual_seed(1)
    other.learn(500)
    name = "backbone.model.transformer.wte.weight"
    assert not torch.equal(first.policy.state_dict()[name], other.policy.state_dict()[name])


@pytest.mark.parametrize("settings", [{}, {"batch_size": 4}])
def test_saving_and_loading_expert_iteration_in_the_middle_changes_nothing(settings, tmp_path):
    straight = expert_of(**settings).learn(400)
    straight.save(tmp_path)
    resumed = ExpertIteration.load(tmp_path, make_env(32)).learn(400)
    assert_same_parameters(straight.learn(400), resumed)


def test_saving_and_loading_behaviour_cloning_in_the_middle_changes_nothing(data, tmp_path):
    straight = cloning_of(data, top_fraction=0.5).learn(400)
    straight.save(tmp_path)
    resumed = BehaviourCloning.load(tmp_path, data).learn(400)
    assert_same_parameters(straight.learn(400), resumed)
    assert resumed.num_timesteps == straight.num_timesteps


@pytest.mark.parametrize("seed", ONE_SEED_AND_TWO_SLOW)
@pytest.mark.parametrize(("group_size", "top_fraction"), [(1, 0.25), pytest.param(8, 0.125, marks=pytest.mark.slow)])
def test_expert_iteration_reaches_ninety_percent_of_the_optimum(seed, group_size, top_fraction):
    agent = expert_of(seed, make_env(32, group_size=group_size), top_fraction=top_fraction)
    assert mean_return(agent.policy) < 0.25
    agent.learn(6_000)
    assert mean_return(agent.policy) > 0.9


def test_the_experts_are_better_than_the_batch():
    rows = []
    expert_of().learn(200, callback=lambda _, metrics: rows.append(metrics))
    assert all(row["train/expert_rew_mean"] > row["rollout/ep_rew_mean"] for row in rows)


def test_the_best_of_each_group_are_kept():
    returns = torch.tensor([0.0, 2.0, 1.0, 5.0, 5.0, 4.0, 9.0])
    groups = torch.tensor([1, 1, 1, 2, 2, 2, 3])
    assert best_of_groups(returns, groups, 1 / 3).tolist() == [1, 3, 6]
    assert best_of_groups(returns, groups, 0.5).tolist() == [1, 2, 3, 4, 6]
    assert best_of_groups(returns, groups, 1.0).tolist() == list(range(7))


@pytest.mark.parametrize("config", [BehaviourCloningConfig, ExpertIterationConfig])
@pytest.mark.parametrize(
    ("fraction", "message"), [(0.0, "top_fraction must be above 0"), (1.5, "top_fraction must be from 0 to 1, got 1.5")]
)
def test_a_fraction_out_of_range_is_refused(config, fraction, message):
    with pytest.raises(ValueError, match=message):
        config(top_fraction=fraction)
