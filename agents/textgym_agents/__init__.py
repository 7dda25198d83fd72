"""Agents whose policy is a language model; agents/README.md is the guide to the modules.

backbone, policy, q_policy     the language model, and the heads that make it a policy or a Q-function
episodes, rollout, replay      whole episodes, their collection, and a buffer of past ones
value_function                 V(s) of the text so far, and the interface of others
branching                      Monte-Carlo values of given states and actions
returns, losses                returns, advantages and losses, as pure functions
reference                      the initial policy and the KL penalty against it
token_stats                    entropy, rank and likeliest alternatives of sampled tokens
agent, online, offline         base classes: learn, predict, gradient steps, checkpoints
config, callbacks, checkpoint  hyper-parameters, hooks of ``learn``, files of an agent
reinforce, a2c, ppo, grpo, expert_iteration, dqn, soft_q, behaviour_cloning, ilql   one algorithm each
recording, reading, run_folder files of episodes and runs
checkpointing, interrupts      checkpoints every k updates, Ctrl-C between updates
evaluation, intervals          evaluation on held-out prompts while training, confidence intervals
sample_texts                   texts of a training, printed and for TensorBoard
decoding                       policies without learning: random, greedy, sampling, beam, best of n, tree search
sb3                            the same policies for stock Stable-Baselines3
reward_hacking                 search for texts that exploit a scorer
inspection                     what each token was worth, why it was chosen, what an update did to it
"""

import pkgutil

import textgym.lm  # noqa: F401 (raises with the package to install where torch is missing)
from textgym_agents.a2c import A2C, A2CConfig
from textgym_agents.agent import Agent
from textgym_agents.backbone import LMBackbone
from textgym_agents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from textgym_agents.branching import BranchValues, EpisodeStates, branch, episode_states
from textgym_agents.callbacks import Callback
from textgym_agents.checkpointing import Checkpoint
from textgym_agents.config import AgentConfig, CriticConfig, DiscountConfig, OfflineAgentConfig, OnlineAgentConfig
from textgym_agents.dqn import DQN, DQNConfig
from textgym_agents.episodes import Episodes
from textgym_agents.evaluation import Evaluate, EvaluationConfig, pass_at_k
from textgym_agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from textgym_agents.grpo import GRPO, GRPOConfig
from textgym_agents.ilql import ILQL, ILQLConfig, ILQLPolicy
from textgym_agents.offline import OfflineAgent
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import BasePolicy, LMPolicy
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.q_policy import QPolicy
from textgym_agents.reading import read_episodes
from textgym_agents.recording import EpisodeRecorder
from textgym_agents.reference import KLConfig
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import collect, env_seed
from textgym_agents.run_folder import RunFolder
from textgym_agents.sample_texts import SampleTexts
from textgym_agents.soft_q import OfflineSoftQ, OfflineSoftQConfig, SoftQ, SoftQConfig
from textgym_agents.value_function import FittedValueFunction, ValueFunction, ValueInputs

__all__ = [
    "A2C",
    "DQN",
    "GRPO",
    "ILQL",
    "PPO",
    "A2CConfig",
    "Agent",
    "AgentConfig",
    "BasePolicy",
    "BehaviourCloning",
    "BehaviourCloningConfig",
    "BranchValues",
    "Callback",
    "Checkpoint",
    "CriticConfig",
    "DQNConfig",
    "DiscountConfig",
    "EpisodeRecorder",
    "EpisodeStates",
    "Episodes",
    "Evaluate",
    "EvaluationConfig",
    "ExpertIteration",
    "ExpertIterationConfig",
    "FittedValueFunction",
    "GRPOConfig",
    "ILQLConfig",
    "ILQLPolicy",
    "KLConfig",
    "LMBackbone",
    "LMPolicy",
    "OfflineAgent",
    "OfflineAgentConfig",
    "OfflineSoftQ",
    "OfflineSoftQConfig",
    "OnlineAgent",
    "OnlineAgentConfig",
    "PPOConfig",
    "QPolicy",
    "Reinforce",
    "ReinforceConfig",
    "RunFolder",
    "SampleTexts",
    "SoftQ",
    "SoftQConfig",
    "ValueFunction",
    "ValueInputs",
    "branch",
    "collect",
    "env_seed",
    "episode_states",
    "pass_at_k",
    "read_episodes",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *(module.name for module in pkgutil.iter_modules(__path__))])
