"""All texts of a small MDP, written out step by step by copies of its environment."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.envs import TextGenConfig, TextGenVectorEnv
from textgym.envs.interface import combine_snapshots, select_slots
from textgym.prompts import as_prompts
from textgym.rewards import as_reward
from textgym.scorers import as_scorer

__all__ = ["Level", "Simulator", "levels_of"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Snapshot = dict[str, Any]

NUM_ENVS = 256
"""Texts that are stepped together."""


class Level(NamedTuple):
    """The S states after equally many actions, of which A are possible."""

    ids: IntArray
    """(S, L)."""
    masks: BoolArray
    """(S, A)."""
    parents: IntArray
    """(S,) the state before, numbered from 0 within its level; -1 at the start."""
    actions: IntArray
    """(S,) the action that led here; -1 at the start."""
    probs: FloatArray
    """(S,) probability of the state, given parent and action; that of starting in it at the start."""
    rewards: FloatArray
    """(S, A) expected reward of each legal action, 0 elsewhere."""
    policy: FloatArray | None
    """(S, A) probabilities, where there is a policy."""
    logits: Any
    """(S, A), as the policy returned them."""


class _Texts(NamedTuple):
    """R unfinished texts, each of one sample."""

    snapshot: Snapshot
    masks: BoolArray
    """(R, A)."""
    weights: FloatArray
    """(R,) probability of the sample."""

    @property
    def ids(self) -> IntArray:
        ids: IntArray = self.snapshot["ids"]
        return ids


class _Outcome(NamedTuple):
    """Results of the P pairs of one of R texts and an action that is legal in it."""

    rows: IntArray
    actions: IntArray
    rewards: FloatArray
    alive: IntArray
    """(R',) int64, the pairs after which the episode goes on."""
    texts: _Texts
    """The R' texts after them."""


def levels_of(simulator: "Simulator", policy: Any, max_transitions: int) -> Iterator[Level]:
    """Yield the states level by level.

    Raises:
        ValueError: If there are more than ``max_transitions`` pairs of a text and an action.
    """
    texts = simulator.starts()
    origins, given = np.full((len(texts.weights), 2), -1), texts.weights  # state and action before, and P(text | them)
    num_transitions = num_steps = 0
    while len(texts.weights):
        num_transitions += int(texts.masks.sum())
        if num_transitions > max_transitions:
            raise ValueError(
                f"more than max_transitions={max_transitions} pairs of a text and an action within {num_steps + 1} "
                "steps: take a smaller vocabulary, budget or set of prompts, or raise it"
            )
        keys = np.hstack([origins, texts.ids, texts.masks])
        _, first, states = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        states = states.ravel()  # (R,), the state of each text
        masks = texts.masks[first]
        logits = None if policy is None else _logits_of(policy, texts.ids[first])
        log_probs = None if logits is None else _log_probs(logits, masks)
        outcome = simulator.expand(texts, None if log_probs is None else log_probs[states])
        # The agent does not know which of its samples it plays: each is as likely as before, among those left.
        belief = texts.weights / _totals(states, texts.weights)[states]
        rewards = np.zeros(masks.shape)
        np.add.at(rewards, (states[outcome.rows], outcome.actions), belief[outcome.rows] * outcome.rewards)
        yield Level(
            ids=texts.ids[first],
            masks=masks,
            parents=origins[first, 0],
            actions=origins[first, 1],
            probs=_totals(states, given),
            rewards=rewards,
            policy=None if log_probs is None else np.exp(log_probs),
            logits=logits,
        )
        rows = outcome.rows[outcome.alive]
        origins, given = np.stack([states[rows], outcome.actions[outcome.alive]], axis=1), belief[rows]
        texts = outcome.texts
        num_steps += 1


def _totals(states: IntArray, values: FloatArray) -> FloatArray:
    return np.bincount(states, values).astype(np.float64)


class Simulator:
    """Steps texts of an environment, in batches, apart from it."""

    def __init__(self, env: Any) -> None:
        base = getattr(env, "unwrapped", env)
        config = getattr(base, "config", None)
        if not isinstance(config, TextGenConfig):
            raise TypeError(f"solve needs an environment of the TextGen family, got {type(base).__name__}")
        scorer = as_scorer(config.scorer)
        for one in (scorer, *as_reward(config.reward, scorer).scorers):
            if not one.deterministic:
                raise ValueError(f"the scorer {one.name!r} is not deterministic: there is no exact value")
        self.prompts = as_prompts(config.prompts)
        if not (hasattr(self.prompts, "__len__") and hasattr(self.prompts, "__getitem__")):
            raise TypeError(
                f"prompts from {type(self.prompts).__name__} cannot be enumerated: give a list, each entry of which is "
                "equally likely"
            )
        keywords = {field.name: getattr(config, field.name) for field in fields(config)} | {
            "scorer": scorer, "prompts": self.prompts, "observation": "tokens", "group_size": 1, "step_info": (),
            "kl_penalty_target": None,
        }  # fmt: skip
        simulated = TextGenVectorEnv(NUM_ENVS, autoreset_mode="Disabled", **keywords)
        self.env = simulated.clone()  # in which no scorer learns
        training = base.get_training_state()
        self.env.set_training_state(training)
        self.kl_penalty: float = training["kl_penalty"] or 0.0
        self.kl_estimator = config.kl_penalty_estimator

    def starts(self) -> _Texts:
        """Return the prompts of all samples."""
        num = len(self.prompts)  # type: ignore[arg-type]
        parts = []
        for index in _chunks(num):
            self.env.reset(options={"index": _padded(index).tolist()})
            parts.append(self._texts(np.arange(len(index)), np.full(len(index), 1 / num)))
        return _joined(parts)

    def expand(self, texts: _Texts, log_probs: FloatArray | None) -> _Outcome:
        """Take every legal action in each of R texts, with (R, A) log-probabilities for the KL term."""
        rows, actions = texts.masks.nonzero()
        rewards, alive, parts = np.zeros(len(rows)), [], []
        for index in _chunks(len(rows)):
            padded = _padded(index)
            before = select_slots(texts.snapshot, rows[padded])
            told = None if log_probs is None else log_probs[rows[padded], actions[padded]]
            if index[0] == 0:  # beforehand, fewer of them in another order
                other = np.arange(NUM_ENVS)[::-1] // 2
                again, _ = self._step(
                    select_slots(before, other), actions[padded][other], None if told is None else told[other]
                )
            result, running = self._step(before, actions[padded], told)
            if index[0] == 0 and not np.allclose(result[other], again, rtol=1e-5, atol=1e-6, equal_nan=True):
                raise ValueError("the same step was rewarded differently a second time: there is no exact value")
            rewards[index] = result[: len(index)]
            goes_on = np.flatnonzero(running[: len(index)])
            alive.append(index[goes_on])
            parts.append(self._texts(goes_on, texts.weights[rows[alive[-1]]]))
        return _Outcome(rows, actions, rewards, np.concatenate(alive), _joined(parts))

    def _step(self, before: Snapshot, actions: IntArray, log_probs: FloatArray | None) -> tuple[FloatArray, BoolArray]:
        self.env.set_state(before)
        if log_probs is not None:
            self.env.set_log_probs(log_probs)
        rngs = self.env.get_rng_states() if self.env.has_turns else None
        _, rewards, terminated, truncated, _ = self.env.step(actions)
        if rngs is not None and rngs != self.env.get_rng_states():
            raise ValueError("the user drew random numbers: there is no exact value")
        return rewards, ~(terminated | truncated)

    def _texts(self, slots: IntArray, weights: FloatArray) -> _Texts:
        return _Texts(select_slots(self.env.get_state(), slots), self.env.action_masks()[slots], weights)


def _chunks(size: int) -> Iterator[IntArray]:
    for start in range(0, size, NUM_ENVS):
        yield np.arange(start, min(start + NUM_ENVS, size))


def _padded(index: IntArray) -> IntArray:
    return np.pad(index, (0, NUM_ENVS - len(index)), mode="edge")


def _joined(parts: Sequence[_Texts]) -> _Texts:
    snapshots, masks, weights = zip(*parts, strict=True)
    snapshot = combine_snapshots(
        lambda v: np.concatenate(v) if isinstance(v[0], np.ndarray) else [*chain(*v)], snapshots
    )
    return _Texts(snapshot, np.concatenate(masks), np.concatenate(weights))


def _log_probs(logits: Any, masks: BoolArray) -> FloatArray:
    array = np.asarray(logits.detach().cpu() if hasattr(logits, "detach") else logits, dtype=np.float64)
    if array.shape != masks.shape:
        raise ValueError(f"the policy returned logits of shape {array.shape} for {masks.shape} states and actions")
    array = np.where(masks, array, -np.inf)
    if (wrong := ~np.isfinite(array.max(axis=1))).any():
        raise ValueError(
            f"the policy gave no probabilities for {wrong.sum()} of {len(masks)} states: its logits are NaN or infinite"
        )
    array = array - array.max(axis=1, keepdims=True)
    return array - np.log(np.exp(array).sum(axis=1, keepdims=True))


def _logits_of(policy: Any, ids: IntArray) -> Any:
    """Return (M, A) logits of a function of ids, or of an ``LMPolicy`` of textgym_agents."""
    if not hasattr(policy, "evaluate_states"):
        if not callable(policy):
            raise TypeError(f"policy must be f(ids) -> logits or have evaluate_states, got {type(policy).__name__}")
        if getattr(getattr(policy, "forward", None), "__name__", "") == "_forward_unimplemented":
            raise TypeError(
                f"{type(policy).__name__} has neither evaluate_states nor a forward of its own: give an LMPolicy, or "
                "f(ids) -> logits"
            )
        return policy(ids)
    import torch

    is_token = ids < policy.vocab_size
    tokens, rows = torch.from_numpy(np.where(is_token, ids, 0)), torch.arange(len(ids))
    return policy.evaluate_states(tokens, rows, torch.from_numpy(is_token.sum(axis=1) - 1), tokens[:, 0]).logits
