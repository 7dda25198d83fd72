"""Agents whose policy is a language model.

trunk            the language model: incremental while acting, one forward over whole episodes while learning
policy           the language model as a policy with a value head
rollout          whole episodes, collected from a vector environment
returns          returns and advantages
losses           the loss of each algorithm's paper, as pure functions
reference        the language model that training started from
agent            what all agents share: the loop of learn, predict, the gradient step, checkpoints
policy_gradient  what the policy-gradient agents share: the KL to the reference, minibatches
reinforce        REINFORCE with a choice of baselines
a2c              advantage actor-critic
ppo              proximal policy optimization
grpo             group-relative policy optimization, RLOO, Dr. GRPO
checkpoint       weights as safetensors, settings as JSON
run_folder       metrics as CSV and TensorBoard, the learning curve as PNG
"""

import textgym.lm  # noqa: F401 (says what to install where torch is missing)
from textgym_agents.a2c import A2C, A2CConfig
from textgym_agents.agent import Agent, AgentConfig
from textgym_agents.grpo import GRPO, GRPOConfig
from textgym_agents.policy import LMPolicy
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import Episodes, collect
from textgym_agents.run_folder import RunFolder
from textgym_agents.trunk import LMTrunk

__all__ = [
    "A2C",
    "GRPO",
    "PPO",
    "A2CConfig",
    "Agent",
    "AgentConfig",
    "Episodes",
    "GRPOConfig",
    "LMPolicy",
    "LMTrunk",
    "PPOConfig",
    "Reinforce",
    "ReinforceConfig",
    "RunFolder",
    "collect",
]
