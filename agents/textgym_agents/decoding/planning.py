"""Decoders that plan a whole completion, then take its tokens one by one: beam search and best-of-n."""

import copy
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from textgym.envs.interface import CoreInterface
from textgym_agents.decoding.base import Decoder, Simulation, as_lm_policy, check_current, look_ahead_env
from textgym_agents.policy import ActionOutput, Policy

__all__ = ["BeamSearch", "BestOfN", "Planner", "Plans"]


class Plans(NamedTuple):
    """A whole text per environment, with the policy's outputs for the planned tokens."""

    ids: npt.NDArray[np.int64]
    """(N, L) int64, right-padded with V."""
    log_probs: npt.NDArray[np.float32]
    """(N, L) float32, log pi of the token in each column, in nats."""
    values: npt.NDArray[np.float32]
    """(N, L) float32, V of the text before the token in each column."""
    is_action: npt.NDArray[np.bool_]
    """(N, L) bool, True for planned tokens, False for the text so far and for tokens of a simulated user."""

    @classmethod
    def empty(cls, shape: tuple[int, ...], pad_token_id: int) -> "Plans":
        """Return (N, L) plans without tokens."""
        zeros = np.zeros(shape, dtype=np.float32)
        return cls(np.full(shape, pad_token_id), zeros, zeros.copy(), np.zeros(shape, dtype=np.bool_))

    def copy_from(self, rows: npt.NDArray[Any], other: "Plans", sources: npt.NDArray[Any]) -> None:
        """Overwrite ``rows`` with the rows ``sources`` of other plans; indices or (N,) bool."""
        self.ids[rows] = other.ids[sources]
        self.log_probs[rows] = other.log_probs[sources]
        self.values[rows] = other.values[sources]
        self.is_action[rows] = other.is_action[sources]


