"""The statistics of a tree search: which texts are in the trees, how often each token was tried, what it brought."""

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Trees", "Way"]

Way = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""The steps of N walks down N trees: (N,) nodes and (N,) branches taken there, -1 where a walk has stopped before."""


class Trees:
    """N trees that grow by at most one node at a time; each node is a text, each of its K branches a token.

    Node 0 is the root, node s was added in visit s. Attributes, with S nodes:

    | name | shape | meaning |
    | --- | --- | --- |
    | ``tokens`` | (N, S, K) int64 | the token of each branch, the likeliest first |
    | ``priors`` | (N, S, K) float64 | pi(token given text), of the K tokens together 1; 0 where invalid |
    | ``visits`` | (N, S, K) int64 | how often each branch was taken |
    | ``totals`` | (N, S, K) float64 | sum of the returns from there on |
    | ``children`` | (N, S, K) int64 | the node that each branch leads to, -1 where there is none yet |
    | ``values`` | (N, S) float64 | what the text was taken to be worth when it was added |
    | ``rewards`` | (N, S) float64 | the reward of the step into the node |
    | ``ended`` | (N, S) bool | whether the text is finished |
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

    def walk(self, trees: npt.NDArray[np.bool_], c_puct: float) -> Way:
        """Walk down the (N,) bool trees by PUCT, until a branch leads to no node yet or to a finished text."""
        way: Way = []
        nodes, goes_on = np.zeros(len(trees), dtype=np.int64), trees
        while goes_on.any():
            branches = self._puct(nodes, c_puct).argmax(axis=1)
            way.append((nodes, np.where(goes_on, branches, -1)))
            children = self.children[self._rows, nodes, branches]
            goes_on = goes_on & (children >= 0) & ~self.ended[self._rows, children]
            nodes = np.where(goes_on, children, nodes)
        return way

    def add(self, node: int, logits: torch.Tensor, values: npt.NDArray[np.floating]) -> None:
        """Describe the texts of a node: (N, V) logits of the next token, (N,) values.

        Raises:
            FloatingPointError: If logits are NaN.
        """
        if logits.isnan().any():
            raise FloatingPointError("the model's logits are NaN, so no token is likelier than another")
        best, tokens = logits.topk(self.tokens.shape[2], dim=1)
        self.tokens[:, node] = tokens.cpu().numpy()
        self.priors[:, node] = best.double().softmax(dim=1).cpu().numpy()
        self.values[:, node] = values

    def back_up(self, way: Way, worth: npt.NDArray[np.floating]) -> None:
        """Add to each branch on the way the return from there on, given (N,) what the last texts are worth."""
        returns = np.array(worth, dtype=np.float64)
        for nodes, branches in reversed(way):
            on = branches >= 0
            where = self._rows[on], nodes[on], branches[on]
            returns[on] += self.rewards[self._rows[on], self.children[where]]
            self.visits[where] += 1
            self.totals[where] += returns[on]
            mean = self.totals[where] / self.visits[where]
            self._low[on] = np.minimum(self._low[on], mean)
            self._high[on] = np.maximum(self._high[on], mean)

    def means(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (N,), the mean return from (N,) nodes, the value given at first among the returns."""
        totals, visits = self.totals[self._rows, nodes], self.visits[self._rows, nodes]
        means: npt.NDArray[np.float64] = (self.values[self._rows, nodes] + totals.sum(axis=1)) / (
            1 + visits.sum(axis=1)
        )
        return means

    def _puct(self, nodes: npt.NDArray[np.int64], c_puct: float) -> npt.NDArray[np.float64]:
        """Return (N, K), how much each branch of (N,) nodes is worth a visit; -inf where it is invalid."""
        visits, priors = self.visits[self._rows, nodes], self.priors[self._rows, nodes]
        known = self.totals[self._rows, nodes] / np.maximum(visits, 1)
        q_values = np.where(visits > 0, known, self.means(nodes)[:, None])
        spread = self._high - self._low
        is_spread = np.isfinite(spread) & (spread > 0)
        low, spread = np.where(is_spread, self._low, 0.0), np.where(is_spread, spread, np.inf)
        scaled = ((q_values - low[:, None]) / spread[:, None]).clip(0.0, 1.0)
        bonus = c_puct * priors * np.sqrt(visits.sum(axis=1, keepdims=True)) / (1 + visits)
        return np.where(priors > 0, scaled + bonus, -np.inf)
