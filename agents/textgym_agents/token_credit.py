"""Advantages of single tokens: by rollouts from some states, and only where the policy has a choice."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.branching import check_rollout_env, play
from textgym_agents.config import AgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import top_entropy_mask
from textgym_agents.online import OnlineAgent
from textgym_agents.state_replay import env_with_kl, replay

__all__ = ["BranchedAdvantages", "TokenCredit", "TokenCreditConfig"]


@dataclass(frozen=True, kw_only=True)
class TokenCreditConfig(AgentConfig):
    """Hyper-parameters of the advantages of single tokens."""

    entropy_share: float = 1.0
    """Fraction of the tokens of a batch, those of the highest entropy of pi(.|s_t), that keep their advantage; it is 0
    elsewhere. Other terms of the loss, such as entropy bonus and KL, stay those of all tokens."""
    branch_share: float = 0.0
    """Fraction of the tokens of a batch whose advantage is r_t + gamma V(s_{t+1}) - V(s_t), with V by rollouts."""
    branch_states: Literal["random", "entropy"] = "random"
    """Which tokens these are: random ones, or those of the highest entropy."""
    branch_rollouts: int = 8
    """Number of rollouts per V."""
    branch_budget: int = 16_384
    """Number of tokens, at most, of the rollouts of an update. Fewer tokens get an advantage by rollouts if those of
    all could exceed it. They count as collected ones in ``num_timesteps``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            entropy_share=(0, 1),
            branch_share=(0, 1),
            branch_rollouts=(1, math.inf),
            branch_budget=(1, math.inf),
        )
        if self.entropy_share == 0:
            raise ValueError("entropy_share must be above 0, got 0: no token would have an advantage")
        if self.branch_share > 0 and getattr(self, "bootstrap_truncated", False):
            raise ValueError(
                "branch_share above 0 needs bootstrap_truncated=False: rollouts end where the time limit cuts a text"
            )


class BranchedAdvantages(NamedTuple):
    """Advantages by rollouts of some of the steps of B episodes."""

    chosen: torch.Tensor
    """(B, T) bool, the steps."""
    advantages: torch.Tensor
    """(B, T) float32, r_t + gamma V(s_{t+1}) - V(s_t), in units of reward; 0 elsewhere."""
    num_tokens: int
    """Tokens of all rollouts."""

    def metrics(self, episodes: Episodes) -> dict[str, float]:
        """Return share and tokens of the rollouts, none without any."""
        if not self.num_tokens:
            return {}
        share = float(self.chosen.sum() / episodes.num_steps.sum())
        return {"train/branched_share": share, "train/branched_tokens": float(self.num_tokens)}


