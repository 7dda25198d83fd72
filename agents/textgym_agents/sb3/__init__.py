"""Language models in stock Stable-Baselines3 and sb3-contrib algorithms, which stay as they are installed.

actor_critic    the language model as SB3's policy for PPO and A2C
bootstrap       V of episodes that a time limit cut off
rollout_buffer  their rollouts: ids once, whole stretches of episodes in a minibatch
maskable        both for sb3-contrib's MaskablePPO, with masks as bits
q_learning      Q-values on a language model, for SB3's DQN
replay_buffer   its replay: ids once, whole episodes in a minibatch
features        a frozen language model under any algorithm's own MLP
states          many states that are prefixes of few texts
spaces          which environments a language model can act in
optimizer       two learning rates under SB3's single one
callbacks       log-probabilities and progress for the environment; redistributed rewards
export          from an SB3 zip to a Hugging Face folder
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
    """Import what needs sb3-contrib when it is asked for."""
    if name not in ("MaskableEpisodeRolloutBuffer", "MaskableLMActorCriticPolicy"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from textgym_agents.sb3 import maskable

    return getattr(maskable, name)
