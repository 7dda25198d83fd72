"""One batched core, and its interfaces for Gymnasium, Gymnasium's vector API and Stable-Baselines3."""

from typing import TYPE_CHECKING, Any

from textgym.envs.config import TextGenConfig
from textgym.envs.single import TextGenEnv
from textgym.envs.vector import TextGenVectorEnv

if TYPE_CHECKING:
    from textgym.envs.sb3 import TextGenVecEnv

__all__ = ["TextGenConfig", "TextGenEnv", "TextGenVecEnv", "TextGenVectorEnv"]


def __getattr__(name: str) -> Any:
    """Import the Stable-Baselines3 interface, and with it torch, on first access."""
    if name == "TextGenVecEnv":
        from textgym.envs.sb3 import TextGenVecEnv

        return TextGenVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
