"""The ids that ``gym.make`` and ``gym.make_vec`` know once textgym is imported."""

import gymnasium as gym

__all__ = ["register_envs"]


def register_envs() -> None:
    """Register every environment of the package; ``import textgym`` calls it."""
    gym.register(
        id="TextGen-v0",
        entry_point="textgym.envs.single:TextGenEnv",
        vector_entry_point="textgym.envs.vector:TextGenVectorEnv",
    )
