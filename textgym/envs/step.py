"""What the core hands to the faces: the outcome of a step, and episodes that are ready to begin."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.envs.finished import Finished

__all__ = ["Beginning", "Step"]


class Beginning(NamedTuple):
    """New episodes that are ready to begin: nothing about them can fail any more."""

    slots: npt.NDArray[np.int64]
    """(n,) int64, where they are to run."""
    texts: TextBatch
    """What they begin with."""
    groups: Sequence[int]
    """n groups of prompts."""
    memory: npt.NDArray[Any]
    """(n,) values, what the reward remembers of them."""
    scorer_errors: dict[int, str]
    """What went wrong in a reward that scores the prompts alone, by slot, where the policy is not to raise."""


class Step(NamedTuple):
    """What one step of n slots gave."""

    rewards: npt.NDArray[np.float64]
    """(n,) float64."""
    terminated: npt.NDArray[np.bool_]
    """(n,) bool."""
    truncated: npt.NDArray[np.bool_]
    """(n,) bool."""
    illegal: npt.NDArray[np.bool_] | None
    """(n,) bool where some action was illegal and the policy is not to raise, else None."""
    finished: Finished | None
    """The episodes that ended in this step, or None."""
    reward_vectors: npt.NDArray[np.float64] | None
    """(n, K) float64, the final scores of the scorer's K parts, 0 where no episode ended; None if not wanted."""
    scorer_errors: dict[int, str]
    """What went wrong in the scorer, by the slot it affects, where the policy is not to raise."""
    beginning: Beginning | None = None
    """The episodes that ``Core.begin`` is to start next, where the step was asked to prepare some."""
