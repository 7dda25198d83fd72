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
        # Of the inspected policy; in a table of episodes alone, of the policy that acted.
        Column("rank", "rank", "rank of the token by probability, 1 is the likeliest", ""),
        Column("entropy", "entropy", "entropy of pi(.|s_t)", "nats"),
        Column("mask_size", "valid tokens", "number of tokens that were valid", ""),
        Column(
            "top_ids", "alternatives", "ids of the K likeliest tokens, the likeliest first; -1 if there are fewer", ""
        ),
        Column("top_log_probs", "log pi of alternatives", "log pi of each of them", "nats"),
        Column("value", "V", "V(s_t) of the policy that acted, before it chose the token", "return"),
        Column("reward", "reward", "reward of the step", "reward", "diverging"),
        Column("log_prob_after", "log pi, inspected", "log pi(a_t|s_t) of the inspected policy", "nats"),
        Column("log_prob_before", "log pi, before", "log pi_ref(a_t|s_t) of the reference", "nats"),
        Column("rank_before", "rank, before", "rank of the token under the reference, 1 is the likeliest", ""),
        Column("entropy_before", "entropy, before", "entropy of pi_ref(.|s_t)", "nats"),
        Column(
            "top_log_probs_before", "log pi of alternatives, before", "log pi_ref of each of the alternatives", "nats"
        ),
        Column("kl", "KL", "KL(pi || pi_ref) in s_t, summed over the vocabulary", "nats"),
        Column(
            "kl_k1",
            "log ratio to before",
            "log pi(a_t|s_t) - log pi_ref(a_t|s_t), estimator k1 of the KL",
            "nats",
            "diverging",
        ),
        Column("ratio", "ratio", "pi(a_t|s_t) / pi_old(a_t|s_t), of the inspected policy to the one that acted", ""),
        Column(
            "clipped",
            "clipped",
            "1 where PPO's clip removes the gradient: the ratio is beyond the clip range on the side of the advantage",
            "",
            "flag",
        ),
        Column("return_to_go", "return to go", "G_t = r_t + gamma r_{t+1} + ...", "return", "diverging"),
        Column(
            "td_error",
            "TD error",
            "r_t + gamma V(s_{t+1}) - V(s_t); of a Q-function r_t + gamma V(s_{t+1}) - Q(s_t, a_t)",
            "return",
            "diverging",
        ),
        Column(
            "gae_advantage",
            "GAE",
            "generalized advantage estimate, A_t = td_error_t + gamma lambda A_{t+1}",
            "return",
            "diverging",
        ),
        Column("q_value", "Q", "Q(s_t, a_t) that the inspected policy estimates", "return"),
        Column("max_q", "max Q", "largest Q(s_t, a) over the valid tokens", "return"),
        Column(
            "soft_value",
            "soft V",
            "T log sum_a exp(Q(s_t, a) / T), the largest Q at T = 0; with a prior of the language model, over pi_LM",
            "return",
        ),
        Column("biography", "biography", "log pi(a_t|s_t) under each of the checkpoints", "nats"),
        Column("advantage", "A used", "A_t in the loss of the update, normalized if the agent does", "", "diverging"),
        Column(
            "push",
            "push",
            "-dL / d log pi(a_t|s_t), of DQN -dL / dQ(s_t, a_t), summed over the gradient steps: above 0 the loss L "
            "raises the probability",
            "",
            "diverging",
        ),
        Column("push_policy", "push of A", "push without those of the KL penalty and the entropy", "", "diverging"),
        Column("push_kl", "push of KL", "push of the KL penalty in the loss", "", "diverging"),
        Column("push_entropy", "push of H", "push of the entropy bonus", "", "diverging"),
        Column(
            "tabular_change",
            "push x |e_a - pi|^2",
            "change of log pi(a_t|s_t) by a gradient step of size 1, if each state had logits of its own",
            "",
            "diverging",
        ),
        Column(
            "predicted_change",
            "predicted change",
            "derivative of log pi(a_t|s_t) along the step of the weights: its change to first order",
            "nats",
            "diverging",
        ),
        Column(
            "realized_change", "realized change", "log pi(a_t|s_t) after the update minus before", "nats", "diverging"
        ),
        Column("predicted_q_change", "predicted change of Q", "its change to first order", "return", "diverging"),
        Column("realized_q_change", "change of Q", "Q(s_t, a_t) after the update minus before", "return", "diverging"),
        *(
            Column(
                f"push_{name}",
                f"push of {label}",
                f"-dL / d log pi(a_t|s_t) of {label}, in units of its mean size over the tokens",
                "",
                "diverging",
            )
            for name, label in (
                ("reinforce", "REINFORCE"),
                ("ppo", "PPO"),
                ("grpo", "GRPO"),
                ("dr_grpo", "Dr. GRPO"),
                ("dapo", "DAPO"),
            )
        ),
        Column(
            "advantage_mc",
            "A by rollouts",
            "r_t + gamma V(s_{t+1}) - V(s_t), both V by rollouts of the policy",
            "return",
            "diverging",
        ),
        Column("advantage_mc_se", "SE of A", "standard error of advantage_mc", "return"),
        Column("advantage_mc_n", "rollouts", "number of rollouts of s_t", ""),
        Column("advantage_mc_low", "A, lower bound", "lower end of the 95 % interval of A", "return", "diverging"),
        Column("advantage_mc_high", "A, upper bound", "upper end of the 95 % interval of A", "return", "diverging"),
        Column("value_mc", "V by rollouts", "V(s_t), the mean return of rollouts of the policy from s_t", "return"),
        Column("value_mc_se", "SE of V", "standard error of value_mc", "return"),
        Column("value_exact", "V, exact", "V(s_t) by dynamic programming", "return"),
        Column("q_exact", "Q, exact", "Q(s_t, a_t) by dynamic programming", "return"),
        Column("advantage_exact", "A, exact", "Q(s_t, a_t) - V(s_t) by dynamic programming", "return", "diverging"),
        Column(
            "credit_leave_one_out",
            "leave one out",
            "score of the text minus its score without the token",
            "score",
            "diverging",
        ),
        Column(
            "credit_prefix",
            "prefix difference",
            "score of the text up to the token minus that of the text before it",
            "score",
            "diverging",
        ),
        Column(
            "occlusion",
            "occlusion",
            "log pi(a_t|s_t) minus the same with one token of the context masked from attention; one number per token "
            "of the text",
            "nats",
            "diverging",
        ),
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
    """Text of each id that occurs, alternatives included: one token alone, not yet in display form."""
    action_rows: npt.NDArray[np.int64]
    """(A,) rows of the actions, one episode after the other."""
    steps: npt.NDArray[np.bool_]
    """(B, T), True at the A steps taken."""
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """(M,) or (M, K) arrays by name; see ``COLUMNS``."""

    @classmethod
    def of(cls, episodes: Episodes, tokenizer: Tokenizer) -> "TokenTable":
        """Return the table of B episodes with the columns that they hold themselves.

        If the reward is terminal and has several components, ``reward/NAME`` is each component before its weight, which
        belongs to the last action.

        Raises:
            ValueError: If the episodes are known to be of another vocabulary.
        """
        episodes.check_vocabulary(tokenizer)
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
        for name, values in (stats_columns(episodes) | reward_components(episodes)).items():
            table.put(name, values)
        if "top_ids" in table.columns:
            table.add_texts(table.columns["top_ids"], tokenizer)
        return table

    def put(self, name: str, values: torch.Tensor | npt.NDArray[Any]) -> None:
        """Add a column from (B, T) or (B, T, K) values of the steps."""
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        self.put_actions(name, array[self.steps])

    def put_actions(self, name: str, values: torch.Tensor | npt.NDArray[Any]) -> None:
        """Add a column from (A,) or (A, K) values of the actions: token ids if they are integers, else float32."""
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        missing, dtype = (-1, np.int64) if array.dtype.kind in "iu" else (np.nan, np.float32)
        column = np.full((len(self.ids), *array.shape[1:]), missing, dtype=dtype)
        column[self.action_rows] = array
        self.columns[name] = column

    def add_texts(self, ids: npt.NDArray[np.int64], tokenizer: Tokenizer) -> None:
        """Add the texts of further tokens, such as alternatives; ids below 0 are left out."""
        for i in np.unique(ids):
            if i >= 0 and int(i) not in self.texts:
                self.texts[int(i)] = tokenizer.decode([int(i)])

    def by_step(self, name: str) -> npt.NDArray[Any]:
        """Return a column as (B, T) or (B, T, K) values of the steps, NaN after the end, or -1 of ids."""
        column = self.columns[name]
        missing = np.nan if column.dtype.kind == "f" else -1
        array = np.full((*self.steps.shape, *column.shape[1:]), missing, dtype=column.dtype)
        array[self.steps] = column[self.action_rows]
        return array

    def rows(self, episode: int) -> slice:
        """Return the rows of an episode."""
        return slice(int(self.offsets[episode]), int(self.offsets[episode + 1]))

    def __len__(self) -> int:
        return len(self.ids)