class TokenCredit:
    """Advantages of single tokens by the settings of an agent.

    The states of a batch are rebuilt in a copy of the environment, and the policy that acted plays from them, before it
    is updated. The return of a rollout is that of the agent: with ``kl_estimator="k1"`` it contains the KL penalty.
    Neighbouring tokens share a V. Episodes have to be those of the environment; see ``state_replay.replay``.

    Sources: Kazemnejad et al. 2024, VinePPO (arXiv:2410.01679), who branch between all reasoning steps; Wang et al.
    2025, Beyond the 80/20 rule (arXiv:2506.01939), for the tokens of highest entropy.

    Args:
        agent: The agent, whose policy, environment, generator and KL penalty are used.

    Attributes:
        last_branched: (B, T) bool, the steps of the last update whose advantage is by rollouts; None before the first.
        last_kept: (B, T) bool, the steps of the last update that kept their advantage; None where all did.
    """

    def __init__(self, agent: OnlineAgent) -> None:
        self._agent: Any = agent
        self.last_branched: torch.Tensor | None = None
        self.last_kept: torch.Tensor | None = None
        config = agent.config
        if config.entropy_share < 1 or (config.branch_share > 0 and config.branch_states == "entropy"):
            agent.num_alternatives = 0  # rollouts record entropies

    def branched(self, episodes: Episodes, candidates: torch.Tensor, gamma: float) -> BranchedAdvantages:
        """Estimate the advantages of some steps by rollouts, and count their tokens.

        Args:
            episodes: B episodes of the policy as it is.
            candidates: (B, T) bool, the steps to choose from.
            gamma: Discount per step.

        Raises:
            ValueError: If an episode cannot be rebuilt in the environment.
            ScorerError: If the scorer fails in a rollout.
        """
        agent, config = self._agent, self._agent.config
        shape = episodes.mask.shape
        self.last_branched = chosen = torch.zeros(shape, dtype=torch.bool)
        advantages = torch.zeros(shape)
        candidates = candidates & episodes.mask
        if config.branch_share == 0 or not candidates.any():
            return BranchedAdvantages(chosen, advantages, 0)
        base = check_rollout_env(agent.env, agent.policy)
        order = self._by_priority(episodes, candidates)
        steps = _within_budget(order, episodes, base.max_new_tokens, config.branch_rollouts, config.branch_budget)
        if not len(steps):
            return BranchedAdvantages(chosen, advantages, 0)
        rows, columns = steps.T
        coef = agent.kl.coef if config.kl_estimator == "k1" else 0.0
        base = env_with_kl(base, coef, agent.kl.reference)
        kept, row_of = np.unique(rows, return_inverse=True)
        states, slots, rewards = replay(base, episodes[kept])
        ends = slots[row_of[:, None], columns[:, None] + [0, 1]]  # (S, 2), the states before and after, -1 at the end
        visited, state_of = np.unique(ends, return_inverse=True)
        is_end = visited < 0
        starts = np.repeat(visited[~is_end], config.branch_rollouts)
        seed = int(torch.randint(2**31, (1,), generator=agent.generator, device=agent.generator.device))
        rollouts = play(base, agent.policy, states, starts, gamma=gamma, seed=seed)
        values = np.zeros(len(visited))
        values[~is_end] = rollouts.returns.reshape(-1, config.branch_rollouts).mean(axis=1)
        before, after = values[state_of.reshape(ends.shape)].T
        chosen[rows, columns] = True
        advantages[rows, columns] = torch.from_numpy(rewards[row_of, columns] + gamma * after - before).float()
        agent.num_timesteps += rollouts.num_tokens
        return BranchedAdvantages(chosen, advantages, rollouts.num_tokens)

    def only_uncertain(self, episodes: Episodes, advantages: torch.Tensor, included: torch.Tensor) -> torch.Tensor:
        """Return (B, T) advantages, 0 but at the share of the included steps of highest entropy.

        Args:
            episodes: B episodes.
            advantages: (B, T) float.
            included: (B, T) bool, the steps of the update.
        """
        if self._agent.config.entropy_share == 1:
            return advantages
        share, steps = self._agent.config.entropy_share, included & episodes.mask
        self.last_kept = top_entropy_mask(self._entropies(episodes), steps, share)
        return torch.where(self.last_kept, advantages, 0.0)

    def _by_priority(self, episodes: Episodes, candidates: torch.Tensor) -> npt.NDArray[np.int64]:
        """Return the (S, 2) rows and columns of the steps to branch at, the first ones first."""
        agent = self._agent
        steps = candidates.nonzero()
        count = math.ceil(agent.config.branch_share * int(episodes.mask.sum()))
        if agent.config.branch_states == "entropy":
            order = self._entropies(episodes)[candidates].argsort(descending=True, stable=True)
        else:
            order = torch.randperm(len(steps), generator=agent.generator, device=agent.generator.device).cpu()
        return steps[order[:count]].numpy()

    @torch.no_grad()
    def _entropies(self, episodes: Episodes) -> torch.Tensor:
        """Return the (B, T) entropies of the policy that acted, which rollouts of the agent record."""
        if episodes.stats is not None and not bool(episodes.stats.entropies.isnan().any()):
            return episodes.stats.entropies
        size = self._agent.config.micro_batch or len(episodes)
        parts = [episodes[start : start + size] for start in range(0, len(episodes), size)]
        return torch.cat([self._agent.policy.evaluate(part).entropies for part in parts])


def _within_budget(
    steps: npt.NDArray[np.int64], episodes: Episodes, max_new_tokens: int, num_rollouts: int, budget: int
) -> npt.NDArray[np.int64]:
    """Return the first of (S, 2) steps whose rollouts cannot have more tokens than the budget."""
    num_steps = episodes.num_steps.tolist()
    needed: set[tuple[int, int]] = set()
    tokens = 0
    for i, (row, step) in enumerate(steps.tolist()):
        states = {(row, t) for t in (step, step + 1) if t < num_steps[row]} - needed
        tokens += num_rollouts * sum(max_new_tokens - t for _, t in states)
        if tokens > budget:
            return steps[:i]
        needed |= states
    return steps