class Planner(Decoder):
    """Base class of decoders that plan ahead; a subclass implements ``plan``.

    A plan is kept while the text grows along it; a text that deviates, or a new episode, is planned anew. The
    log-probabilities returned are the policy's, since those of the planned texts are unknown.
    """

    def __init__(self, policy: Policy, env: Any, seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(policy.vocab_size, seed, device)
        self.env = look_ahead_env(env, policy)
        self._clear()

    def _clear(self) -> None:
        self.plans = Plans.empty(self.env.core.ids.shape, self.env.pad_token_id)
        self._next = np.full(len(self.plans.ids), -1)  # length of each text at its next planned token

    def acting_in(self, env: CoreInterface) -> Self:
        """Return a copy without plans that looks ahead in another environment."""
        planner = copy.copy(self)
        planner.env = env
        planner._clear()
        return planner

    @abstractmethod
    def plan(self, active: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Plan from the environment's current state; only rows where ``active``, (N,) bool, is True are used."""

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

        Masks are taken from the environment; ``deterministic`` has no effect.

        Raises:
            ValueError: If the texts are not the environment's current ones.
        """
        active = np.ones(len(ids), dtype=np.bool_) if active is None else active
        pad = self.env.pad_token_id
        lengths = (ids != pad).sum(axis=1)
        columns = np.minimum(lengths, ids.shape[1] - 1)
        rows = np.arange(len(ids))
        follows_plan = ~active
        if ids.shape == self.plans.ids.shape:
            follows_plan = ((self.plans.ids == ids) | (ids == pad)).all(axis=1) & (lengths == self._next)
        if (needed := active & ~follows_plan).any():
            check_current(self.env, ids, needed)
            self.plans.copy_from(needed, self.plan(needed, generator or self.generator), needed)
        is_ahead = self.plans.is_action & (np.arange(ids.shape[1]) > columns[:, None])
        self._next[active] = np.where(is_ahead.any(axis=1), is_ahead.argmax(axis=1), -1)[active]
        any_valid = 0 if action_masks is None else action_masks.argmax(axis=1)  # for inactive rows
        return ActionOutput(
            np.where(active, self.plans.ids[rows, columns], any_valid),
            self.plans.log_probs[rows, columns],
            self.plans.values[rows, columns],
        )


class BestOfN(Planner):
    """Best-of-n sampling: the completion with the highest return among n samples.

    Each text is completed n times in copies of the environment's episodes, all in one batch. Its KL to the sampling
    policy is about log(n) - (n - 1) / n nats per completion (Stiennon et al. 2020, Learning to summarize from human
    feedback, arXiv:2009.01325, appendix G.3).

    Args:
        policy: Any policy that samples, such as ``LMPolicy`` or ``Sampling``.
        env: The environment that it acts in, of any interface.
        n: Completions per text.
        seed: Seed of the decoder's own generator.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If ``n`` is below 1, or the actions are not the policy's tokens.
    """

    def __init__(self, policy: Policy, env: Any, n: int = 8, *, seed: int = 0) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        super().__init__(policy, env, seed, getattr(policy, "device", "cpu"))
        self.policy, self.n = policy, n

    def plan(self, active: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Return the best of n sampled completions of each text; see ``Planner.plan``."""
        num_envs = len(active)
        texts = Simulation(self.env, np.repeat(np.arange(num_envs), self.n))
        plans = Plans.empty(texts.ids.shape, self.env.pad_token_id)
        returns = np.zeros(len(texts.ids))
        running = texts.running & np.repeat(active, self.n)
        while running.any():
            output = self.policy.act(texts.ids, texts.masks(), active=running, generator=generator)
            here = np.flatnonzero(running), texts.lengths[running]
            plans.log_probs[here], plans.values[here] = output.log_probs[running], output.values[running]
            plans.is_action[here] = True
            returns += texts.step(output.actions, output.log_probs, running)
            running &= texts.running
        best = np.arange(num_envs) * self.n + returns.reshape(num_envs, self.n).argmax(axis=1)
        return Plans(texts.ids[best], *(array[best] for array in plans[1:]))


class BeamSearch(Planner):
    """Beam search: the most likely completion under the policy that a beam of width k finds.

    In each step the k prefixes of each text have k V continuations. Of the 2k most likely ones, those that end the
    episode and are among the first k are compared with the most likely completion so far; the first k of the others are
    continued while they are more likely than that. Without masks this is ``generate(num_beams=k, length_penalty=0.0)``
    of transformers; here constraints, stop strings and budget are the environment's. Rewards are not used.

    Args:
        policy: An ``LMPolicy`` or what it takes, such as ``"tiny"`` or a loaded model.
        env: The environment that it acts in, of any interface.
        num_beams: k; 1 is greedy decoding.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If ``num_beams`` is below 1, or the actions are not the policy's tokens.
    """

    def __init__(self, policy: Any, env: Any, num_beams: int = 4) -> None:
        if num_beams < 1:
            raise ValueError(f"num_beams must be at least 1, got {num_beams}")
        self.policy = as_lm_policy(policy)
        super().__init__(self.policy, env)
        self.num_beams = num_beams

    def plan(self, active: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Return the most likely completions found; see ``Planner.plan``.

        Raises:
            FloatingPointError: If the logits are NaN.
        """
        num_envs, width = len(active), 2 * self.num_beams
        texts = Simulation(self.env, np.repeat(np.arange(num_envs), width))
        best = Plans.empty(self.plans.ids.shape, self.env.pad_token_id)
        plans = Plans.empty(texts.ids.shape, self.env.pad_token_id)
        best_score = np.full(num_envs, -np.inf)
        scores = np.full((num_envs, width), -np.inf)  # (N, 2k) log-probabilities of the prefixes; -inf: no beam
        scores[active & texts.running.reshape(num_envs, width)[:, 0], 0] = 0.0
        while (is_beam := np.isfinite(scores)).any():
            parents, tokens, log_probs, values, scores = self._continuations(texts, scores, is_beam)
            texts.reorder(parents)
            plans = Plans(*(array[parents] for array in plans))
            is_new = np.isfinite(scores).ravel()
            here = np.flatnonzero(is_new), texts.lengths[is_new]
            plans.log_probs[here], plans.values[here] = log_probs[is_new], values[parents][is_new]
            plans.is_action[here] = True
            texts.step(tokens, log_probs, is_new)
            running = texts.running.reshape(num_envs, width)
            ended = np.where(~running & (np.arange(width) < self.num_beams), scores, -np.inf)
            better = ended.max(axis=1) > best_score
            sources = (np.arange(num_envs) * width + ended.argmax(axis=1))[better]
            best.copy_from(better, plans._replace(ids=texts.ids), sources)
            best_score = np.maximum(best_score, ended.max(axis=1))
            continued = running & (scores > best_score[:, None])
            continued &= continued.cumsum(axis=1) <= self.num_beams
            scores = np.where(continued, scores, -np.inf)
        if np.isinf(best_score[active]).any():
            raise FloatingPointError("the model's logits are NaN, so no completion is the most likely one")
        return best

    def _continuations(
        self, texts: Simulation, scores: npt.NDArray[np.float64], is_beam: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[Any], ...]:
        """Return the 2k most likely continuations of each environment's beams.

        Returns:
            (2kN,) indices of the copies that they continue, their tokens and the tokens' log-probabilities; (2kN,)
            values of the copies; (N, 2k) log-probabilities of the new prefixes, descending, -inf for missing ones.
        """
        num_envs, width = scores.shape
        logits, values = self.policy.logits_and_values(texts.ids, texts.masks(), active=is_beam.ravel())
        log_probs = torch.log_softmax(logits, dim=-1)
        totals = log_probs + torch.from_numpy(scores.reshape(-1, 1)).to(log_probs)
        best, index = totals.reshape(num_envs, -1).topk(width, dim=1)
        flat = (torch.arange(num_envs, device=index.device)[:, None] * width * self.vocab_size + index).ravel()
        parents, tokens = flat // self.vocab_size, flat % self.vocab_size
        found = (parents, tokens, log_probs[parents, tokens], values, best.double())
        return tuple(tensor.cpu().numpy() for tensor in found)
