"""Token-by-token text generation as a Gymnasium environment.

``import textgym`` registers the environments, imports neither torch nor Stable-Baselines3, and leads to:

    envs          the environment and its three faces
    prompts       where an episode starts
    actions       what an action means
    constraints   which actions are legal
    endings       when an episode stops
    scorers       what a text is worth
    rewards       how scores become step rewards
    observations  what the agent sees
    rendering     what a person sees
    lm            language models and their incremental stream (imports torch)
    tasks         ready environments: the probes, and the world that the embedded LM learned from
    testing       the contracts as functions that check an implementation
"""

from typing import TYPE_CHECKING, Any

from textgym.batch import TextBatch
from textgym.envs import TextGenConfig, TextGenEnv, TextGenVectorEnv
from textgym.errors import IllegalActionError, PromptsExhaustedError, ScorerError, TextGymError
from textgym.prompts import Sample
from textgym.registration import describe, register_env, register_envs
from textgym.version import __version__

if TYPE_CHECKING:
    from textgym.envs.sb3 import TextGenVecEnv

__all__ = [
    "IllegalActionError",
    "PromptsExhaustedError",
    "Sample",
    "ScorerError",
    "TextBatch",
    "TextGenConfig",
    "TextGenEnv",
    "TextGenVecEnv",
    "TextGenVectorEnv",
    "TextGymError",
    "__version__",
    "describe",
    "register_env",
]

register_envs()


def __getattr__(name: str) -> Any:
    """Import the Stable-Baselines3 face, and with it torch, only when it is asked for."""
    if name == "TextGenVecEnv":
        from textgym.envs.sb3 import TextGenVecEnv

        return TextGenVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
