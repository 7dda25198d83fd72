"""Whole episodes as arrays: token ids, and rewards, log-probabilities and values of each action."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from textgym.prompts import Sample
from textgym.tokenizers import Tokenizer, fingerprint
from textgym_agents.token_stats import EpisodeStats

__all__ = ["EpisodeStart", "Episodes", "default_positions"]


class EpisodeStart(NamedTuple):
    """What an environment knew of an episode when it started, besides the ids of the prompt."""

    sample: Sample
    """The sample of the prompt source, with its references and metadata."""
    prefix_length: int = 0
    """Tokens at the end of the prompt that count as the start of the completion, from the reset option ``prefix``."""
    rng_state: dict[str, Any] | None = None
    """State of the episode's generator, by which a simulated user replies; None without a user."""


@dataclass(repr=False)
class Episodes:
    """B whole episodes, right-padded: the token ids, and (B, T) arrays with one entry per action.

    Step t of episode b chose the token ``ids[b, positions[b, t]]`` in the state of all tokens before it. Tokens of a
    simulated user may lie between two actions; without one, actions are adjacent.
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
    """(B, T) float32, V(s_t) of the policy that acted; 0 without a value head."""
    truncated: torch.Tensor
    """(B,) bool, cut off by the time limit."""
    action_masks: npt.NDArray[np.uint8] | None
    """(B, T, ceil(V / 8)) bits of the valid actions, as ``numpy.packbits`` packs them; None where all are valid."""
    infos: list[dict[str, Any]]
    """Final info of each episode."""
    positions: torch.Tensor = None  # type: ignore[assignment]
    """(B, T) int64, rising, the column of ``ids`` with the token of each step, 0 after the end. By default the columns
    after the prompt."""
    text_lengths: torch.Tensor = None  # type: ignore[assignment]
    """(B,) int64 tokens, with a user's reply after the last action. By default there is none."""
    reference_log_probs: torch.Tensor | None = None
    """(B, T) float32, log pi_ref(a_t|s_t) in nats, set by the update of an agent with a KL penalty."""
    advantages: torch.Tensor = None  # type: ignore[assignment]
    """(B, T) float32, A_t, set by the update of a policy-gradient agent."""
    value_targets: torch.Tensor = None  # type: ignore[assignment]
    """(B, T) float32, the regression target of V(s_t), set by the update of an agent that learns V."""
    stats: EpisodeStats | None = None
    """Entropy, rank, mask size and alternatives of each step, if ``collect`` was given ``num_alternatives``."""
    starts: list[EpisodeStart | None] | None = None
    """What each episode started from besides its prompt's ids, None where unknown."""
    tokenizer: Tokenizer | None = None
    """Tokenizer of the environment that they were collected in; None for episodes of a file."""
    vocabulary: str | None = None
    """Fingerprint of the vocabulary that the episodes of a file were recorded with, if it is known."""
    texts: dict[int, str] | None = None
    """Text of each id in the completions of a file, for display, if they were recorded."""

    def __post_init__(self) -> None:
        if self.positions is None:
            self.positions = default_positions(self.prompt_lengths, self.mask)
        if self.text_lengths is None:
            self.text_lengths = self.action_ends

    @property
    def action_ends(self) -> torch.Tensor:
        """(B,) int64, column of ``ids`` after the token of the last action."""
        return self.positions.gather(1, self.num_steps[:, None] - 1)[:, 0] + 1

    @property
    def mask(self) -> torch.Tensor:
        """(B, T) bool, True at the steps taken."""
        return torch.arange(self.rewards.shape[1]) < self.num_steps[:, None]

    @property
    def returns(self) -> torch.Tensor:
        """(B,) float32, undiscounted."""
        return self.rewards.sum(dim=1)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(B,) bool, False where the scorer failed under ``on_scorer_error="invalid"``."""
        return np.array([not math.isnan(info.get("score", 0.0)) for info in self.infos])

    def check_vocabulary(self, tokenizer: Tokenizer) -> None:
        """Raise a ValueError if it is known that the ids are of another vocabulary than the tokenizer's."""
        known = self.vocabulary
        if known is None and self.tokenizer is not None and self.tokenizer is not tokenizer:
            known = fingerprint(self.tokenizer)
        if known is not None and known != (own := fingerprint(tokenizer)):
            raise ValueError(
                f"the episodes were recorded with another vocabulary (fingerprint {known}) than the tokenizer's "
                f"({own}): their ids mean other tokens; use the tokenizer or model that they were recorded with"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size, tokens = f"B={len(self)}, T={self.rewards.shape[1]}", int(self.num_steps.sum())
        return f"Episodes({size}, tokens={tokens}, mean_return={float(self.returns.mean()):.3g})"

    def __getitem__(self, index: npt.NDArray[np.int64] | slice) -> "Episodes":
        """Return the episodes of an index array or a slice; T stays, ids are cut to the longest text."""
        chosen = np.arange(len(self))[index]
        numbers = torch.from_numpy(chosen)

        def of_chosen(column: torch.Tensor | None) -> Any:
            return None if column is None else column[numbers]

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
            reference_log_probs=of_chosen(self.reference_log_probs),
            advantages=of_chosen(self.advantages),
            value_targets=of_chosen(self.value_targets),
            stats=None if self.stats is None else EpisodeStats(*map(of_chosen, self.stats)),
            starts=None if self.starts is None else [self.starts[i] for i in chosen.tolist()],
            tokenizer=self.tokenizer,
            vocabulary=self.vocabulary,
            texts=self.texts,
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Episodes"]) -> "Episodes":
        """Return the episodes of all parts, one after the other, padded to the longest.

        Tokenizer, vocabulary and texts of tokens are those of the first part.

        Raises:
            ValueError: If there are no parts, or only some of them have a column, such as advantages.
        """
        if not parts:
            raise ValueError("concatenate needs at least one part, got none")
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{name: _concatenated(name, values) for name, values in columns.items()})

    def groups(self) -> torch.Tensor:
        """Return (B,) int64, the group of each episode; one group where the environment has none."""
        return torch.tensor([int(info.get("group", 0)) for info in self.infos])

    def states(self, *, with_truncated: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row and column of the last token of each of the M visited states.

        Args:
            with_truncated: Append the K states in which the time limit cut episodes off.

        Returns:
            Two (M,) or (M + K,) int64 tensors.
        """
        rows, steps = self.mask.nonzero(as_tuple=True)
        columns = self.positions[rows, steps] - 1
        if with_truncated:
            cut = self.truncated.nonzero()[:, 0]
            rows, columns = torch.cat([rows, cut]), torch.cat([columns, (self.text_lengths - 1)[cut]])
        return rows, columns

    def actions(self) -> torch.Tensor:
        """Return (M,) int64, the tokens chosen in the M visited states."""
        rows, columns = self.states()
        return self.ids[rows, columns + 1]

    def valid_actions(self, vocab_size: int, *, with_truncated: bool = False) -> torch.Tensor | None:
        """Return (M, V) or (M + K, V) bool masks of the states of ``states``; None where all tokens were valid.

        All tokens count as valid in the K states that were cut off, whose masks are not recorded.
        """
        if self.action_masks is None:
            return None
        bits = np.unpackbits(self.action_masks[self.mask.numpy()], axis=1, count=vocab_size)
        valid = torch.from_numpy(bits.view(np.bool_))
        return F.pad(valid, (0, 0, 0, int(self.truncated.sum())), value=True) if with_truncated else valid

    def spread(self, flat: torch.Tensor) -> torch.Tensor:
        """Return (B, T) float32 on the CPU from (M,) values of the steps taken, 0 elsewhere."""
        mask = self.mask
        return torch.zeros(mask.shape).masked_scatter(mask, flat.float().cpu())

    def spread_values(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, T) values of the steps taken and (B,) of the truncated episodes' last states, 0 elsewhere.

        Args:
            flat: (M,) or (M + K,) values of the states of ``states``.
        """
        num_steps = int(self.num_steps.sum())
        last_values = torch.zeros(len(self))
        if len(flat) > num_steps:
            last_values[self.truncated] = flat[num_steps:].float().cpu()
        return self.spread(flat[:num_steps]), last_values


def _concatenated(name: str, values: list[Any]) -> Any:
    """Return one column of several episodes; what is not a column is that of the first."""
    first = values[0]
    if name in ("tokenizer", "vocabulary", "texts") or all(value is None for value in values):
        return first
    if (missing := sum(value is None for value in values)) > 0:
        raise ValueError(f"{missing} of {len(values)} parts have no {name}: give all of them the same columns")
    if isinstance(first, list):
        return [entry for value in values for entry in value]
    if isinstance(first, EpisodeStats):
        return EpisodeStats(*(_concatenated(name, list(column)) for column in zip(*values, strict=True)))
    if first.ndim > 1:
        width = max(value.shape[1] for value in values)
        values = [_widened(value, width) for value in values]
    return np.concatenate(values) if isinstance(first, np.ndarray) else torch.cat(values)


def _widened(values: Any, width: int) -> Any:
    """Return (B, T, ...) values with 0 up to a larger T."""
    missing = width - values.shape[1]
    if isinstance(values, np.ndarray):
        return np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)])
    return F.pad(values, (0, 0) * (values.ndim - 2) + (0, missing))


def default_positions(prompt_lengths: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (B, T) int64 columns of T tokens after prompts of (B,) lengths; 0 where the (B, T) mask is False.

    >>> default_positions(torch.tensor([4, 2]), torch.tensor([[True, True], [True, False]]))
    tensor([[4, 5],
            [2, 0]])
    """
    return (prompt_lengths[:, None] + torch.arange(mask.shape[1])) * mask
