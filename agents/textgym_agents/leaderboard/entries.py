"""The entries of the leaderboard: functions from the specification of a run to the policy to be evaluated."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import stable_baselines3 as sb3

from textgym import TextGenVecEnv
from textgym_agents.agent import Agent
from textgym_agents.decoding import BestOfN, Greedy, RandomPolicy
from textgym_agents.dqn import DQN, DQNConfig
from textgym_agents.grpo import GRPO, GRPOConfig
from textgym_agents.leaderboard.optimum import BestTurns
from textgym_agents.policy import LMPolicy, Policy
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.q_policy import QPolicy
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import env_seed
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy, ReportLogProbs

__all__ = ["ENTRIES", "NO_BEST_TURN", "UNTRAINED", "Entry", "RunSpec", "task_env"]

NUM_ENVS = 64
"""Slots of the training environments."""

OF_ENV = ("group_size", "reward")
"""Settings that are the training environment's and not the agent's."""

NO_BEST_TURN = ("sentiment",)
"""Tasks whose optimum is a bound, 1, that cannot be played: no best text is known."""


class RunSpec(NamedTuple):
    """Specification of a run."""

    task: str
    seed: int
    """0, 1, ...: the number of the repetition."""
    timesteps: int
    """Tokens to train on."""
    model: str
    """``"tiny"``, or what else ``LMPolicy`` takes; the task is then asked in its own way."""
    settings: Mapping[str, Any]
    """Of the training."""


class Entry(NamedTuple):
    """A policy to be evaluated."""

    policy: Callable[[gym.vector.VectorEnv[Any, Any, Any]], Policy]
    """Makes the policy for an environment; one that looks ahead has to know which."""
    num_timesteps: int = 0
    """Tokens that it was trained on."""


def task_env(
    task: str, num_envs: int, model: str = "tiny", split: str = "train", **keywords: Any
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the environment of a task, all levels mixed."""
    return gym.make_vec(
        "TextGen-v0",
        num_envs=num_envs,
        autoreset_mode="SameStep",
        **_keywords(task, model, split),
        **keywords,
    )


def _keywords(task: str, model: str, split: str) -> dict[str, Any]:
    keywords = {"task": task, "split": split}
    return keywords if model == "tiny" else {**keywords, "model": model}


def random_tokens(spec: RunSpec) -> Entry:
    """Each token of the vocabulary is as likely as any other."""
    vocab_size = LMPolicy(spec.model).vocab_size
    return Entry(lambda env: RandomPolicy(vocab_size))


def greedy(spec: RunSpec) -> Entry:
    """Take the likeliest token of the language model."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: Greedy(lm))


def sampled(spec: RunSpec) -> Entry:
    """Sample from the language model."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: lm)


def best_of_8(spec: RunSpec) -> Entry:
    """Sample eight whole episodes and play the best: it is told the scores."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: BestOfN(lm, env, 8))


def optimum(spec: RunSpec) -> Entry:
    """Play the known optimum."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: BestTurns(lm, env, spec.task))


def reinforce(spec: RunSpec) -> Entry:
    """Train Reinforce."""
    env, settings = _training(spec)
    return _trained(Reinforce(spec.model, env, ReinforceConfig(**settings)), spec)


def ppo(spec: RunSpec) -> Entry:
    """Train PPO."""
    env, settings = _training(spec)
    return _trained(PPO(spec.model, env, PPOConfig(**settings)), spec)


def grpo(spec: RunSpec) -> Entry:
    """Train GRPO."""
    env, settings = _training(spec)
    return _trained(GRPO(spec.model, env, GRPOConfig(**settings)), spec)


def dqn(spec: RunSpec) -> Entry:
    """Train Q-values on top of the language model, which proposes: the policy is pi_LM exp(Q / T).

    T falls during the first two thirds of the training. There are no random tokens, which never make a text.
    """
    env, settings = _training(spec)
    policy = QPolicy(spec.model, lm_prior=True, head_gradient=settings.pop("head_gradient", False))
    config = DQNConfig(
        exploration_initial_eps=0.0,
        exploration_final_eps=0.0,
        exploration_timesteps=max(1, 2 * spec.timesteps // 3),
        **settings,
    )
    return _trained(DQN(policy, env, config), spec)


def sb3_ppo(spec: RunSpec) -> Entry:
    """Train stock Stable-Baselines3 PPO; the KL is charged by the environment."""
    of_env, settings = _split(spec)
    of_env["kl_penalty"] = settings.pop("kl_coef", 0.0)
    settings["seed"] = env_seed(settings["seed"])
    env = TextGenVecEnv(NUM_ENVS, **_keywords(spec.task, spec.model, "train"), **of_env)
    model = sb3.PPO(
        LMActorCriticPolicy,
        env,
        policy_kwargs={"model": spec.model},
        rollout_buffer_class=EpisodeRolloutBuffer,
        gamma=1.0,
        **settings,
    )
    model.learn(spec.timesteps, callback=ReportLogProbs())
    policy = model.policy
    assert isinstance(policy, LMActorCriticPolicy)
    return Entry(lambda env: Greedy(policy.lm), model.num_timesteps)


def _training(spec: RunSpec) -> tuple[gym.vector.VectorEnv[Any, Any, Any], dict[str, Any]]:
    """Return the environment to train in, and those of the settings that are the agent's."""
    of_env, settings = _split(spec)
    return task_env(spec.task, NUM_ENVS, spec.model, **of_env), settings


def _split(spec: RunSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that are the environment's, and the others with the seed."""
    settings = {"seed": spec.seed, **spec.settings}
    return {name: settings.pop(name) for name in OF_ENV if name in settings}, settings


def _trained(agent: Agent, spec: RunSpec) -> Entry:
    """Train an agent, which is then evaluated without its exploration, by its likeliest tokens."""
    agent.learn(spec.timesteps)
    return Entry(lambda env: Greedy(agent.policy), agent.num_timesteps)


UNTRAINED: Mapping[str, Callable[[RunSpec], Entry]] = MappingProxyType(
    {
        "random": random_tokens,
        "greedy LM": greedy,
        "sampled LM": sampled,
        "best of 8": best_of_8,
    }
)
"""What the language model does as it is, and what chance does."""

ENTRIES: Mapping[str, Callable[[RunSpec], Entry]] = MappingProxyType(
    {
        **UNTRAINED,
        "Reinforce": reinforce,
        "PPO": ppo,
        "GRPO": grpo,
        "DQN": dqn,
        "SB3 PPO": sb3_ppo,
        "optimum": optimum,
    }
)
"""All of them by name."""
