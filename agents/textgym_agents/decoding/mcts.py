"""Monte-Carlo tree search over texts, guided by a policy: AlphaZero's search with tokens as moves."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.config import check_settings
from textgym_agents.decoding.decoder import Decoder, as_lm_policy
from textgym_agents.decoding.simulation import Simulation, check_state, mixed, text_episodes
from textgym_agents.decoding.tree import Trees, Way
from textgym_agents.policy import ActionOutput, choose

__all__ = ["MCTS", "MCTSConfig"]


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """What decides a search."""

    num_simulations: int = 32
    """Visits to the tree per token that is written; each adds one text to it."""
    c_puct: float = 1.25
    """How much a token that the policy likes and the search has seldom tried is preferred to one of high Q. Q is scaled
    to 0 .. 1 within each tree, so that it does not depend on the size of the rewards."""
    top_k: int = 16
    """Tokens that each text of the tree can be continued by: the likeliest."""
    evaluation: Literal["rollout", "value"] = "rollout"
    """What a new text of the tree is worth: what the policy gets that finishes it by sampling, or the value head's
    V(s), which costs one forward instead of many but must have been trained."""

    def __post_init__(self) -> None:
        check_settings(self, num_simulations=(1, math.inf), c_puct=(0, math.inf), top_k=(1, math.inf))


class MCTS(Decoder):
    """Searches before each token, in copies of the environment's episodes, and writes the token that was visited most.

    A visit walks down the tree of its slot by argmax_a Q(s, a) + c_puct pi(a|s) sqrt(sum_b n(s, b)) / (1 + n(s, a)),
    adds the first text that is not in it yet, and tells all pairs (s, a) on its way the return from there, of which
    Q(s, a) is the mean. The trees of N slots grow together: each visit costs one forward over N texts, and with
    rollouts as many as the longest of N takes to its end.

    What differs from Silver et al. 2017 (AlphaZero, arXiv:1712.01815) and, for text, Liu et al. 2023 (PPO-MCTS,
    arXiv:2309.15028): rewards on the way count; Q is scaled within each tree as in Schrittwieser et al. 2019 (MuZero,
    arXiv:1911.08265); a pair that was never visited has its text's mean; no noise at the root; each token's search
    starts anew. The return is not discounted.

    Args:
        policy: An ``LMPolicy`` or what it takes, such as ``"tiny"`` or a loaded model.
        env: The environment that is being played, of any interface.
        config: The settings.
        seed: Of its own generator.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If its actions are not the policy's tokens.
    """

    def __init__(self, policy: Any, env: Any, config: MCTSConfig | None = None, *, seed: int = 0) -> None:
        self.policy = as_lm_policy(policy)
        super().__init__(self.policy.vocab_size, seed, self.policy.device)
        self.env = text_episodes(env, self.policy)
        self.config = MCTSConfig() if config is None else config

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts, which the environment is at; see ``Policy.act``.

        Masks come from the environment. ``deterministic`` takes the token that was visited most; else a token is drawn
        with a probability proportional to its visits. The log-probabilities are those; values are the search's.

        Raises:
            ValueError: If the texts are not the environment's present ones.
        """
        active = np.ones(len(ids), dtype=np.bool_) if active is None else active
        check_state(self.env, ids, active)
        generator = generator or self.generator
        trees = self.search(active, generator)
        visits = torch.from_numpy(trees.visits[:, 0])
        visits[:, 0] += torch.from_numpy(~active)  # an idle slot writes the first legal token
        branches, log_probs = choose(
            visits.to(generator.device).float().log(), deterministic=deterministic, generator=generator
        )
        root = np.zeros(len(ids), dtype=np.int64)
        return ActionOutput(
            trees.tokens[np.arange(len(ids)), 0, branches], log_probs, trees.means(root).astype(np.float32)
        )

    def search(self, slots: npt.NDArray[np.bool_], generator: torch.Generator) -> Trees:
        """Grow a tree for each of the (N,) bool slots from the environment's present state."""
        rows = np.arange(len(slots))
        num_nodes = 1 + (self.config.num_simulations if slots.any() else 0)
        trees = Trees(len(slots), num_nodes, min(self.config.top_k, self.vocab_size))
        texts = Simulation(self.env, rows)
        snapshots = [texts.state]
        trees.add(0, *self._look(texts, slots, generator))
        for node in range(1, num_nodes):
            way = trees.walk(slots, self.config.c_puct)
            parents, branches = _last(way)  # -1, the branch of an idle slot, is masked by is_new
            is_new = slots & (trees.children[rows, parents, branches] < 0)
            texts.state = mixed(snapshots, parents)
            log_priors = np.log(np.maximum(trees.priors[rows, parents, branches], 1e-30))
            trees.rewards[:, node] = texts.step(trees.tokens[rows, parents, branches], log_priors, is_new)
            trees.ended[:, node] = is_new & ~texts.running
            trees.children[rows[is_new], parents[is_new], branches[is_new]] = node
            snapshots.append(texts.state)
            logits, worth = self._look(texts, is_new & texts.running, generator)
            trees.add(node, logits, worth)
            trees.back_up(way, worth)
        return trees

    def _look(
        self, texts: Simulation, which: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> tuple[torch.Tensor, npt.NDArray[np.float64]]:
        """Return (N, V) logits and what (N,) texts are worth, 0 where ``which`` is False; rollouts end the texts."""
        logits, values = self.policy.step(texts.ids, texts.masks(), active=which)
        if self.config.evaluation == "value":
            return logits, np.where(which, values.cpu().numpy(), 0.0)
        worth, unfinished = np.zeros(len(which)), which
        while unfinished.any():
            choice = self.policy.act(texts.ids, texts.masks(), active=unfinished, generator=generator)
            worth += texts.step(choice.actions, choice.log_probs, unfinished)
            unfinished = unfinished & texts.running
        return logits, worth


def _last(way: Way) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the (N,) nodes and branches at which N walks stopped."""
    nodes, branches = way[0]
    for at, taken in way[1:]:
        nodes, branches = np.where(taken >= 0, at, nodes), np.where(taken >= 0, taken, branches)
    return nodes, branches
