"""With which settings the leaderboard's agents train, and on how many tokens."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["SETTINGS", "TIMESTEPS", "settings_of"]

TIMESTEPS: Mapping[str, int] = MappingProxyType(
    {"sentiment": 30_000, "dialogue": 20_000, "translation": 60_000, "qa": 30_000, "summary": 20_000}
)
"""Tokens per training, the same for all agents of a task. Answers of 3 tokens and of 30 take different budgets."""

_BATCH: Mapping[str, Any] = {"learning_rate": 3e-4, "kl_coef": 0.0, "num_episodes": 128}

SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "Reinforce": {**_BATCH, "group_size": 4},
        "PPO": {**_BATCH, "group_size": 4, "n_epochs": 1, "batch_size": None},
        "GRPO": {**_BATCH, "group_size": 16, "variant": "rloo"},
        "DQN": {
            "learning_rate": 1e-3,
            "num_episodes": 64,
            "group_size": 4,
            "q_lambda": 1.0,
            "gradient_steps": 1,
            "initial_temperature": 0.1,
            "final_temperature": 0.03,
        },
        "SB3 PPO": {"learning_rate": 3e-4, "kl_coef": 0.0, "n_steps": 32, "batch_size": 2048, "n_epochs": 1},
    }
)
"""By entry, for all tasks. What is not named here is the agent's default. Large batches and one pass over each:
the reward of one text says little, and what a noisy step breaks of the language model does not come back. Groups of one
prompt save computing it, and where the reward verifies an answer no KL is charged."""

EXCEPTIONS: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {(agent, "translation"): {"reward": "potential"} for agent in ("Reinforce", "PPO", "SB3 PPO")}
    | {(agent, "sentiment"): {"kl_coef": 0.03} for agent in ("Reinforce", "PPO", "GRPO", "SB3 PPO")}
    | {(agent, "qa"): {"learning_rate": 2e-4, "kl_coef": 0.01} for agent in ("Reinforce", "PPO", "SB3 PPO")}
    | {("GRPO", "qa"): {"learning_rate": 1e-4, "kl_coef": 0.02}}
)
"""By entry and task, what differs there. A translation is right or wrong word by word: the same score paid as it
rises, which changes no optimum (see ``textgym.rewards.Potential``), tells the words apart. Sentiment alone is easily
hacked, and a price on the KL keeps the texts readable. The sums among the questions are unlearned by larger steps."""


def settings_of(entry: str, task: str) -> dict[str, Any]:
    """Return the settings with which an entry trains on a task; those that do not train have none.

    >>> settings_of("greedy LM", "qa")
    {}
    """
    return {**SETTINGS.get(entry, {}), **EXCEPTIONS.get((entry, task), {})}
