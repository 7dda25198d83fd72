"""Exact values, policies and policy gradients of small text MDPs, by dynamic programming over prefixes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.probes.enumeration import BoolArray, IntArray, Simulator, layers_of
from textgym.scorers.base import FloatArray

__all__ = ["Solution", "solve"]

TIE = 1e-9
"""Tolerance within which the Q-values of optimal actions are equal."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Values of all S states of a text MDP under one policy; A actions, window L.

    A state is what the agent can distinguish: the ids and, where constraints depend on hidden metadata, the masks so
    far. States are ordered by step, those of one step by their predecessors.

    Attributes:
        ids: (S, L) int64, prompt and completion, right-padded as the environment pads them.
        steps: (S,) int64, number of actions taken before the state.
        action_masks: (S, A) bool, the valid actions.
        rewards: (S, A) float64, expected reward of each action; 0 where invalid.
        policy: (S, A) float64, probability of each action.
        values: (S,) float64, V(s).
        q_values: (S, A) float64, Q(s, a); -inf where invalid.
        gamma: Discount per step.
        parents: (S,) int64, the predecessor; -1 for initial states.
        actions: (S,) int64, the action taken in the predecessor; -1 for initial states.
        probs: (S,) float64, P(state | parent, action), below 1 only where ends or masks depend on hidden metadata; for
            initial states their probability.
    """

    ids: IntArray
    steps: IntArray
    action_masks: BoolArray
    rewards: FloatArray
    policy: FloatArray
    values: FloatArray
    q_values: FloatArray
    gamma: float
    parents: IntArray
    actions: IntArray
    probs: FloatArray
    _logits: tuple[Any, ...] = ()

    @property
    def expected_return(self) -> float:
        """Expected discounted return of an episode."""
        starts = self.parents < 0
        return float(self.probs[starts] @ self.values[starts])

    @property
    def advantages(self) -> FloatArray:
        """(S, A) float64, A(s, a) = Q(s, a) - V(s); 0 where invalid."""
        return np.where(self.action_masks, self.q_values, self.values[:, None]) - self.values[:, None]

    @cached_property
    def visits(self) -> FloatArray:
        """(S,) float64, probability that an episode visits the state."""
        visits = self.probs.copy()
        for step in range(1, int(self.steps[-1]) + 1):
            here = self.steps == step
            parents = self.parents[here]
            visits[here] *= visits[parents] * self.policy[parents, self.actions[here]]
        return visits

    def policy_gradient(self, parameters: Sequence[Any] | None = None) -> Any:
        """Return the exact gradient of ``expected_return``.

        With respect to the logits l(s, a) of the policy it is P(s) gamma^t pi(a|s) A(s, a), where t is the step of s
        and P(s) the probability of a visit; parameters follow by the chain rule. Agents omit gamma^t. Rewards count as
        constants: with a KL term their own gradient is 0 for the estimator k1; for k3 it is omitted here, as in any
        policy-gradient agent.

        Args:
            parameters: Tensors from which the policy's logits were computed; None for the logits themselves. Those
                without influence on the logits, such as a value head, get gradient 0.

        Returns:
            (S, A) float64, or a tuple of tensors, one per parameter.

        Raises:
            ValueError: If parameters are given, and the policy did not return tensors with gradients.
        """
        weights = self.visits * self.gamma**self.steps
        gradient = weights[:, None] * self.policy * np.where(self.policy > 0, self.advantages, 0.0)
        if parameters is None:
            return gradient
        if not self._logits:
            raise ValueError("policy_gradient(parameters) needs a policy that returns tensors with gradients")
        import torch

        sizes = np.cumsum([len(logits) for logits in self._logits])[:-1]
        parts = np.split(gradient, sizes)
        upstream = [logits.new_tensor(part) for logits, part in zip(self._logits, parts, strict=True)]
        return torch.autograd.grad(
            self._logits, list(parameters), upstream, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    def index(self, ids: npt.ArrayLike) -> IntArray:
        """Return (M,) int64, the states with the given (M, L) ids.

        Raises:
            KeyError: If there is no such state, or several that differ in their masks.
        """
        rows = [self._by_ids.get(row.tobytes(), -1) for row in np.asarray(ids, dtype=np.int64)]
        if -1 in rows:
            raise KeyError(f"row {rows.index(-1)} of the ids is not the text of exactly one state")
        return np.array(rows, dtype=np.int64)

    @cached_property
    def _by_ids(self) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for state, row in enumerate(self.ids):
            key = row.tobytes()
            found[key] = -1 if key in found else state
        return found


def solve(env: Any, policy: Any = None, *, gamma: float = 1.0, max_transitions: int = 1_000_000) -> Solution:
    """Solve a small text MDP exactly: V*, Q* and pi* without a policy; V, Q and the policy gradient of a given one.

    A copy of the environment steps through every text, so prompts, budget, EOS, stops, constraints, rewards and a
    deterministic user are those of the environment. The value after an end is 0, also after a truncation: a return is
    the sum of the environment's rewards.

    Where several samples share a prompt (hidden metadata), or masks depend on hidden information, values are
    conditional expectations given what the agent has observed. A policy is renormalised over the valid actions. pi* is
    uniform over optimal actions. With a KL term of coefficient c and estimator k1, pi* is the best stochastic policy,
    proportional to exp(Q / c), where Q excludes the penalty -c log pi, and V* = c log sum_a exp(Q(s, a) / c); with a
    given policy, Q includes the whole penalty.

    Args:
        env: Any interface of the TextGen family. It is not changed; wrappers and its KL target are ignored.
        policy: ``f(ids) -> logits``, from (M, L) int64 ids, right-padded as observed, to (M, A) logits, an array or a
            tensor, -inf for probability 0; or an ``LMPolicy`` of textgym_agents. None solves for the optimum.
        gamma: Discount per step, in [0, 1].
        max_transitions: Bound on the number of pairs of a text and an action.

    Raises:
        TypeError: If ``env`` is of another family, its prompts cannot be enumerated, or ``policy`` is neither callable
            nor an ``LMPolicy``.
        ValueError: If the scorer, one of the reward or the user is random, logits are NaN or infinite, there are more
            than ``max_transitions`` pairs, or the estimator is k3 and there is no policy.

    >>> import gymnasium, textgym
    >>> optimum = solve(gymnasium.make("ProbeCopy-v0"))
    >>> optimum.expected_return, len(optimum.ids)
    (1.0, 80)
    >>> uniform = solve(gymnasium.make("ProbeCopy-v0"), lambda ids: np.zeros((len(ids), 5)))
    >>> round(uniform.expected_return, 4)
    0.18
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be from 0 to 1, got {gamma!r}")
    simulator = Simulator(env)
    if simulator.kl_penalty > 0 and policy is None and simulator.kl_estimator != "k1":
        raise ValueError(
            f"the optimum with the KL estimator {simulator.kl_estimator!r} has no closed form: give a policy, or use k1"
        )
    layers = list(layers_of(simulator, policy, max_transitions))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(layer, name) for layer in layers])

    offsets = np.cumsum([0, *(len(layer.ids) for layer in layers)])
    steps = np.repeat(np.arange(len(layers)), np.diff(offsets))
    parents = np.where(steps > 0, joined("parents") + offsets[steps - 1], -1)
    actions, masks, rewards, probs = map(joined, ("actions", "masks", "rewards", "probs"))
    pi = np.zeros_like(rewards) if policy is None else joined("policy")
    q, values = np.where(masks, rewards, -np.inf), np.zeros(len(steps))
    for here in map(slice, offsets[-2::-1], offsets[:0:-1]):  # from the last step to the first
        if policy is None:
            pi[here], values[here] = _optimum(q[here], simulator.kl_penalty)
        else:
            values[here] = (pi[here] * np.where(pi[here] > 0, q[here], 0.0)).sum(axis=1)
        if here.start > 0:
            np.add.at(q, (parents[here], actions[here]), gamma * probs[here] * values[here])
    return Solution(
        ids=joined("ids"),
        steps=steps,
        action_masks=masks,
        rewards=rewards,
        policy=pi,
        values=values,
        q_values=q,
        gamma=gamma,
        parents=parents,
        actions=actions,
        probs=probs,
        _logits=tuple(layer.logits for layer in layers if getattr(layer.logits, "requires_grad", False)),
    )


def _optimum(q: FloatArray, kl_penalty: float) -> tuple[FloatArray, FloatArray]:
    """Return (S, A) pi* and (S,) V* of (S, A) Q-values."""
    best = q.max(axis=1)
    above = q - best[:, None]
    if kl_penalty == 0:
        ties = above >= -TIE
        return ties / ties.sum(axis=1, keepdims=True), best
    weights = np.exp(above / kl_penalty)
    total = weights.sum(axis=1)
    return weights / total[:, None], best + kl_penalty * np.log(total)
