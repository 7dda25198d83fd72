"""Replay buffer of whole episodes, which stores each text once instead of one window per transition."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from textgym_agents.episodes import Episodes

__all__ = ["EpisodeReplay"]

_FILE = "replay.safetensors"


class EpisodeReplay:
    """The last ``capacity`` episodes, in arrays that grow until they are full.

    Rows have the width of the longest text: an episode takes 4 bytes per token, 12 per step for reward, log-probability
    and position, and V / 8 per step if masks are recorded. Values and infos are not stored.

    Args:
        capacity: Maximum number of episodes; new ones then replace the oldest.

    Raises:
        ValueError: If ``capacity`` is less than 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 episode, got {capacity!r}")
        self.capacity = capacity
        self._arrays: dict[str, npt.NDArray[np.generic]] = {}
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, episodes: Episodes) -> None:
        """Append B episodes, in time independent of the number stored.

        Raises:
            ValueError: If only the new or only the stored episodes have masks.
        """
        new = _stored(episodes[-self.capacity :] if len(episodes) > self.capacity else episodes)
        if self._arrays and new.keys() != self._arrays.keys():
            raise ValueError("episodes with and without action masks do not fit into one replay")
        count = len(new["num_steps"])
        indices = (self._next + np.arange(count)) % self.capacity
        for name, rows in new.items():
            self._arrays[name] = _with_room(self._arrays.get(name), rows, int(indices.max()) + 1, self.capacity)
            self._arrays[name][indices] = _widened(rows, self._arrays[name].shape[1:])
        self._next = int(indices[-1] + 1) % self.capacity
        self._size = min(self._size + count, self.capacity)

    def sample(self, num_episodes: int, generator: torch.Generator) -> Episodes:
        """Draw episodes uniformly, with replacement.

        Raises:
            ValueError: If the replay is empty.
        """
        if not self._size:
            raise ValueError("the replay is empty: add episodes before drawing from it")
        chosen = torch.randint(self._size, (num_episodes,), generator=generator, device=generator.device)
        rows = {name: array[chosen.cpu().numpy()] for name, array in self._arrays.items()}
        width, longest = int(rows["text_lengths"].max()), int(rows["num_steps"].max())
        steps = {name: torch.from_numpy(rows[name][:, :longest]) for name in ("rewards", "log_probs")}
        return Episodes(
            ids=torch.from_numpy(rows["ids"][:, :width].astype(np.int64)),
            prompt_lengths=torch.from_numpy(rows["prompt_lengths"]),
            num_steps=torch.from_numpy(rows["num_steps"]),
            rewards=steps["rewards"],
            log_probs=steps["log_probs"],
            values=torch.zeros_like(steps["rewards"]),
            truncated=torch.from_numpy(rows["truncated"]),
            action_masks=rows["action_masks"][:, :longest] if "action_masks" in rows else None,
            infos=[{} for _ in range(num_episodes)],
            positions=torch.from_numpy(rows["positions"][:, :longest].astype(np.int64)),
            text_lengths=torch.from_numpy(rows["text_lengths"]),
        )

    def save(self, folder: Path) -> None:
        """Write the episodes into a file in the folder."""
        rows = {name: torch.from_numpy(array[: self._size]) for name, array in self._arrays.items()}
        save_file({**rows, "next": torch.tensor(self._next)}, folder / _FILE)

    def load(self, folder: Path, state: None = None) -> None:
        """Restore what ``save`` of a replay of the same capacity wrote."""
        stored = load_file(folder / _FILE)
        self._arrays = {name: tensor.numpy().copy() for name, tensor in stored.items() if name != "next"}
        self._next = int(stored["next"])
        self._size = len(self._arrays["num_steps"]) if self._arrays else 0


def _stored(episodes: Episodes) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays to store of B episodes."""
    masks = {} if episodes.action_masks is None else {"action_masks": episodes.action_masks}
    return {
        "ids": episodes.ids.numpy().astype(np.int32),
        "prompt_lengths": episodes.prompt_lengths.numpy(),
        "num_steps": episodes.num_steps.numpy(),
        "rewards": episodes.rewards.numpy(),
        "log_probs": episodes.log_probs.numpy(),
        "truncated": episodes.truncated.numpy(),
        "positions": episodes.positions.numpy().astype(np.int32),
        "text_lengths": episodes.text_lengths.numpy(),
        **masks,
    }


def _widened(rows: npt.NDArray[np.generic], shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Return rows padded with 0 to a larger shape."""
    return np.pad(rows, [(0, 0), *((0, width - have) for have, width in zip(rows.shape[1:], shape, strict=True))])


def _with_room(
    array: npt.NDArray[np.generic] | None, rows: npt.NDArray[np.generic], num_rows: int, capacity: int
) -> npt.NDArray[np.generic]:
    """Return ``array`` with room for ``num_rows`` rows as large as the new ones, doubling the number of rows."""
    old = np.zeros((0, *rows.shape[1:]), dtype=rows.dtype) if array is None else array
    needed = (num_rows, *rows.shape[1:])
    if all(have >= need for have, need in zip(old.shape, needed, strict=True)):
        return old
    num_rows = len(old) if len(old) >= num_rows else min(max(num_rows, 2 * len(old)), capacity)
    shape = num_rows, *map(max, old.shape[1:], needed[1:])
    grown = np.zeros(shape, dtype=rows.dtype)
    grown[tuple(map(slice, old.shape))] = old
    return grown
