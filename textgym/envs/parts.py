"""The objects an environment is assembled from, each behind its contract."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from textgym.actions import Actions
from textgym.constraints import Constraint
from textgym.endings import Ending
from textgym.observations import Observation
from textgym.prompts import PromptEncoder, PromptSource
from textgym.rewards import AdaptiveCoefficient, Reward
from textgym.scorers import Scorer
from textgym.tokenizers import Tokenizer

__all__ = ["KLTerm", "Parts", "Reference"]


class Reference(Protocol):
    """The language model that the KL term measures against."""

    def log_probs(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], actions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return (N,) float64 log-probabilities, in nats, of (N,) tokens after (N, L) texts of (N,) lengths."""
        ...


@dataclass(frozen=True)
class KLTerm:
    """The price of a nat times the per-token KL to ``reference``."""

    price: AdaptiveCoefficient
    reference: Reference
    estimator: Literal["k1", "k3"]


@dataclass(frozen=True, kw_only=True)
class Parts:
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
    """L, in tokens: ``max_prompt_tokens + max_new_tokens``."""
    group_size: int
    budget_terminates: bool
    on_illegal_action: Literal["raise", "terminate", "ignore"]
    illegal_action_penalty: float
    tells_reward_vector: bool
