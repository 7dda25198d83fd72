"""Numbers of each token of some episodes, and what each column means."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym.tokenizers import Tokenizer
from textgym_agents.episodes import Episodes

__all__ = ["COLUMNS", "Column", "TokenTable"]


class Column(NamedTuple):
    """What a column of a ``TokenTable`` holds."""

    name: str
    label: str
    """A heading of a few words."""
    meaning: str
    """One sentence, with the formula."""
    unit: str
    scale: Literal["sequential", "diverging", "flag"] = "sequential"
    """How a view colours it: from the least to the largest, by sign around 0, or by 0 and 1."""


COLUMNS = {
    column.name: column
    for column in (
        Column("log_prob", "log pi", "log pi(a_t|s_t) of the policy that acted", "nats"),
        Column("rank", "rank", "rank of the token by probability, 1 is the likeliest", ""),
        Column("entropy", "entropy", "entropy of pi(.|s_t)", "nats"),
        Column("mask_size", "valid tokens", "number of tokens that were valid", ""),
        Column("value", "V", "V(s_t) of the policy that acted, before it chose the token", "return"),
        Column("reward", "reward", "reward of the step", "reward", "diverging"),
    )
}
"""The columns by name."""


@dataclass
class TokenTable:
    """Columns over the completions of B episodes, one after the other: M tokens in all.

    A token of a simulated user has a row too; the columns of actions are NaN there.
    """

    offsets: npt.NDArray[np.int64]
    """(B + 1,), the tokens of episode b are the rows from ``offsets[b]`` to ``offsets[b + 1]``."""
    ids: npt.NDArray[np.int64]
    """(M,) token ids."""
    texts: dict[int, str]
    """Text of each id that occurs, as in the decoded whole: one token alone, not yet in display form."""
    action_rows: npt.NDArray[np.int64]
    """(A,) rows of the actions, one episode after the other."""
    steps: npt.NDArray[np.bool_]
    """(B, T), True at the A steps taken."""
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """(M,) or (M, K) arrays by name; see ``COLUMNS``."""

    @classmethod
    def of(cls, episodes: Episodes, tokenizer: Tokenizer) -> "TokenTable":
        """Return the table of B episodes with the columns that they hold themselves."""
        starts, ends = episodes.prompt_lengths.numpy(), episodes.text_lengths.numpy()
        offsets = np.concatenate([[0], np.cumsum(ends - starts)])
        texts = [episodes.ids[b, start:end].numpy() for b, (start, end) in enumerate(zip(starts, ends, strict=True))]
        ids = np.concatenate(texts)
        rows, steps = episodes.mask.nonzero(as_tuple=True)
        columns = episodes.positions[rows, steps].numpy()
        table = cls(
            offsets,
            ids,
            {int(i): tokenizer.decode([int(i)]) for i in np.unique(ids)},
            offsets[rows] + columns - starts[rows],
            episodes.mask.numpy(),
        )
        for name, values in (
            ("log_prob", episodes.log_probs),
            ("value", episodes.values),
            ("reward", episodes.rewards),
        ):
            table.put(name, values)
        return table

    def put(self, name: str, values: torch.Tensor | npt.NDArray[Any]) -> None:
        """Add a column from (B, T) or (B, T, K) values of the steps."""
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        column = np.full((len(self.ids), *array.shape[2:]), np.nan, dtype=np.float32)
        column[self.action_rows] = array[self.steps]
        self.columns[name] = column

    def by_step(self, name: str) -> npt.NDArray[np.float32]:
        """Return a column as (B, T) or (B, T, K) values of the steps, NaN after the end."""
        column = self.columns[name]
        array = np.full((*self.steps.shape, *column.shape[1:]), np.nan, dtype=np.float32)
        array[self.steps] = column[self.action_rows]
        return array

    def rows(self, episode: int) -> slice:
        """Return the rows of an episode."""
        return slice(int(self.offsets[episode]), int(self.offsets[episode + 1]))

    def __len__(self) -> int:
        return len(self.ids)
