"""Entries of the leaderboard: functions that take the specification of a run and return the policy to be evaluated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.callbacks import BaseCallback

from learning_curve import LearningCurve
from textgym import TextBatch, TextGenVecEnv
from textgym.tasks import find_task
from textgym_agents import DQN, GRPO, PPO, BehaviourCloning, LMPolicy, Reinforce, SoftQ, collect, env_seed
from textgym_agents.decoding import BestOfN, Greedy, RandomPolicy
from textgym_agents.decoding.planning import Planner, Plans
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import Policy
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy, ReportLogProbs

NUM_ENVS = 64
"""Number of training environments of Stable-Baselines3's PPO; textgym's agents choose theirs."""

NUM_ANSWERS = 4_096
"""Texts of the optimal policy that supervised learning draws from."""

FIRST_CASE = 501
"""First held-out case in the split ``"eval"``; the settings were chosen on earlier ones. As a multiple of 3 it is of
level 1."""

EVERY = 2_000
"""Tokens of training between two evaluations of a learning curve."""
NUM_CASES = 64
"""Held-out cases of these evaluations, the first of a run."""

TIMESTEPS = {
    "sentiment": 30_000,
    "dialogue": 20_000,
    "translation": 60_000,
    "qa": 30_000,
    "summary": 20_000,
    "quality": 65_000,
}
"""Tokens per training, the same for all agents of a task; tasks with longer answers have larger budgets."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "PPO, no imitation": {"imitation_coef": 0.0},
    "PPO, large batches": {"num_episodes": 128, "n_epochs": 1, "batch_size": None},
    "PPO, linear V": {"policy_kwargs": {"value_function": "linear"}},
    "GRPO, no imitation": {"imitation_coef": 0.0},
    "GRPO, large batches": {"num_episodes": 128, "n_epochs": 1, "batch_size": None},
    "GRPO, divided by deviation": {"variant": "grpo"},
    "DQN, no prior": {"policy_kwargs": {"lm_prior": False}},
    "DQN, all tokens": {"policy_kwargs": {"min_p": 0.0}},
    "DQN, slow target": {"tau": 0.02},
    "DQN, one gradient step": {"gradient_steps": 1},
    "DQN, epsilon-greedy": {
        "initial_temperature": 0.0, "final_temperature": 0.0,
        "exploration_initial_eps": 0.2, "exploration_final_eps": 0.05,
    },
}  # fmt: skip
"""Settings of an agent, which is named first, that undo one of its defaults. By default not shown."""

SETTINGS: dict[str, dict[str, Any]] = {
    "SB3 PPO": {"learning_rate": 3e-4, "n_steps": 16, "batch_size": 512, "n_epochs": 4},
    **ABLATIONS,
}
"""Settings by entry, for all tasks; everything else, and all of textgym's own agents, is default. What differs by task
is part of the task: its coefficient of the KL penalty, ``suggested_kl_coef``."""

ENV_SETTINGS = ("group_size", "reward")
"""Settings of the training environment; the others are the agent's."""

EXPERTS = ("supervised", "optimum")
"""Entries that know the best texts."""

NO_BEST_TURN = ("sentiment",)
"""Tasks without a known best text; their optimum is the upper bound of the score, 1."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that determines a run; a stored run is reused only if all of it is equal."""

    task: str
    entry: str
    seed: int = 0
    timesteps: int = 0
    """Tokens to train on; 0 for entries that do not train."""
    num_held_out: int = 192
    """Number of held-out cases."""
    model: str = "tiny"
    """What ``LMPolicy`` takes; a model other than ``"tiny"`` brings its own prompt format."""
    weights: str | None = None
    """First 16 digits of the SHA-256 of the model's weight file; None if there is no such file."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Training settings that differ from the defaults of the agent."""


class Entry(NamedTuple):
    """A policy to be evaluated."""

    policy: Callable[[gym.vector.VectorEnv[Any, Any, Any]], Policy]
    """Makes the policy for an environment, which look-ahead decoders need."""
    num_timesteps: int = 0
    """Tokens that it was trained on."""
    curve: LearningCurve | None = None
    """Evaluations in the course of its training, if it was trained."""


