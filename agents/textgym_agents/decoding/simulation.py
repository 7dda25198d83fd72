"""Looking ahead: copies of an environment's episodes that go on apart from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.envs.core import Core
from textgym.envs.interface import CoreInterface, combine_snapshots, select_slots
from textgym_agents.policy import Policy
from textgym_agents.rollout import check_fit

__all__ = ["Simulation", "check_state", "mixed", "text_episodes"]


class Simulation:
    """M copies of an environment's N running episodes, none of which ever restarts.

    So no prompt is drawn, and neither the environment's state nor its generators change. Scorer, constraints, endings
    and a simulated user are the environment's own objects; the generators are copies, so that the user says here what
    it would say there.

    Args:
        env: The environment, any of the three interfaces.
        slots: (M,) int64, the slot that each copy starts as.
    """

    def __init__(self, env: CoreInterface, slots: npt.NDArray[np.int64]) -> None:
        self._core = Core(env.clone().core.components, len(slots))  # what moves as episodes end is the clone's own
        self.state = select_slots(env.get_state(), slots)

    @property
    def state(self) -> dict[str, Any]:
        """A snapshot; setting one goes back to it."""
        return self._core.get_state()

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._core.set_state(state)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """(M, L) int64, texts right-padded with V; they grow in place."""
        return self._core.ids

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(M,) int64 tokens of the texts; a copy."""
        return self._core.lengths.copy()

    @property
    def running(self) -> npt.NDArray[np.bool_]:
        """(M,) bool, texts that have not ended; a copy."""
        return self._core.running.copy()

    def masks(self) -> npt.NDArray[np.bool_] | None:
        """Return (M, V) bool, the legal tokens; None where all always are."""
        if self._core.masking.all_valid:
            return None
        return self._core.action_masks() | ~self._core.running[:, None]  # an ended text may have no legal token left

    def rearrange(self, sources: npt.NDArray[np.int64]) -> None:
        """Let copy i become what copy ``sources[i]`` is; (M,) int64."""
        self.state = select_slots(self.state, sources)

    def step(
        self, actions: npt.NDArray[np.int64], log_probs: npt.NDArray[np.floating], which: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Write a token in each text that ``which`` marks, (M,) bool, and return (M,) float64 rewards, 0 elsewhere.

        Args:
            actions: (M,) tokens.
            log_probs: (M,) log pi(a|s), for a KL term in the reward.
            which: (M,) bool.
        """
        if not which.any():
            return np.zeros(len(actions))
        self._core.set_log_probs(log_probs)
        return self._core.step(actions, where=which).rewards


def text_episodes(env: Any, policy: Policy) -> CoreInterface:
    """Return the TextGen environment of any interface under any wrappers.

    Raises:
        TypeError: If there is none.
        ValueError: If its actions are not the policy's tokens.
    """
    base = getattr(env, "unwrapped", env)
    if not isinstance(base, CoreInterface):
        raise TypeError(f"looking ahead needs an environment of the TextGen family, got {type(base).__name__}")
    check_fit(base, policy)  # type: ignore[arg-type]  # all three interfaces have what it reads
    return base


def check_state(env: CoreInterface, ids: npt.NDArray[np.int64], slots: npt.NDArray[np.bool_]) -> None:
    """Check that N texts are the unfinished ones that the environment is at, in the (N,) bool slots that matter.

    Raises:
        ValueError: If they are not: the texts come from another environment.
    """
    core = env.core
    if ids.shape != core.ids.shape or (ids != core.ids)[slots].any() or not core.running[slots].all():
        raise ValueError(
            "the observation is not the present state of the environment that this decoder looks ahead in; give it "
            "the very environment that is being played"
        )


def mixed(snapshots: Sequence[dict[str, Any]], which: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the snapshot in which slot i is as in ``snapshots[which[i]]``."""
    places = list(enumerate(which.tolist()))

    def entries(values: Sequence[Any]) -> Any:
        chosen = [values[k][i] for i, k in places]
        return np.stack(chosen) if isinstance(values[0], np.ndarray) else chosen

    return combine_snapshots(entries, snapshots)
