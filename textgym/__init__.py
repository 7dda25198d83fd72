"""Token-by-token text generation as a Gymnasium environment.

``import textgym`` registers the environments, imports neither torch nor Stable-Baselines3. The packages:

    envs          the batched core and its interfaces: Env, VectorEnv, SB3 VecEnv
    prompts       sources of prompts
    tokenizers    text to token ids and back
    actions       mappings from actions to tokens
    constraints   action masks
    users         simulated users who reply between the agent's turns
    endings       conditions that terminate an episode
    scorers       scores of texts
    rewards       step rewards made of scores
    observations  observations made of token ids
    rendering     text of a model as it is shown: terminal, pictures
    lm            language models and their incremental stream (imports torch)
    tasks         environments over data
    probes        environments with a known optimum, and exact solutions of small text MDPs
    testing       contract tests for your own implementations
"""

import pkgutil
from typing import TYPE_CHECKING, Any

from textgym.batch import TextBatch
from textgym.envs import TextGenConfig, TextGenEnv, TextGenVectorEnv
from textgym.errors import InvalidActionError, PromptsExhaustedError, ScorerError, TextGymError
from textgym.prompts import Sample
from textgym.registration import describe, register_env, register_envs
from textgym.version import __version__

if TYPE_CHECKING:
    from textgym.envs.sb3 import TextGenVecEnv

__all__ = [
    "InvalidActionError",
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


def __dir__() -> list[str]:
    return sorted([*__all__, *(module.name for module in pkgutil.iter_modules(__path__))])


def __getattr__(name: str) -> Any:
    """Import the Stable-Baselines3 interface, and with it torch, on first access."""
    if name == "TextGenVecEnv":
        from textgym.envs.sb3 import TextGenVecEnv

        return TextGenVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
