"""Monte-Carlo tree search over texts with the policy as prior: AlphaZero's search with tokens as moves."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from textgym.envs.interface import CoreInterface, combine_snapshots
from textgym_agents.config import check_settings
from textgym_agents.decoding.base import Decoder, Simulation, as_lm_policy, check_current, look_ahead_env
from textgym_agents.policy import ActionOutput, choose

__all__ = ["MCTS", "MCTSConfig"]

TreePath = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""The steps of N descents: (N,) nodes and (N,) branches taken there, -1 where a descent has stopped before."""


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """Settings of ``MCTS``."""

    num_simulations: int = 32
    """Simulations per generated token; each adds one node to the tree."""
    c_puct: float = 1.25
    """Exploration constant of PUCT; Q is scaled to [0, 1] within each tree, so the reward scale does not matter."""
    top_k: int = 16
    """Branches of each node, the most likely tokens."""
    evaluation: Literal["rollout", "value"] = "rollout"
    """Value of a new node: ``"rollout"`` is the return of the policy's sampled completion; ``"value"`` is the value
    head's V(s), which costs one forward instead of many but must have been trained."""

    def __post_init__(self) -> None:
        check_settings(self, num_simulations=(1, math.inf), c_puct=(0, math.inf), top_k=(1, math.inf))


