"""Checkpoints of an agent in the course of its training."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

from textgym_agents.callbacks import Callback, Schedule, Unit
from textgym_agents.checkpoint import numbered_checkpoints
from textgym_agents.config import check_count

__all__ = ["Checkpoint"]

_LEFTOVER = re.compile(r"\.\d{12}(-.*)?")
"""Folders that a killed program was writing or deleting."""


class Checkpoint(Callback):
    """Callback that saves the agent every k updates or tokens: ``agent.learn(9_999, callback=Checkpoint("run", 20))``.

    A checkpoint is a folder of ``agent.save`` named by its number of tokens in twelve digits. It appears only when it
    is complete, then older ones are deleted. ``PPO.load("run", env)`` resumes from the newest, with the schedules and
    states of callbacks such as ``Evaluate``.

    One is saved when training ends too, also by an exception or Ctrl-C; but not if the exception interrupted an update,
    after which the agent does not resume exactly, unless there is no other. After Ctrl-C the call that goes on is
    printed to stderr.

    Args:
        folder: The folder of the checkpoints; created when the first is saved.
        every: k. None saves only when training ends.
        unit: ``"updates"``, of ``learn``, or ``"tokens"``: after the first update at or past each multiple of k.
        keep: Number of checkpoints that are kept, the newest ones.

    Raises:
        ValueError: If ``every`` or ``keep`` is below 1, or ``unit`` is unknown.
        TypeError: If ``every`` or ``keep`` is not an integer.
    """

    def __init__(self, folder: str | Path, every: int | None = None, *, unit: Unit = "updates", keep: int = 1) -> None:
        self.folder, self.keep = Path(folder), check_count("keep", keep)
        self._schedule = Schedule(every, unit)
        self._saved: tuple[int, ...] | None = None

    def on_training_start(self, agent: Any) -> None:
        """Check that the folder is not that of another or a longer training.

        Raises:
            FileExistsError: If it holds checkpoints of more tokens than the agent's.
        """
        found = numbered_checkpoints(self.folder)
        if found and int(found[-1].name) > agent.num_timesteps:
            raise FileExistsError(
                f"{self.folder} holds a checkpoint after {int(found[-1].name):,} tokens, the agent has "
                f"{agent.num_timesteps:,}: load that checkpoint, choose another folder, or delete the later checkpoints"
            )
        for path in self.folder.glob(".*"):
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path)
        self._schedule.start(agent)

    def on_update_complete(self, agent: Any, metrics: dict[str, float]) -> None:
        """Save the agent if it is time to."""
        if self._schedule.advance(agent):
            self._save(agent)

    def on_training_end(self, agent: Any) -> None:
        """Save the agent, unless that is done or the training was interrupted within an update."""
        is_wanted = not agent.is_in_update or not numbered_checkpoints(self.folder)
        if is_wanted and self._saved != _counters(agent):
            self._save(agent)
        newest = numbered_checkpoints(self.folder)[-1]
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            source = "env" if hasattr(agent, "env") else "data"
            print(
                f"{newest} holds {int(newest.name):,} of {agent.planned_timesteps:,} tokens. To go on:\n"
                f"agent = {type(agent).__name__}.load({str(self.folder)!r}, {source})\n"
                "agent.learn(agent.planned_timesteps - agent.num_timesteps)",
                file=sys.stderr,
            )

    def get_state(self) -> dict[str, Any]:
        """Return the state of the schedule."""
        return self._schedule.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state of the schedule."""
        self._schedule.set_state(state)

    def _save(self, agent: Any) -> None:
        agent.save(self.folder / f"{agent.num_timesteps:012d}")
        self._saved = _counters(agent)
        for old in numbered_checkpoints(self.folder)[: -self.keep]:
            doomed = old.rename(old.with_name(f".{old.name}"))  # so that none is ever seen in part
            shutil.rmtree(doomed)


def _counters(agent: Any) -> tuple[int, ...]:
    return agent.num_timesteps, agent.num_updates, agent.planned_timesteps
