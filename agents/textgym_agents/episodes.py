"""Whole episodes as arrays: what the policy wrote, where in the text it stands, and what it earned."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Episodes", "following"]


@dataclass(repr=False)
class Episodes:
    """B whole episodes, right-padded: ids as they stand in the text, and (B, T) arrays with one entry per action.

    Step t of episode b chose the token ``ids[b, positions[b, t]]`` in the state of all tokens before it. What stands
    between two of these, a simulated user wrote; without one, each stands right after the one before.
    """

    ids: torch.Tensor
    """(B, W) int64, prompt and completion, then 0."""
    prompt_lengths: torch.Tensor
    """(B,) int64 tokens."""
    num_steps: torch.Tensor
    """(B,) int64 actions, at least 1."""
    rewards: torch.Tensor
    """(B, T) float32, 0 after the end."""
    log_probs: torch.Tensor
    """(B, T) float32, log-probability of each action under the policy that chose it, in nats."""
    values: torch.Tensor
    """(B, T) float32, V of each state under the policy that acted in it; 0 where it has no value head."""
    truncated: torch.Tensor
    """(B,) bool, cut off by the budget rather than ended."""
    action_masks: npt.NDArray[np.uint8] | None
    """(B, T, ceil(V / 8)) bits of the legal actions, as ``numpy.packbits`` packs them; None where all are legal."""
    infos: list[dict[str, Any]]
    """B times the last step's info."""
    positions: torch.Tensor = None  # type: ignore[assignment]
    """(B, T) int64, the column of ``ids`` that holds the token chosen in each step, rising, 0 after the end. By default
    the columns that follow the prompt."""
    text_lengths: torch.Tensor = None  # type: ignore[assignment]
    """(B,) int64 tokens, a user's closing words after the last action included; there are none by default."""

    def __post_init__(self) -> None:
        if self.positions is None:
            self.positions = following(self.prompt_lengths, self.mask)
        if self.text_lengths is None:
            self.text_lengths = self.lengths

    @property
    def lengths(self) -> torch.Tensor:
        """(B,) int64, tokens up to and with the last action."""
        return self.positions.gather(1, self.num_steps[:, None] - 1)[:, 0] + 1

    @property
    def mask(self) -> torch.Tensor:
        """(B, T) bool, True at the steps that were taken."""
        return torch.arange(self.rewards.shape[1]) < self.num_steps[:, None]

    @property
    def returns(self) -> torch.Tensor:
        """(B,) float32, undiscounted."""
        return self.rewards.sum(dim=1)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(B,) bool, False where the scorer failed and the environment's policy was to go on without a score."""
        return np.array([not math.isnan(info.get("score", 0.0)) for info in self.infos])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size, tokens = f"B={len(self)}, T={self.rewards.shape[1]}", int(self.num_steps.sum())
        return f"Episodes({size}, tokens={tokens}, mean_return={float(self.returns.mean()):.3g})"

    def __getitem__(self, index: npt.NDArray[np.int64] | slice) -> "Episodes":
        """Return the episodes of an index array or a slice; T stays, ids are cut to the longest text."""
        chosen = np.arange(len(self))[index]
        numbers = torch.from_numpy(chosen)
        width = int(self.text_lengths[numbers].max())
        return Episodes(
            ids=self.ids[numbers, :width],
            prompt_lengths=self.prompt_lengths[numbers],
            num_steps=self.num_steps[numbers],
            rewards=self.rewards[numbers],
            log_probs=self.log_probs[numbers],
            values=self.values[numbers],
            truncated=self.truncated[numbers],
            action_masks=None if self.action_masks is None else self.action_masks[chosen],
            infos=[self.infos[i] for i in chosen.tolist()],
            positions=self.positions[numbers],
            text_lengths=self.text_lengths[numbers],
        )

    def groups(self) -> torch.Tensor:
        """Return (B,) int64, the group of each episode; all are one where the environment deals no groups."""
        return torch.tensor([int(info.get("group", 0)) for info in self.infos])

    def states(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (M,) rows and (M,) columns of the M states that were acted in: where the last token of each stands."""
        rows, steps = self.mask.nonzero(as_tuple=True)
        return rows, self.positions[rows, steps] - 1

    def spread(self, flat: torch.Tensor) -> torch.Tensor:
        """Return (B, T) float32 on the CPU from (M,) values of the steps that were taken, 0 elsewhere."""
        mask = self.mask
        return torch.zeros(mask.shape).masked_scatter(mask, flat.float().cpu())

    def legal_actions(self, vocab_size: int) -> torch.Tensor | None:
        """Return (M, V) bool, the masks of the M steps that were taken, unpacked; None where all was legal."""
        if self.action_masks is None:
            return None
        bits = np.unpackbits(self.action_masks[self.mask.numpy()], axis=1, count=vocab_size)
        return torch.from_numpy(bits.view(np.bool_))


def following(prompt_lengths: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (B, T) int64, where T tokens stand that follow prompts of (B,) lengths; 0 where the (B, T) mask is False.

    >>> following(torch.tensor([4, 2]), torch.tensor([[True, True], [True, False]]))
    tensor([[4, 5],
            [2, 0]])
    """
    return (prompt_lengths[:, None] + torch.arange(mask.shape[1])) * mask
