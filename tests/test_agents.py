"""What all agents share: how they are made, what their settings are, and what does not change a run."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from lm_fixtures import make_env, small_lm

import textgym_agents
from textgym_agents import (
    DQN,
    AgentConfig,
    DQNConfig,
    LMPolicy,
    PPOConfig,
    QPolicy,
    Reinforce,
    ReinforceConfig,
    collect,
)
from textgym_agents.decoding import MCTSConfig

CONFIGS = [getattr(textgym_agents, name) for name in textgym_agents.__all__ if name.endswith("Config")]


def agent_of(**settings):
    return Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=8, **settings))


def parameters(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


NO_COUNTS = (2.5, True, "100", 1e3, np.float64(8))


@pytest.mark.parametrize("wrong", NO_COUNTS, ids=repr)
def test_learn_and_collect_take_integers_and_fail_before_anything_runs(wrong):
    agent = agent_of()
    with pytest.raises(TypeError, match=r"^total_timesteps must be an integer, got "):
        agent.learn(wrong)
    with pytest.raises(TypeError, match=r"^num_episodes must be an integer, got "):
        collect(agent.env, agent.policy, wrong)
    assert agent.num_timesteps == agent.num_updates == 0


@pytest.mark.parametrize("config", [*CONFIGS, MCTSConfig])
def test_every_setting_refuses_another_type_at_once(config):
    for field in fields(config):
        for wrong in (*NO_COUNTS, [1]):
            if "int" in str(field.type):
                with pytest.raises(TypeError, match=f"^{field.name} must be an integer( or None)?, got "):
                    config(**{field.name: wrong})
        for wrong in (True, "0.5", [1]):
            if "float" in str(field.type):
                with pytest.raises(TypeError, match=f"^{field.name} must be a number( or None)?, got "):
                    config(**{field.name: wrong})
        for wrong in (1, "yes", None):
            if "bool" in str(field.type):
                with pytest.raises(TypeError, match=f"^{field.name} must be True or False, got "):
                    config(**{field.name: wrong})
        if "Literal" in str(field.type):
            with pytest.raises(ValueError, match=f"^unknown {field.name} 'huberr?'"):
                config(**{field.name: "huberr"})


def test_numbers_of_numpy_are_settings_that_json_can_hold():
    config = DQNConfig(num_episodes=np.int64(4), learning_rate=np.float32(0.5), gamma=1, n_steps=np.int32(2))
    assert json.loads(json.dumps(vars(config)))["n_steps"] == 2
    assert config.learning_rate == 0.5


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        AgentConfig(seed=-1)


@pytest.mark.parametrize("config", CONFIGS)
def test_an_unknown_setting_suggests_the_nearest(config):
    with pytest.raises(TypeError, match=f"^{config.__name__}: .*'learnig_rate'; did you mean 'learning_rate'"):
        config(learnig_rate=1.0)


def test_a_setting_that_is_nothing_like_any_other_lists_the_known_ones():
    with pytest.raises(TypeError, match=r"unknown setting 'clip'; did you mean 'clip_range'\? Known: .*vf_coef"):
        PPOConfig(clip=0.2)


# Evaluating


def evaluated(make, num_envs):
    """Train with an evaluation after each update that plays other episodes, or none, and return the parameters."""
    agent = make()

    def evaluate(agent, _):
        if num_envs:
            env = make_env(num_envs)
            observations, _ = env.reset(seed=7)
            for _ in range(8):
                actions, _ = agent.predict(observations)
                observations, *_ = env.step(actions)
            agent.predict(observations, deterministic=True)

    return parameters(agent.learn(300, callback=evaluate))


@pytest.mark.parametrize("name", ["Reinforce", "DQN"])
def test_evaluating_in_a_callback_does_not_change_the_run(name):
    def make():
        if name == "Reinforce":
            return agent_of(kl_coef=0.1)
        return DQN(QPolicy(small_lm()), make_env(), DQNConfig(num_episodes=8))

    alone = evaluated(make, 0)
    assert torch.equal(alone, evaluated(make, 3))
    assert torch.equal(alone, evaluated(make, 8)), "the batch that the training has"


def test_predictions_depend_on_the_seed_and_go_on_after_loading(tmp_path):
    observations, _ = make_env(8).reset(seed=0)
    first, again, other = agent_of(), agent_of(), agent_of(seed=1)
    drawn = [[agent.predict(observations)[0].tolist() for _ in range(4)] for agent in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    first.save(tmp_path / "agent")
    loaded = Reinforce.load(tmp_path / "agent", make_env())
    for _ in range(4):
        assert loaded.predict(observations)[0].tolist() == first.predict(observations)[0].tolist()