def task_env(
    task: str, num_envs: int, model: str = "tiny", split: str = "train", **keywords: Any
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the environment of a task, all levels mixed."""
    keywords |= _task_keywords(task, model, split)
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode="SameStep", **keywords)


def _task_keywords(task: str, model: str, split: str) -> dict[str, Any]:
    keywords = {"task": task, "split": split}
    return keywords if model == "tiny" else {**keywords, "model": model}


def random_tokens(spec: RunSpec) -> Entry:
    """Return the uniform distribution over the vocabulary."""
    vocab_size = LMPolicy(spec.model).vocab_size
    return Entry(lambda env: RandomPolicy(vocab_size))


def greedy(spec: RunSpec) -> Entry:
    """Return greedy decoding of the untrained LM."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: Greedy(lm))


def sampled(spec: RunSpec) -> Entry:
    """Return sampling from the untrained LM."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: lm)


def best_of_8(spec: RunSpec) -> Entry:
    """Return best-of-8 sampling from the untrained LM, which compares returns on the held-out cases themselves."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: BestOfN(lm, env, 8))


def optimum(spec: RunSpec) -> Entry:
    """Return the known optimal policy."""
    lm = LMPolicy(spec.model)
    return Entry(lambda env: OptimalPolicy(lm, env, spec.task))


def supervised(spec: RunSpec) -> Entry:
    """Train by behaviour cloning of the optimal policy, which no other entry is shown."""
    env = task_env(spec.task, NUM_ENVS, spec.model)
    data = collect(env, OptimalPolicy(LMPolicy(spec.model), env, spec.task), NUM_ANSWERS, seed=env_seed(spec.seed))
    agent = BehaviourCloning(spec.model, data, **_split_settings(spec)[1])
    curve = learning_curve(spec)
    agent.learn(spec.timesteps, callback=curve)
    return Entry(lambda env: Greedy(agent.policy), agent.num_timesteps, curve)


def reinforce(spec: RunSpec) -> Entry:
    """Train Reinforce."""
    return _trained(Reinforce, spec)


def ppo(spec: RunSpec) -> Entry:
    """Train PPO."""
    return _trained(PPO, spec)


def grpo(spec: RunSpec) -> Entry:
    """Train GRPO."""
    return _trained(GRPO, spec)


def dqn(spec: RunSpec) -> Entry:
    """Train DQN with its default policy, which samples from pi_LM exp(Q / T) among the plausible tokens."""
    return _trained(DQN, spec)


def soft_q(spec: RunSpec) -> Entry:
    """Train SoftQ."""
    return _trained(SoftQ, spec)


def sb3_ppo(spec: RunSpec) -> Entry:
    """Train Stable-Baselines3's PPO; the KL penalty is part of the environment's reward."""
    env_settings, settings = _split_settings(spec)
    env_settings["kl_penalty"] = find_task(spec.task).keywords["suggested_kl_coef"]
    settings["seed"] = env_seed(settings["seed"])
    env = TextGenVecEnv(NUM_ENVS, **_task_keywords(spec.task, spec.model, "train"), **env_settings)
    model = sb3.PPO(
        LMActorCriticPolicy,
        env,
        policy_kwargs={"model": spec.model},
        rollout_buffer_class=EpisodeRolloutBuffer,
        gamma=1.0,
        **settings,
    )
    curve = learning_curve(spec)
    model.learn(spec.timesteps, callback=[ReportLogProbs(), SB3LearningCurve(curve)])
    policy = model.policy
    assert isinstance(policy, LMActorCriticPolicy)
    return Entry(lambda env: Greedy(policy.lm), model.num_timesteps, curve)


class SB3LearningCurve(BaseCallback):
    """Adds the points of a Stable-Baselines3 training to a ``LearningCurve``, after its updates."""

    def __init__(self, curve: LearningCurve) -> None:
        super().__init__()
        self._curve = curve

    def _on_rollout_start(self) -> None:
        self._measure()

    def _on_training_end(self) -> None:
        self._measure()

    def _measure(self) -> None:
        policy: Any = self.model.policy
        self._curve.measure(policy.lm, self.model.num_timesteps)

    def _on_step(self) -> bool:
        return True


def learning_curve(spec: RunSpec) -> LearningCurve:
    """Return a callback that evaluates on the first held-out cases of a run."""
    cases = range(FIRST_CASE, FIRST_CASE + min(NUM_CASES, spec.num_held_out))
    return LearningCurve(lambda: task_env(spec.task, len(cases), spec.model, "eval"), cases, spec.seed, every=EVERY)


def _trained(agent_class: type[OnlineAgent], spec: RunSpec) -> Entry:
    """Train an agent in an environment that it makes itself; it is evaluated greedily."""
    env_settings, settings = _split_settings(spec)
    keywords = _task_keywords(spec.task, spec.model, "train") | env_settings
    policy_kwargs = settings.pop("policy_kwargs", {})
    policy = agent_class.policy_class(spec.model, **policy_kwargs) if policy_kwargs else spec.model
    agent = agent_class(policy, "TextGen-v0", env_kwargs=keywords, **settings)
    curve = learning_curve(spec)
    agent.learn(spec.timesteps, callback=curve)
    return Entry(lambda env: Greedy(agent.policy), agent.num_timesteps, curve)


def _split_settings(spec: RunSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the environment's settings, and the agent's with the seed."""
    settings = {"seed": spec.seed, **spec.settings}
    return {name: settings.pop(name) for name in ENV_SETTINGS if name in settings}, settings


UNTRAINED: Mapping[str, Callable[[RunSpec], Entry]] = {
    "random": random_tokens,
    "greedy LM": greedy,
    "sampled LM": sampled,
    "best of 8": best_of_8,
}
"""Entries that do not train."""

_AGENTS = {"PPO": ppo, "GRPO": grpo, "DQN": dqn}

ENTRIES: Mapping[str, Callable[[RunSpec], Entry]] = {
    **UNTRAINED,
    "supervised": supervised,
    "Reinforce": reinforce,
    **_AGENTS,
    "SoftQ": soft_q,
    "SB3 PPO": sb3_ppo,
    **{name: _AGENTS[name.split(",")[0]] for name in ABLATIONS},
    "optimum": optimum,
}
"""All entries, in the order of the tables."""

TRAINED = tuple(name for name in ENTRIES if name not in UNTRAINED and name != "optimum")
"""Names of the entries that train."""


class OptimalPolicy(Planner):
    """Writes the best turn that the task knows, then EOS.

    Args:
        policy: Only the size of its vocabulary is used.
        env: The environment in which it acts.
        task: Name of the task, which must have a target or an ``expert``.

    Raises:
        ValueError: If there is no such task, it has no best turn, or the tokenizer has no EOS.
    """

    def __init__(self, policy: Policy, env: Any, task: str) -> None:
        super().__init__(policy, env)
        self.task = find_task(task)
        if self.env.eos_token_id is None:
            raise ValueError("the optimal policy ends its turns with EOS, but the tokenizer has none")
        self._eos = self.env.eos_token_id
        if self.task.expert is None and self.task.target is None:
            raise ValueError(f"task {task!r} has no best turn: it has neither a target nor an expert")

    def plan(self, active: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Plan each text up to the end of its current turn; see ``Planner.plan``."""
        core = self.env.core
        plans = Plans.empty(core.ids.shape, self.env.pad_token_id)
        plans.ids[:] = core.ids
        for index in np.flatnonzero(active).tolist():
            text = self.task.optimal_turn(core.samples[index], self._agent_turns(index))
            turn = [*self.env.tokenizer.encode(" " + text), self._eos]
            columns = slice(core.lengths[index], core.lengths[index] + len(turn))
            plans.ids[index, columns], plans.is_action[index, columns] = turn, True
        return plans

    def _agent_turns(self, index: int) -> Sequence[str]:
        """Return the agent's previous turns of a dialogue."""
        core = self.env.core
        if core.user_turns is None:
            return ()
        one = slice(index, index + 1)
        text = TextBatch(
            self.env.tokenizer,
            core.ids[one],
            core.lengths[one],
            core.prompt_lengths[one],
            core.samples[one],
            ~core.running[one],
            is_action=core.user_turns.is_action[one],
            replies=core.user_turns.replies[one],
        )
        return text.agent_turns[0]
