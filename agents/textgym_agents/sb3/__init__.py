"""Language models in stock Stable-Baselines3 and sb3-contrib algorithms, which are not modified.

on_policy   actor-critic policy and rollout buffer for PPO and A2C
maskable    the same for sb3-contrib's MaskablePPO, with masks as bits
dqn         Q-function and replay buffer for DQN
features    a frozen language model as features extractor of any algorithm
callbacks   reports of log-probabilities and progress; redistributed rewards
export      SB3 models and zips to Hugging Face folders
base        states as prefixes of texts, checks of spaces, the optimizer
"""

from typing import TYPE_CHECKING, Any

from textgym.errors import install_hint

try:
    import stable_baselines3  # noqa: F401
except ImportError as error:
    raise ImportError(f"textgym_agents.sb3 needs Stable-Baselines3: {install_hint('sb3')}") from error

from textgym_agents.sb3.callbacks import RedistributeRewards, ReportLogProbs, ReportProgress
from textgym_agents.sb3.dqn import EpisodeReplayBuffer, LMQPolicy
from textgym_agents.sb3.export import export_hf
from textgym_agents.sb3.features import LMFeatures
from textgym_agents.sb3.on_policy import EpisodeRolloutBuffer, LMActorCriticPolicy

if TYPE_CHECKING:
    from textgym_agents.sb3.maskable import MaskableEpisodeRolloutBuffer, MaskableLMActorCriticPolicy

__all__ = [
    "EpisodeReplayBuffer",
    "EpisodeRolloutBuffer",
    "LMActorCriticPolicy",
    "LMFeatures",
    "LMQPolicy",
    "MaskableEpisodeRolloutBuffer",
    "MaskableLMActorCriticPolicy",
    "RedistributeRewards",
    "ReportLogProbs",
    "ReportProgress",
    "export_hf",
]


def __getattr__(name: str) -> Any:
    """Import the classes that need sb3-contrib on first access."""
    if name not in ("MaskableEpisodeRolloutBuffer", "MaskableLMActorCriticPolicy"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from textgym_agents.sb3 import maskable

    return getattr(maskable, name)
