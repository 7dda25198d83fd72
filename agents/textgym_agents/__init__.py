"""Agents whose policy is a language model.

policy      the language model as a policy with a value head
rollout     whole episodes, collected from a vector environment
returns     discounted returns
losses      the loss of each algorithm's paper, as pure functions
reinforce   REINFORCE with a learned baseline
checkpoint  weights as safetensors, settings as JSON
run_folder  metrics as CSV and TensorBoard, the learning curve as PNG
"""

import textgym.lm  # noqa: F401 (says what to install where torch is missing)
from textgym_agents.policy import LMPolicy
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import Episodes, collect
from textgym_agents.run_folder import RunFolder

__all__ = ["Episodes", "LMPolicy", "Reinforce", "ReinforceConfig", "RunFolder", "collect"]
