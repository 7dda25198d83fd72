"""Breadth-first enumeration of the states of a small text MDP, stepped by a copy of its environment."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.envs import TextGenConfig, TextGenVectorEnv
from textgym.envs.interface import combine_snapshots, select_slots
from textgym.prompts import IndexedPrompts, as_prompts
from textgym.rewards import as_reward
from textgym.scorers import as_scorer
from textgym.scorers.base import FloatArray

__all__ = ["Layer", "Simulator", "layers_of"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Snapshot = dict[str, Any]

NUM_ENVS = 256
"""Batch size of the copy."""


class Layer(NamedTuple):
    """The S states after the same number of actions; A is the number of actions."""

    ids: IntArray
    """(S, L)."""
    masks: BoolArray
    """(S, A)."""
    parents: IntArray
    """(S,) index of the predecessor within the layer before; -1 in the first layer."""
    actions: IntArray
    """(S,) action taken in the predecessor; -1 in the first layer."""
    probs: FloatArray
    """(S,) P(state | parent, action); in the first layer the probability of starting there."""
    rewards: FloatArray
    """(S, A) expected reward of each valid action, 0 elsewhere."""
    policy: FloatArray | None
    """(S, A) action probabilities; None without a policy."""
    logits: Any
    """(S, A) as returned by the policy."""


class _Texts(NamedTuple):
    """R unfinished episodes, each of one sample."""

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
    """Results of all P pairs (text, valid action) of R texts."""

    rows: IntArray
    actions: IntArray
    rewards: FloatArray
    alive: IntArray
    """(R',) int64, the pairs that do not end the episode."""
    texts: _Texts
    """The R' texts after them."""


def layers_of(simulator: "Simulator", policy: Any, max_transitions: int) -> Iterator[Layer]:
    """Yield the states layer by layer.

    Raises:
        ValueError: If there are more than ``max_transitions`` pairs of a text and an action.
    """
    texts = simulator.starts()
    origins = np.full((len(texts.weights), 2), -1)  # (parent, action) of each text
    given = texts.weights  # P(text | parent, action)
    num_transitions = num_steps = 0
    while len(texts.weights):
        num_transitions += int(texts.masks.sum())
        if num_transitions > max_transitions:
            raise ValueError(
                f"more than max_transitions={max_transitions} pairs of a text and an action within {num_steps + 1} "
                "steps: use a smaller vocabulary, budget or set of prompts, or raise max_transitions"
            )
        keys = np.hstack([origins, texts.ids, texts.masks])
        _, first, states = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        states = states.ravel()  # (R,), the state of each text
        masks = texts.masks[first]
        logits = None if policy is None else _logits_of(policy, texts.ids[first])
        log_probs = None if logits is None else _log_probs(logits, masks)
        outcome = simulator.expand(texts, None if log_probs is None else log_probs[states])
        # Belief over the samples that are consistent with what the agent has observed.
        belief = texts.weights / _totals(states, texts.weights)[states]
        rewards = np.zeros(masks.shape)
        np.add.at(rewards, (states[outcome.rows], outcome.actions), belief[outcome.rows] * outcome.rewards)
        yield Layer(
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
    """Steps episodes in batches in a copy of an environment, which itself is not changed."""

    def __init__(self, env: Any) -> None:
        base = getattr(env, "unwrapped", env)
        config = getattr(base, "config", None)
        if not isinstance(config, TextGenConfig):
            raise TypeError(f"env must be an environment of the TextGen family, got {type(base).__name__}")
        scorer = as_scorer(config.scorer)
        for one in (scorer, *as_reward(config.reward, scorer).scorers):
            if not one.deterministic:
                raise ValueError(f"the scorer {one.name!r} is not deterministic: there is no exact value")
        self.prompts = as_prompts(config.prompts)
        if not (hasattr(self.prompts, "__len__") and hasattr(self.prompts, "__getitem__")):
            raise TypeError(
                f"prompts from {type(self.prompts).__name__} cannot be enumerated; pass a list or "
                "another indexed source"
            )
        keywords = {field.name: getattr(config, field.name) for field in fields(config)} | {
            "scorer": scorer, "prompts": self.prompts, "observation": "tokens", "group_size": 1, "step_info": (),
            "kl_penalty_target": None,
        }  # fmt: skip
        simulated = TextGenVectorEnv(NUM_ENVS, autoreset_mode="Disabled", **keywords)
        self.env = simulated.clone()  # stateful scorers do not observe in a clone
        training = base.get_training_state()
        self.env.set_training_state(training)
        self.kl_penalty: float = training["kl_penalty"] or 0.0
        self.kl_estimator = config.kl_penalty_estimator

    def starts(self) -> _Texts:
        """Return the initial texts of all samples."""
        prompts: Any = self.env.core.components.prompts  # with the training state of the environment
        num = len(prompts)
        weights = prompts.probabilities() if isinstance(prompts, IndexedPrompts) else None
        weights = np.full(num, 1 / num) if weights is None else weights
        possible, parts = np.flatnonzero(weights), []
        for chunk in _chunks(len(possible)):
            index = possible[chunk]
            self.env.reset(options={"index": _padded(index).tolist()})
            parts.append(self._texts(np.arange(len(index)), weights[index]))
        return _joined(parts)

    def expand(self, texts: _Texts, log_probs: FloatArray | None) -> _Outcome:
        """Take every valid action in each of R texts; ``log_probs`` (R, A) are needed for the KL term."""
        rows, actions = texts.masks.nonzero()
        rewards, alive, parts = np.zeros(len(rows)), [], []
        for index in _chunks(len(rows)):
            padded = _padded(index)
            before = select_slots(texts.snapshot, rows[padded])
            chosen = None if log_probs is None else log_probs[rows[padded], actions[padded]]
            if index[0] == 0:  # repeat some in another order, to detect random rewards
                other = np.arange(NUM_ENVS)[::-1] // 2
                again, _ = self._step(
                    select_slots(before, other), actions[padded][other], None if chosen is None else chosen[other]
                )
            result, running = self._step(before, actions[padded], chosen)
            if index[0] == 0 and not np.allclose(result[other], again, rtol=1e-5, atol=1e-6, equal_nan=True):
                raise ValueError("the same step gave another reward when repeated: there is no exact value")
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
            raise ValueError("the user is random: there is no exact value")
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
        raise ValueError(f"the policy returned NaN or infinite logits for {wrong.sum()} of {len(masks)} states")
    array = array - array.max(axis=1, keepdims=True)
    return array - np.log(np.exp(array).sum(axis=1, keepdims=True))


def _logits_of(policy: Any, ids: IntArray) -> Any:
    """Return (M, A) logits of a function of ids, or of an ``LMPolicy`` of textgym_agents."""
    if not hasattr(policy, "evaluate_states"):
        if not callable(policy):
            raise TypeError(f"policy must be f(ids) -> logits or have evaluate_states, got {type(policy).__name__}")
        if getattr(getattr(policy, "forward", None), "__name__", "") == "_forward_unimplemented":
            raise TypeError(
                f"{type(policy).__name__} has neither evaluate_states nor forward; pass an LMPolicy or f(ids) -> logits"
            )
        return policy(ids)
    import torch

    is_token = ids < policy.vocab_size
    tokens, rows = torch.from_numpy(np.where(is_token, ids, 0)), torch.arange(len(ids))
    return policy.evaluate_states(tokens, rows, torch.from_numpy(is_token.sum(axis=1) - 1), tokens[:, 0]).logits
