"""Agents whose policy is a language model.

backbone              the language model: incremental while acting, one forward over whole episodes while learning
policy             the language model as a policy with a value head
q_policy           the language model as a Q-function
episodes           whole episodes as arrays
rollout            collecting them from a vector environment
returns            returns and advantages
losses             the loss of each algorithm's paper, as pure functions
replay             whole episodes of the past
reference          the language model that training started from
agent              what all agents share: the loop of learn, predict, the gradient step, checkpoints
config             settings that all agents share, and how settings are checked
callbacks          the hooks of learn
policy_gradient    what the policy-gradient agents share: the KL to the reference
reinforce          REINFORCE with a choice of baselines
a2c                advantage actor-critic
ppo                proximal policy optimization
grpo               group-relative policy optimization, RLOO, Dr. GRPO
expert_iteration   imitation of one's own best texts
dqn                deep Q-learning
soft_q             path consistency: Q-learning whose policy is a softmax
offline            what the agents share that learn from recorded episodes
behaviour_cloning  imitation of recorded texts
ilql               implicit language Q-learning
imitation          the loss of those that imitate
decoding           no learning: random, greedy, sampling, beam, best of n, tree search
sb3                the policy and its buffers for stock Stable-Baselines3
reward_hacking     search for texts that exploit a scorer
recording          episodes as JSON lines or Parquet
metrics            what an update tells about itself
checkpoint         weights as safetensors, settings as JSON
run_folder         metrics as CSV and TensorBoard, the learning curve as PNG
"""

import pkgutil

import textgym.lm  # noqa: F401 (says what to install where torch is missing)
from textgym_agents.a2c import A2C, A2CConfig
from textgym_agents.agent import Agent, OnlineAgent
from textgym_agents.backbone import LMBackbone
from textgym_agents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from textgym_agents.callbacks import Callback
from textgym_agents.config import AgentConfig, OfflineAgentConfig, OnlineAgentConfig
from textgym_agents.dqn import DQN, DQNConfig
from textgym_agents.episodes import Episodes
from textgym_agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from textgym_agents.grpo import GRPO, GRPOConfig
from textgym_agents.ilql import ILQL, ILQLConfig, ILQLPolicy
from textgym_agents.offline import OfflineAgent
from textgym_agents.policy import LMPolicy
from textgym_agents.policy_gradient import PolicyGradientConfig
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.q_policy import QPolicy
from textgym_agents.recording import EpisodeRecorder, read_episodes
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import collect, env_seed
from textgym_agents.run_folder import RunFolder
from textgym_agents.soft_q import OfflineSoftQ, OfflineSoftQConfig, SoftQ, SoftQConfig

__all__ = [
    "A2C",
    "DQN",
    "GRPO",
    "ILQL",
    "PPO",
    "A2CConfig",
    "Agent",
    "AgentConfig",
    "BehaviourCloning",
    "BehaviourCloningConfig",
    "Callback",
    "DQNConfig",
    "EpisodeRecorder",
    "Episodes",
    "ExpertIteration",
    "ExpertIterationConfig",
    "GRPOConfig",
    "ILQLConfig",
    "ILQLPolicy",
    "LMBackbone",
    "LMPolicy",
    "OfflineAgent",
    "OfflineAgentConfig",
    "OfflineSoftQ",
    "OfflineSoftQConfig",
    "OnlineAgent",
    "OnlineAgentConfig",
    "PPOConfig",
    "PolicyGradientConfig",
    "QPolicy",
    "Reinforce",
    "ReinforceConfig",
    "RunFolder",
    "SoftQ",
    "SoftQConfig",
    "collect",
    "env_seed",
    "read_episodes",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *(module.name for module in pkgutil.iter_modules(__path__))])