def stats_columns(episodes: Episodes) -> dict[str, torch.Tensor]:
    """Return the recorded columns of the distributions that sampled, (B, T) or (B, T, K) by name; NaN where unknown."""
    stats = episodes.stats
    if stats is None:
        return {}
    unknown = stats.entropies.isnan()
    columns = {
        "entropy": stats.entropies,
        "rank": stats.ranks.float().masked_fill(unknown, torch.nan),
        "mask_size": stats.mask_sizes.float().masked_fill(unknown, torch.nan),
    }
    if stats.alternative_ids.shape[2]:
        columns |= {"top_ids": stats.alternative_ids, "top_log_probs": stats.alternative_log_probs}
    return columns


def reward_components(episodes: Episodes) -> dict[str, torch.Tensor]:
    """Return (B, T) components of the score at the last action of each episode, 0 at the others, by ``reward/NAME``.

    Empty unless there are several components and every reward is terminal: 0 before the last action, and the score
    there. Other rewards do not tell which component a token earned.
    """
    names = dict.fromkeys(name for info in episodes.infos for name in info.get("scores", {}))
    scores = torch.tensor([info.get("score", torch.nan) for info in episodes.infos], dtype=episodes.rewards.dtype)
    last = episodes.rewards.gather(1, episodes.num_steps[:, None] - 1)[:, 0]
    is_terminal = (episodes.rewards != 0).sum(dim=1) == (last != 0)
    if len(names) < 2 or not (is_terminal & torch.isclose(last, scores, atol=1e-6)).all():
        return {}
    columns = {}
    for name in names:
        column = torch.zeros_like(episodes.rewards)
        components = torch.tensor([info.get("scores", {}).get(name, torch.nan) for info in episodes.infos])
        column.scatter_(1, episodes.num_steps[:, None] - 1, components[:, None].to(column.dtype))
        columns[f"reward/{name}"] = column
    return columns
