"""What the core returns to the interfaces from a reset and a step."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.envs.episode_end import EpisodeEnd

__all__ = ["FinalState", "State", "Step"]


class State(NamedTuple):
    """What the agent sees next."""

    observation: Any
    """Fresh observations with N in front."""
    action_masks: npt.NDArray[np.bool_] | None
    """(N, num_actions) bool; None where ``step_info`` does not ask for them."""
    scorer_errors: dict[int, str]
    """Errors of a reward that scores the prompts of new episodes alone, by slot, where the policy is not to raise."""


class FinalState(NamedTuple):
    """What the agent sees last of the K episodes that ended, whose slots have started new ones."""

    observation: Any
    """Observations with K in front."""
    action_masks: npt.NDArray[np.bool_] | None
    """(N, num_actions) bool, meant for the K slots only; None where ``step_info`` does not ask for them."""


class Step(NamedTuple):
    """Outcome of one step of N slots; rewards and flags are 0 and False in slots that did not play."""

    rewards: npt.NDArray[np.float64]
    """(N,) float64."""
    terminated: npt.NDArray[np.bool_]
    """(N,) bool."""
    truncated: npt.NDArray[np.bool_]
    """(N,) bool."""
    state: State
    """After the step, and after the resets that belong to it."""
    invalid: npt.NDArray[np.bool_] | None = None
    """(N,) bool where some action was invalid and the policy is not to raise, else None."""
    episode_end: EpisodeEnd | None = None
    """The episodes that ended in this step, or None."""
    final: FinalState | None = None
    """Of ended episodes whose slots have started anew in this very step, or None."""
    reward_vectors: npt.NDArray[np.float64] | None = None
    """(N, K) float64, the final scores of the scorer's K components, 0 where no episode ended; None if not wanted."""
    played: npt.NDArray[np.bool_] | None = None
    """(N,) bool, the slots that wrote a token; None where all did."""
    scorer_errors: dict[int, str] = {}  # noqa: RUF012 (never changed)
    """Errors of the scorer, by the slot they affect, where the policy is not to raise."""