class MCTS(Decoder):
    """Searches before each token, in copies of the environment's episodes, and takes the most visited one.

    A simulation descends the tree by argmax_a Q(s, a) + c_puct pi(a|s) sqrt(sum_b n(s, b)) / (1 + n(s, a)), adds the
    first node that is not in the tree, and adds the return from there on to the statistics of each pair (s, a) on its
    path; Q(s, a) is their mean. The trees of N texts grow together: a simulation costs one forward over N texts, plus
    one per token of the longest rollout.

    Differences from Silver et al. 2017 (AlphaZero, arXiv:1712.01815) and, for text, Liu et al. 2023 (PPO-MCTS,
    arXiv:2309.15028): rewards along the path count; Q is scaled within each tree as in Schrittwieser et al. 2019
    (MuZero, arXiv:1911.08265); an unvisited pair has the mean return of its node; no noise at the root; the tree is not
    reused for the next token. Returns are not discounted.

    Args:
        policy: An ``LMPolicy`` or what it takes, such as ``"tiny"`` or a loaded model.
        env: The environment that it acts in, of any interface.
        config: The settings.
        seed: Seed of the decoder's own generator.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If its actions are not the policy's tokens.
    """

    def __init__(self, policy: Any, env: Any, config: MCTSConfig | None = None, *, seed: int = 0) -> None:
        self.policy = as_lm_policy(policy)
        super().__init__(self.policy.vocab_size, seed, self.policy.device)
        self.env = look_ahead_env(env, self.policy)
        self.config = MCTSConfig() if config is None else config

    def acting_in(self, env: CoreInterface) -> Self:
        """Return a copy that searches in another environment."""
        decoder = copy.copy(self)
        decoder.env = env
        return decoder

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts, the environment's current ones; see ``Policy.act``.

        Masks are taken from the environment. ``deterministic`` takes the most visited token; otherwise a token is drawn
        in proportion to its visits. Log-probabilities and values are those of the search.

        Raises:
            ValueError: If the texts are not the environment's current ones.
        """
        active = np.ones(len(ids), dtype=np.bool_) if active is None else active
        check_current(self.env, ids, active)
        generator = generator or self.generator
        trees = self.search(active, generator)
        visits = torch.from_numpy(trees.visits[:, 0])
        visits[:, 0] += torch.from_numpy(~active)  # an inactive row takes its most likely token
        branches, log_probs, _ = choose(
            visits.to(generator.device).float().log(), deterministic=deterministic, generator=generator
        )
        root = np.zeros(len(ids), dtype=np.int64)
        return ActionOutput(
            trees.tokens[np.arange(len(ids)), 0, branches], log_probs, trees.mean_returns(root).astype(np.float32)
        )

    def search(self, active: npt.NDArray[np.bool_], generator: torch.Generator) -> "SearchTrees":
        """Search from the environment's current state where ``active``, (N,) bool, is True."""
        rows = np.arange(len(active))
        num_nodes = 1 + (self.config.num_simulations if active.any() else 0)
        trees = SearchTrees(len(active), num_nodes, min(self.config.top_k, self.vocab_size))
        texts = Simulation(self.env, rows)
        snapshots = [texts.state]
        trees.expand(0, *self._evaluate(texts, active, generator))
        for node in range(1, num_nodes):
            path = trees.select(active, self.config.c_puct)
            parents, branches = _last(path)  # branch -1, of an inactive row, is masked by is_new
            is_new = active & (trees.children[rows, parents, branches] < 0)
            texts.state = select_snapshots(snapshots, parents)
            log_priors = np.log(np.maximum(trees.priors[rows, parents, branches], 1e-30))
            trees.rewards[:, node] = texts.step(trees.tokens[rows, parents, branches], log_priors, is_new)
            trees.ended[:, node] = is_new & ~texts.running
            trees.children[rows[is_new], parents[is_new], branches[is_new]] = node
            snapshots.append(texts.state)
            logits, values = self._evaluate(texts, is_new & texts.running, generator)
            trees.expand(node, logits, values)
            trees.back_up(path, values)
        return trees

    def _evaluate(
        self, texts: Simulation, active: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> tuple[torch.Tensor, npt.NDArray[np.float64]]:
        """Return (N, V) logits and (N,) values, 0 where inactive; rollouts write to the end of the texts."""
        logits, values = self.policy.logits_and_values(texts.ids, texts.masks(), active=active)
        if self.config.evaluation == "value":
            return logits, np.where(active, values.cpu().numpy(), 0.0)
        return logits, texts.roll_out(self.policy, active, generator)


class SearchTrees:
    """Statistics of N trees that grow by at most one node at a time; a node is a text, each of its K branches a token.

    Node 0 is the root, node s was added by simulation s. Attributes, with S nodes:

    | name | shape | meaning |
    | --- | --- | --- |
    | ``tokens`` | (N, S, K) int64 | the token of each branch, most likely first |
    | ``priors`` | (N, S, K) float64 | pi(token given text), normalised over the K tokens; 0 for invalid ones |
    | ``visits`` | (N, S, K) int64 | number of visits of each branch |
    | ``totals`` | (N, S, K) float64 | sum of the returns from there on |
    | ``children`` | (N, S, K) int64 | the node that each branch leads to, -1 if there is none yet |
    | ``values`` | (N, S) float64 | value of the text when it was added |
    | ``rewards`` | (N, S) float64 | reward of the step into the node |
    | ``ended`` | (N, S) bool | whether the episode has ended |
    """

    def __init__(self, num_trees: int, num_nodes: int, num_branches: int) -> None:
        nodes, branches = (num_trees, num_nodes), (num_trees, num_nodes, num_branches)
        self.tokens = np.zeros(branches, dtype=np.int64)
        self.priors = np.zeros(branches)
        self.visits = np.zeros(branches, dtype=np.int64)
        self.totals = np.zeros(branches)
        self.children = np.full(branches, -1)
        self.values = np.zeros(nodes)
        self.rewards = np.zeros(nodes)
        self.ended = np.zeros(nodes, dtype=np.bool_)
        self._rows = np.arange(num_trees)
        self._low, self._high = np.full(num_trees, np.inf), np.full(num_trees, -np.inf)

    def select(self, active: npt.NDArray[np.bool_], c_puct: float) -> TreePath:
        """Descend the active trees by PUCT to a branch without a node or to an ended episode."""
        path: TreePath = []
        nodes, running = np.zeros(len(active), dtype=np.int64), active
        while running.any():
            branches = self._puct(nodes, c_puct).argmax(axis=1)
            path.append((nodes, np.where(running, branches, -1)))
            children = self.children[self._rows, nodes, branches]
            running = running & (children >= 0) & ~self.ended[self._rows, children]
            nodes = np.where(running, children, nodes)
        return path

    def expand(self, node: int, logits: torch.Tensor, values: npt.NDArray[np.floating]) -> None:
        """Set a node's branches from (N, V) logits of the next token, and its (N,) values.

        Raises:
            FloatingPointError: If logits are NaN.
        """
        if logits.isnan().any():
            raise FloatingPointError("the model's logits are NaN, so no token is the most likely one")
        best, tokens = logits.topk(self.tokens.shape[2], dim=1)
        self.tokens[:, node] = tokens.cpu().numpy()
        self.priors[:, node] = best.double().softmax(dim=1).cpu().numpy()
        self.values[:, node] = values

    def back_up(self, path: TreePath, values: npt.NDArray[np.floating]) -> None:
        """Add to each branch of the path the return from there on, given the (N,) values of the last nodes."""
        returns = np.array(values, dtype=np.float64)
        for nodes, branches in reversed(path):
            on = branches >= 0
            where = self._rows[on], nodes[on], branches[on]
            returns[on] += self.rewards[self._rows[on], self.children[where]]
            self.visits[where] += 1
            self.totals[where] += returns[on]
            mean = self.totals[where] / self.visits[where]
            self._low[on] = np.minimum(self._low[on], mean)
            self._high[on] = np.maximum(self._high[on], mean)

    def mean_returns(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the (N,) mean returns from (N,) nodes, their initial values included."""
        totals, visits = self.totals[self._rows, nodes], self.visits[self._rows, nodes]
        means: npt.NDArray[np.float64] = (self.values[self._rows, nodes] + totals.sum(axis=1)) / (
            1 + visits.sum(axis=1)
        )
        return means

    def _puct(self, nodes: npt.NDArray[np.int64], c_puct: float) -> npt.NDArray[np.float64]:
        """Return the (N, K) PUCT scores of the branches of (N,) nodes; -inf for invalid actions."""
        visits, priors = self.visits[self._rows, nodes], self.priors[self._rows, nodes]
        known = self.totals[self._rows, nodes] / np.maximum(visits, 1)
        q_values = np.where(visits > 0, known, self.mean_returns(nodes)[:, None])
        spread = self._high - self._low
        is_spread = np.isfinite(spread) & (spread > 0)
        low, spread = np.where(is_spread, self._low, 0.0), np.where(is_spread, spread, np.inf)
        scaled = ((q_values - low[:, None]) / spread[:, None]).clip(0.0, 1.0)
        bonus = c_puct * priors * np.sqrt(visits.sum(axis=1, keepdims=True)) / (1 + visits)
        return np.where(priors > 0, scaled + bonus, -np.inf)


def select_snapshots(snapshots: Sequence[dict[str, Any]], which: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the snapshot whose episode i is that of ``snapshots[which[i]]``."""
    places = list(enumerate(which.tolist()))

    def entries(values: Sequence[Any]) -> Any:
        chosen = [values[k][i] for i, k in places]
        return np.stack(chosen) if isinstance(values[0], np.ndarray) else chosen

    return combine_snapshots(entries, snapshots)


def _last(path: TreePath) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the (N,) nodes and branches at which N descents stopped."""
    nodes, branches = path[0]
    for next_nodes, taken in path[1:]:
        nodes, branches = np.where(taken >= 0, next_nodes, nodes), np.where(taken >= 0, taken, branches)
    return nodes, branches
