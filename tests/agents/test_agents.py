"""Construction of agents, checks of settings, and independence of results from implementation choices."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import textgym_agents
from fixtures import TOKENIZER, make_env, small_lm, small_q_policy
from textgym_agents import (
    DQN,
    GRPO,
    ILQL,
    PPO,
    AgentConfig,
    BehaviourCloning,
    BehaviourCloningConfig,
    CriticConfig,
    DQNConfig,
    ExpertIterationConfig,
    GRPOConfig,
    ILQLConfig,
    ILQLPolicy,
    LMPolicy,
    OnlineAgent,
    OnlineAgentConfig,
    PPOConfig,
    Reinforce,
    ReinforceConfig,
    SoftQ,
    SoftQConfig,
    collect,
)
from textgym_agents.decoding import MCTSConfig

CONFIGS = [
    config
    for config in (getattr(textgym_agents, name) for name in textgym_agents.__all__ if name.endswith("Config"))
    if issubclass(config, AgentConfig)
]


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


@pytest.mark.parametrize("name", ["Reinforce", pytest.param("DQN", marks=pytest.mark.slow)])
def test_evaluating_in_a_callback_does_not_change_the_run(name):
    def make():
        if name == "Reinforce":
            return agent_of(kl_coef=0.1)
        return DQN(small_q_policy(), make_env(), DQNConfig(num_episodes=8))

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


# How agents are made


def test_an_agent_makes_its_environment_of_an_id():
    agent = PPO("tiny", "TextGen-v0", num_envs=4, env_kwargs={"max_new_tokens": 5}, learning_rate=1e-4, num_episodes=8)
    assert agent.env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert agent.env.num_envs == 4
    assert agent.env.unwrapped.max_new_tokens == 5
    assert agent.config == PPOConfig(learning_rate=1e-4, num_episodes=8)
    assert agent.learn(1).num_timesteps >= 8


@pytest.mark.parametrize(("num_episodes", "num_envs"), [(8, 8), (64, 64), (1000, 64)])
def test_by_default_there_are_as_many_environments_as_episodes_up_to_64(num_episodes, num_envs):
    agent = Reinforce(
        LMPolicy(small_lm()), "textgym:TextGen-v0", env_kwargs={"tokenizer": TOKENIZER, "prompts": ["a"]},
        num_episodes=num_episodes,
    )  # fmt: skip
    assert agent.env.num_envs == num_envs


@pytest.mark.parametrize(("num_episodes", "group_size"), [(64, 4), (12, 4), (9, 3), (13, 13)])
def test_grpo_makes_groups_that_divide_its_episodes(num_episodes, group_size):
    env_kwargs = {"tokenizer": TOKENIZER, "prompts": ["a"]}
    agent = GRPO(LMPolicy(small_lm()), "TextGen-v0", env_kwargs=env_kwargs, num_episodes=num_episodes)
    assert agent.env.unwrapped.config.group_size == group_size
    chosen = GRPO(LMPolicy(small_lm()), "TextGen-v0", env_kwargs=env_kwargs | {"group_size": 2}, num_episodes=64)
    assert chosen.env.unwrapped.config.group_size == 2


def test_settings_as_keywords_are_those_of_a_config():
    data = collect(make_env(), LMPolicy(small_lm()), 8, seed=0)
    assert DQN(small_q_policy(), make_env(), tau=0.5).config == DQNConfig(tau=0.5)
    assert SoftQ(LMPolicy(small_lm()), make_env(), gradient_steps=2).config == SoftQConfig(gradient_steps=2)
    assert ILQL(ILQLPolicy(small_lm()), data, batch_size=4).config == ILQLConfig(batch_size=4)
    cloned = BehaviourCloning(LMPolicy(small_lm()), data, top_fraction=0.5)
    assert cloned.config == BehaviourCloningConfig(top_fraction=0.5)


MISTAKES = {
    "swapped": (lambda env: PPO(env, "tiny"), r"PPO\(policy, \.\.\.\): the policy comes first, such as 'tiny', got "),
    "a single environment": (
        lambda env: PPO(LMPolicy(small_lm()), gym.make("TextGen-v0")),
        "needs the batched environment that .* gives, or, as an agent's second argument, its id .* got TextGenEnv",
    ),
    "settings twice": (
        lambda env: PPO(LMPolicy(small_lm()), env, PPOConfig(), gamma=0.9),
        r"PPO takes its settings as keywords or as one config, got a config and \{'gamma'\}",
    ),
    "an unknown setting": (
        lambda env: PPO(LMPolicy(small_lm()), env, learnig_rate=0.1),
        "PPOConfig: unknown setting 'learnig_rate'; did you mean 'learning_rate'",
    ),
    "a keyword of the environment": (
        lambda env: PPO(LMPolicy(small_lm()), "TextGen-v0", scorer="sentiment"),
        "scorer: a keyword of the environment; give it in env_kwargs",
    ),
    "an environment and its number": (
        lambda env: PPO(LMPolicy(small_lm()), env, num_envs=4),
        "num_envs and env_kwargs are for an env that is given as an id, got ",
    ),
    "no number": (
        lambda env: PPO(LMPolicy(small_lm()), "TextGen-v0", num_envs=2.5),
        "num_envs must be an integer, got 2.5",
    ),
    "another family": (
        lambda env: PPO(LMPolicy(small_lm()), "CartPole-v1"),
        "an LM policy needs an id of the TextGen family, got 'CartPole-v1'",
    ),
    "an unknown keyword of the environment": (
        lambda env: PPO(LMPolicy(small_lm()), "TextGen-v0", env_kwargs={"scorrer": "sentiment"}),
        "did you mean 'scorer'",
    ),
    "loading without an environment": (lambda env: PPO.load("x"), r"PPO\.load\(path, env\) needs the env too"),
    "loading without data": (lambda env: ILQL.load("x"), r"ILQL\.load\(path, data\) needs the data too"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_common_mistakes_raise_helpful_errors(mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(TypeError, match=message):
        make(make_env())


def test_an_environment_made_on_loading_has_the_groups_and_number_that_the_saved_one_had(tmp_path):
    env_kwargs = {"tokenizer": TOKENIZER, "prompts": ["a"], "max_new_tokens": 4}
    settings = {"num_envs": 4, "env_kwargs": env_kwargs | {"group_size": 2}, "num_episodes": 16}
    agent = GRPO(LMPolicy(small_lm()), "TextGen-v0", **settings).learn(1)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", "TextGen-v0", env_kwargs=env_kwargs)
    assert loaded.env.unwrapped.config.group_size == 2
    assert torch.equal(parameters(loaded.learn(10)), parameters(agent.learn(10)))


@pytest.mark.parametrize("kind", [str, Path])
def test_an_environment_of_an_id_has_the_model_of_a_policy_that_is_a_folder(kind, tmp_path):
    LMPolicy("tiny").save_pretrained(tmp_path / "lm")
    folder = kind(tmp_path / "lm")
    agent = PPO(folder, "TextGen-v0", num_envs=2, num_episodes=2)
    assert agent.env.unwrapped.config.model == str(folder)
    agent.save(tmp_path / "agent")
    assert PPO.load(tmp_path / "agent", "TextGen-v0").env.unwrapped.config.model == str(folder)


def test_an_agent_of_ones_own_needs_public_names_only(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class MineConfig(OnlineAgentConfig):
        scale: float = 1.0

    class Mine(OnlineAgent):
        config_class = MineConfig

        def update(self, episodes):
            advantages = self.config.scale * (episodes.returns - episodes.returns.mean())
            episodes.advantages = advantages[:, None] * episodes.mask
            return self.backward(episodes, self.loss) | self.optimizer_step()

        def loss(self, episodes):
            log_probs = self.policy.evaluate(episodes).log_probs
            return -episodes.advantages * log_probs, {"log_prob": log_probs}

    agent = Mine(LMPolicy(small_lm()), make_env(), num_episodes=8, scale=2.0, micro_batch=3).learn(100)
    agent.save(tmp_path)
    loaded = Mine.load(tmp_path, make_env())
    assert loaded.config == MineConfig(num_episodes=8, scale=2.0, micro_batch=3)
    assert torch.equal(parameters(loaded.learn(50)), parameters(agent.learn(50)))


def own_agent(loss, base_config=OnlineAgentConfig):
    """Return an agent with a loss function ``loss(policy, episodes)``."""

    class Own(OnlineAgent):
        config_class = base_config

        def update(self, episodes):
            return self.backward(episodes, lambda part: loss(self.policy, part)) | self.optimizer_step()

    return Own(LMPolicy(small_lm()), make_env(), num_episodes=8)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda policy, part: (-policy.evaluate(part).log_probs.sum(1), {}), r"loss \(8,\)"),
        (lambda policy, part: ((log := policy.evaluate(part).log_probs), {"mean": log.mean(1)}), r"mean \(8,\)"),
    ],
)
def test_a_loss_or_term_of_another_shape_than_the_steps_is_refused(loss, shape):
    with pytest.raises(ValueError, match=rf"shapes must be equal, got mask \(8, \d+\), .*{shape}"):
        own_agent(loss).learn(1)


def test_weights_of_another_shape_than_one_per_episode_are_refused():
    agent = own_agent(None)
    with pytest.raises(ValueError, match=r"weights must be \(B, 1\) = \(8, 1\), got \(8,\)"):
        agent.backward(agent.collect(), lambda part: (agent.policy.evaluate(part).log_probs, {}), torch.ones(8))


def test_a_loss_that_trains_a_head_needs_the_config_of_a_critic():
    def loss(policy, part):
        return (policy.evaluate(part).values - part.rewards).square(), {}

    agent = own_agent(loss)
    before = parameters(agent)
    with pytest.raises(
        ValueError, match=r"value_head\.token_values, value_head\.length_values.*OnlineAgentConfig from CriticConfig"
    ):
        agent.learn(1)
    assert torch.equal(before, parameters(agent))

    @dataclass(frozen=True, kw_only=True)
    class WithCritic(OnlineAgentConfig, CriticConfig):
        pass

    agent = own_agent(loss, WithCritic).learn(1)
    assert not torch.equal(before, parameters(agent))


def test_gradients_that_another_agent_left_in_a_shared_policy_do_not_count():
    policy = LMPolicy(small_lm(), value_function="linear")
    PPO(policy, make_env(), num_episodes=8, imitation_coef=0.0).learn(1)
    assert policy.value_head.weight.grad is not None
    second = GRPO(policy, make_env(group_size=4), num_episodes=8)
    second.learn(1)
    assert policy.value_head.weight.grad is None


def test_an_agent_without_a_config_class_is_refused():
    class Own(OnlineAgent):
        def update(self, episodes):
            return {}

    with pytest.raises(TypeError, match="Own has no config_class: set it, such as config_class = OnlineAgentConfig"):
        Own("tiny", "TextGen-v0")


@pytest.mark.parametrize("config", [BehaviourCloningConfig, ExpertIterationConfig, GRPOConfig])
@pytest.mark.parametrize("setting", [{"head_learning_rate": 1e-3}, {"bootstrap_truncated": True}])
def test_agents_without_a_trained_head_refuse_settings_of_a_critic(config, setting):
    with pytest.raises(TypeError, match=f"{config.__name__}: unknown setting '{next(iter(setting))}'"):
        config(**setting)


def test_only_agents_with_a_critic_train_the_heads():
    grpo = GRPO(LMPolicy(small_lm()), make_env(group_size=8), GRPOConfig(num_episodes=8))
    ppo = PPO(LMPolicy(small_lm()), make_env(), num_episodes=8, head_learning_rate=0.5)
    assert [group["lr"] for group in grpo.optimizer.param_groups] == [5e-4]
    assert [group["lr"] for group in ppo.optimizer.param_groups] == [5e-4, 0.5]
    assert ppo.optimizer.param_groups[1]["params"] == list(ppo.policy.value_head.parameters())


@pytest.mark.parametrize("config", [BehaviourCloningConfig, ExpertIterationConfig])
@pytest.mark.parametrize("setting", [{"gamma": 0.5}, {"bootstrap_truncated": True}])
def test_agents_that_imitate_refuse_settings_of_the_return(config, setting):
    with pytest.raises(TypeError, match=f"{config.__name__}: unknown setting '{next(iter(setting))}'"):
        config(**setting)


def test_an_agent_is_loaded_with_an_id_too(tmp_path):
    settings = {"num_envs": 2, "env_kwargs": {"tokenizer": TOKENIZER, "prompts": ["a"], "max_new_tokens": 4}}
    agent = PPO(LMPolicy(small_lm()), "TextGen-v0", num_episodes=4, **settings).learn(1)
    agent.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", "TextGen-v0", **settings)
    assert torch.equal(parameters(loaded.learn(10)), parameters(agent.learn(10)))
