"""The objects an environment is assembled from, each behind its contract."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from textgym.actions import Actions
from textgym.constraints import Constraint
from textgym.endings import Ending
from textgym.observations import Observation
from textgym.prompts import PromptEncoder, PromptSource
from textgym.rewards import AdaptiveCoefficient, Reference, Reward
from textgym.scorers import Scorer
from textgym.tokenizers import Tokenizer
from textgym.users import User

__all__ = ["Dialogue", "EnvComponents", "KLTerm", "ScoreBounds"]


@dataclass(frozen=True)
class KLTerm:
    """A coefficient times the per-token KL to ``reference``."""

    coefficient: AdaptiveCoefficient
    reference: Reference
    estimator: Literal["k1", "k3"]

    def clear(self) -> None:
        """Clear what the reference has cached, where it has a method for that."""
        if (clear := getattr(self.reference, "clear", None)) is not None:
            clear()


@dataclass(frozen=True)
class Dialogue:
    """Who answers the agent's turns, how often and how."""

    user: User
    max_turns: int
    max_reply_tokens: int
    """The most tokens of one reply with its frame."""
    reply_format: str
    """What is written, with ``{reply}`` in it; what stands behind it invites the agent to go on."""


ScoreBounds = tuple[float, float] | Mapping[Any, tuple[float, float]]
"""The scores that count as 0 and as 1, for all samples or by their metadata's ``level``."""


@dataclass(frozen=True, kw_only=True)
class EnvComponents:
    """Everything the core calls. Built by ``TextGenConfig.build``."""

    tokenizer: Tokenizer
    prompts: PromptSource
    encoder: PromptEncoder
    scorer: Scorer
    on_scorer_error: str | float
    reward: Reward
    endings: tuple[Ending, ...]
    constraint: Constraint | None
    actions: Actions
    observation: Observation
    kl: KLTerm | None
    max_new_tokens: int
    window: int
    """L, in tokens: ``max_prompt_tokens + max_new_tokens``, and room for the user's replies."""
    group_size: int
    budget_terminates: bool
    on_invalid_action: Literal["raise", "terminate", "ignore"]
    invalid_action_penalty: float
    reports_reward_vector: bool
    reports_action_mask: bool
    dialogue: Dialogue | None
    score_bounds: ScoreBounds | None
    observes_episodes: bool = True
    """Whether shared components, the scorers, observe the episodes that end; False in clones."""
