"""Monte-Carlo values of given states and actions, by rollouts from copies of the environment."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym.envs.interface import CoreInterface, combine_snapshots, select_slots
from textgym_agents.config import check_count
from textgym_agents.decoding.base import Decoder, Simulation, look_ahead_env, text_gen_env
from textgym_agents.policy import Policy

__all__ = ["BranchValues", "EpisodeStates", "Rollouts", "branch", "check_rollout_env", "episode_states", "play"]

Snapshot = Mapping[str, Any]


class BranchValues(NamedTuple):
    """Values of M states, or of M x K pairs of a state and an action, from R independent rollouts each."""

    values: npt.NDArray[np.float64]
    """(M,) V(s), or Q(s, a) in the shape of ``actions``: the mean returns. 0 where the episode has ended."""
    standard_errors: npt.NDArray[np.float64]
    """Of the shape of ``values``: the sample deviation of the returns, divided by sqrt(R). 0 where all returns are
    equal, NaN where one is infinite, and too small where outcomes that matter are so rare that R rollouts hold few of
    them. With few rollouts, intervals need the quantiles of Student's t with R - 1 degrees of freedom."""
    returns: npt.NDArray[np.float64]
    """(M, R) or (M, K, R), return of each rollout from the state on."""
    ids: npt.NDArray[np.int64] | None
    """(M, R, L) or (M, K, R, L), final text of each rollout from the prompt on, right-padded with ``pad_token_id``;
    None without ``return_ids``."""


class EpisodeStates(NamedTuple):
    """The states that T given actions visit, and the rewards between them."""

    states: list[dict[str, Any]]
    """T + 1 snapshots for ``branch``, the state after the last action included."""
    rewards: npt.NDArray[np.float64]
    """(T,) reward of each action; shares of ``reward="redistributed"`` stay in the last one."""


class Rollouts(NamedTuple):
    """P rollouts of ``play``."""

    returns: npt.NDArray[np.float64]
    """(P,) return of each rollout from its state on."""
    ids: npt.NDArray[np.int64] | None
    """(P, L) final texts, right-padded with ``pad_token_id``; None without ``return_ids``."""
    num_tokens: int
    """Tokens that the policy chose in all rollouts."""


def branch(
    env: Any,
    policy: Policy,
    num_rollouts: int,
    *,
    states: Snapshot | Sequence[Snapshot] | None = None,
    actions: npt.ArrayLike | None = None,
    gamma: float = 1.0,
    seed: int = 0,
    num_slots: int = 256,
    return_ids: bool = False,
) -> BranchValues:
    """Estimate V(s), or Q(s, a) of given actions, of M states by rollouts of the policy from copies of them.

    The return of a rollout is ``sum_k gamma^k r_{t+k}`` of the environment's own rewards, a KL penalty included and
    reward wrappers not, to the end of the episode; nothing is bootstrapped after a truncation. Shares of
    ``reward="redistributed"`` stay in the last reward. The expectation is over the policy and over a simulated user:
    each rollout has generators of its own. The sample is that of the state, so hidden metadata is known, where
    ``textgym.probes.solve`` takes the expectation over it.

    All rollouts of a call are independent, so the standard error of a difference of two values is
    ``sqrt(se_1^2 + se_2^2)``. The advantage of an action is ``Q(s, a) - V(s)``; where the next state s' is a function
    of state and action, as without a simulated user, also ``A_t = r_t + gamma V(s_{t+1}) - V(s_t)``, which needs no
    rollouts of Q. ``sum_t gamma^t A_t`` of an episode is its discounted return minus V(s_0); neighbours share a value,
    so their errors are negatively correlated.

    Nothing is changed: neither states and generators of the environment, nor scorers and prompt sources that learn from
    episodes, nor global generators. An adaptive KL coefficient keeps its current value. The same arguments give the
    same result.

    Args:
        env: An environment of the TextGen family, of any interface, wrapped or not.
        policy: A policy such as ``LMPolicy``, ``QPolicy`` or a decoder. Decoders that look ahead do so in the copies,
            and plan anew from each state.
        num_rollouts: R, rollouts per state, or per state and action; at least 2.
        states: Snapshots of ``env.get_state()`` or ``episode_states``, of this or an equally configured environment
            with any number of sub-environments; M is the number of all their episodes. By default the current states.
        actions: (M,) or (M, K) token ids, the first action of each rollout; afterwards the policy acts.
        gamma: Discount per step, in [0, 1].
        seed: Seed of the rollouts, at least 0. Calls with the same seed share random numbers: their estimates are
            correlated, and the standard errors above hold for differences of estimates from different seeds only.
        num_slots: Rollouts in one batch of the language model.
        return_ids: Return the final texts too.

    Raises:
        TypeError: If the environment is of another family, ``policy`` does not act, or an argument is of another type.
        ValueError: If an argument is out of range, actions of the environment are not the policy's tokens, a state has
            no episode, actions are given for an ended episode, or the environment has a KL penalty and the policy does
            not give the log-probability of a given action.
        InvalidActionError: If a given action is masked and ``on_invalid_action`` is ``"raise"``.

    References:
        Kazemnejad et al. 2024, VinePPO (arXiv:2410.01679), which trains with such values.

    >>> import gymnasium, textgym
    >>> from textgym_agents.decoding import RandomPolicy
    >>> env = gymnasium.make("ProbeCopy-v0")
    >>> _ = env.reset(seed=0)
    >>> result = branch(env, RandomPolicy(5), 1000)
    >>> exact = textgym.probes.solve(env, lambda ids: np.zeros((len(ids), 5))).expected_return
    >>> bool(abs(result.values[0] - exact) < 4 * result.standard_errors[0]), result.returns.shape
    (True, (1, 1000))
    """
    num_rollouts, num_slots = check_count("num_rollouts", num_rollouts), check_count("num_slots", num_slots)
    if num_rollouts < 2:
        raise ValueError("num_rollouts must be at least 2, got 1: the standard error needs two returns")
    if not isinstance(gamma, int | float | np.number):
        raise TypeError(f"gamma must be a number, got {gamma!r}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be from 0 to 1, got {gamma!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    base = check_rollout_env(env, policy, has_actions=actions is not None)
    snapshot = _checked_states(base, states)
    running = snapshot["running"]
    first = None if actions is None else _checked_actions(actions, running)
    shape = *(running if first is None else first).shape, num_rollouts
    state_of = np.repeat(np.arange(len(running)), math.prod(shape[1:]))
    flat, ids, _ = play(
        base,
        policy,
        snapshot,
        state_of,
        actions=None if first is None else np.repeat(first.ravel(), num_rollouts),
        gamma=gamma,
        seed=seed,
        num_slots=num_slots,
        return_ids=return_ids,
    )
    returns = flat.reshape(shape)
    with np.errstate(invalid="ignore"):  # infinite returns have no deviation
        means, deviations = returns.mean(axis=-1), returns.std(axis=-1, ddof=1)
    is_equal = (returns == returns[..., :1]).all(axis=-1)  # then without rounding errors
    return BranchValues(
        np.where(is_equal, returns[..., 0], means),
        np.where(is_equal & np.isfinite(means), 0.0, deviations / math.sqrt(num_rollouts)),
        returns,
        None if ids is None else ids.reshape(*returns.shape, -1),
    )


def episode_states(
    env: Any, actions: npt.ArrayLike, *, env_index: int = 0, log_probs: npt.ArrayLike | None = None
) -> EpisodeStates:
    """Return the states that actions visit from the current state of one sub-environment on, which stays as it is.

    A simulated user replies as it would in the environment.

    Args:
        env: An environment of the TextGen family, of any interface, wrapped or not.
        actions: (T,) actions from the current state on. Those of an episode that started in it are its
            ``info["completion_ids"]``; with a simulated user, only those where ``info["is_action"]`` is True, and with
            a prefix, only those after it.
        env_index: The sub-environment.
        log_probs: (T,) log pi(a|s) of the actions, in nats, such as those of ``Episodes``; needed with a KL penalty,
            which is part of the rewards.

    Raises:
        TypeError: If the environment is of another family, or the actions are not integers.
        ValueError: If shapes do not fit, there is no such sub-environment, the episode ends before the last action, or
            the environment has a KL penalty and there are no ``log_probs``.
        InvalidActionError: If an action is masked and ``on_invalid_action`` is ``"raise"``.

    >>> import gymnasium, textgym
    >>> from textgym_agents.decoding import RandomPolicy
    >>> env = gymnasium.make("ProbeReverse-v0")
    >>> _ = env.reset(seed=0, options={"prompt": "ab"})
    >>> states, rewards = episode_states(env, env.unwrapped.tokenizer.encode("ba"))
    >>> rewards, [len(states), int(states[-1]["lengths"][0])]
    (array([0., 1.]), [3, 4])
    >>> v = branch(env, RandomPolicy(5), 64, states=states).values
    >>> advantages = rewards + v[1:] - v[:-1]
    >>> bool(abs(advantages.sum() - (rewards.sum() - v[0])) < 1e-9)
    True
    """
    base = text_gen_env(env)
    tokens = _integers("actions", actions)
    if tokens.ndim != 1:
        raise ValueError(f"actions must have shape (T,), got {tokens.shape}")
    if env_index not in range(base.core.num_envs):
        raise ValueError(f"env_index must be an integer from 0 to {base.core.num_envs - 1}, got {env_index!r}")
    if base.core.components.kl is not None and log_probs is None and tokens.size:
        raise ValueError("the rewards contain a KL penalty: give log_probs, log pi(a|s) of the actions, in nats")
    if log_probs is not None and np.shape(log_probs) != tokens.shape:
        raise ValueError(f"log_probs must have the shape of the actions, {tokens.shape}, got {np.shape(log_probs)}")
    simulation = Simulation(base, np.array([int(env_index)]))
    states, rewards = [simulation.state], np.zeros(len(tokens))
    for t, token in enumerate(tokens):
        if not simulation.running[0]:
            raise ValueError(f"the episode has ended after {t} of {len(tokens)} actions; it needs a running episode")
        log_prob = None if log_probs is None else np.asarray(log_probs)[t : t + 1]
        rewards[t] = simulation.step(np.array([token]), log_prob, np.ones(1, dtype=np.bool_))[0]
        states.append(simulation.state)
    return EpisodeStates(states, rewards)


def play(
    env: CoreInterface,
    policy: Any,
    states: Snapshot,
    state_of: npt.NDArray[np.int64],
    *,
    actions: npt.NDArray[np.int64] | None = None,
    gamma: float = 1.0,
    seed: int | Sequence[int] = 0,
    num_slots: int = 256,
    return_ids: bool = False,
) -> Rollouts:
    """Return P rollouts from given states; see ``branch``.

    A slot whose rollout has ended starts the next one at once, so that all slots of the language model are used until
    no rollout is left. Rollouts of one state should be neighbours: they share the cached keys and values of its text.
    Decoders that plan whole texts do so in all slots together: for them, slots wait until all have ended.

    Args:
        env: The unwrapped environment, see ``check_rollout_env``.
        policy: The policy.
        states: A snapshot of M states of the environment.
        state_of: (P,) int64, the state that each rollout starts in; those of ended episodes return 0.
        actions: (P,) int64, the first action of each rollout; afterwards the policy acts.
        gamma: Discount per step.
        seed: Seed of the rollouts, or several numbers that make one.
        num_slots: Rollouts in one batch of the language model, at most.
        return_ids: Return the final texts too.

    Raises:
        ScorerError: If the scorer fails in a rollout, and ``on_scorer_error`` is ``"raise"``.
        InvalidActionError: If a given action is masked, and ``on_invalid_action`` is ``"raise"``.
    """
    generator = torch.Generator(getattr(policy, "device", "cpu"))
    generator.manual_seed(int(np.random.SeedSequence(seed, spawn_key=(0,)).generate_state(1, np.uint64)[0]))
    returns = np.zeros(len(state_of))
    ids = states["ids"][state_of] if return_ids else None
    waiting = np.flatnonzero(states["running"][state_of])
    size = max(min(num_slots, waiting.size), 1)
    simulation = Simulation(env, np.zeros(size, dtype=np.int64))
    acting = policy.acting_in(simulation.env) if isinstance(policy, Decoder) else policy
    refills = acting is policy
    rollouts, discounts, running = np.zeros(size, dtype=np.int64), np.ones(size), np.zeros(size, dtype=np.bool_)
    next_one = num_tokens = 0
    while running.any() or next_one < waiting.size:
        given, log_probs = None, None
        if next_one < waiting.size and not running.all() and (refills or not running.any()):
            slots = np.flatnonzero(~running)[: waiting.size - next_one]
            new = waiting[next_one : next_one + slots.size]
            next_one += slots.size
            simulation.restart(slots, _starts(env, states, state_of, new, seed))
            rollouts[slots], discounts[slots], running[slots] = new, 1.0, True
            given = None if actions is None else slots
        if given is None:
            acts = running.copy()
            output = acting.act(simulation.ids, simulation.masks(), active=acts, generator=generator)
            tokens, log_probs = output.actions, output.log_probs
            num_tokens += int(acts.sum())
        else:
            assert actions is not None
            acts, tokens = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.int64)
            acts[given], tokens[given] = True, actions[rollouts[given]]
            if simulation.env.core.components.kl is not None:
                log_probs = policy.action_log_probs(simulation.ids, tokens, simulation.masks(), active=acts)
        rewards = simulation.step(tokens, log_probs, acts)
        returns[rollouts[acts]] += discounts[acts] * rewards[acts]
        discounts[acts] *= gamma
        ended = running & ~simulation.running
        if ids is not None:
            ids[rollouts[ended]] = simulation.ids[ended]
        running &= ~ended
    return Rollouts(returns, ids, num_tokens)


def _starts(
    env: CoreInterface,
    states: Snapshot,
    state_of: npt.NDArray[np.int64],
    rollouts: npt.NDArray[np.int64],
    seed: int | Sequence[int],
) -> dict[str, Any]:
    """Return the snapshot in which some rollouts start; only a simulated user uses their generators."""
    starts = select_slots(states, state_of[rollouts])
    if env.has_turns:
        sequences = (np.random.SeedSequence(seed, spawn_key=(1, i)) for i in rollouts.tolist())
        starts["rngs"] = [np.random.PCG64(sequence).state for sequence in sequences]
    return starts


def check_rollout_env(env: Any, policy: Any, *, has_actions: bool = False) -> CoreInterface:
    """Return the unwrapped environment, in which the policy can play.

    Args:
        env: An environment of the TextGen family, of any interface, wrapped or not.
        policy: The policy.
        has_actions: Whether the first action of rollouts is given.

    Raises:
        TypeError: If the environment is of another family, or ``policy`` does not act.
        ValueError: If the actions are not the policy's tokens, or a KL penalty needs log-probabilities of given actions
            that the policy does not give.
    """
    if not hasattr(policy, "act"):
        raise TypeError(f"policy must have a method act, got {type(policy).__name__}; of an agent, give agent.policy")
    base = look_ahead_env(env, policy)
    if has_actions and base.core.components.kl is not None and not hasattr(policy, "action_log_probs"):
        raise ValueError(
            f"with kl_penalty, Q of given actions needs their log-probabilities, which {type(policy).__name__} does "
            "not give: use a policy with action_log_probs, such as LMPolicy, or r + gamma V of the next states"
        )
    return base


def _checked_states(env: CoreInterface, states: Snapshot | Sequence[Snapshot] | None) -> dict[str, Any]:
    """Return one snapshot of all M states, with the environment's own KL coefficient."""
    current = env.get_state()
    snapshots = [current] if states is None else [states] if isinstance(states, Mapping) else list(states)
    if not snapshots:
        raise ValueError("states must hold at least one snapshot, got none")
    for state in snapshots:
        if not isinstance(state, Mapping) or not current.keys() <= state.keys():
            raise TypeError(f"states must be snapshots of env.get_state(), got {type(state).__name__}")
        if state["ids"].shape[1] != env.window:
            raise ValueError(
                f"a state holds texts of up to {state['ids'].shape[1]} tokens, this environment's window is "
                f"{env.window}: take the states from an equally configured environment"
            )
        if ((state["ids"] != env.pad_token_id).sum(axis=1) != state["lengths"]).any():
            raise ValueError(
                "a state holds the ids of another vocabulary: take the states from an equally configured environment"
            )
        if (state["user_turns"] is None) is env.has_turns:
            kinds = ("without", "with") if env.has_turns else ("with", "without")
            raise ValueError("a state is of an environment {} user=..., this one is {} it".format(*kinds))
    snapshot = combine_snapshots(
        lambda v: np.concatenate(v) if isinstance(v[0], np.ndarray) else [x for part in v for x in part], snapshots
    )
    if (missing := np.flatnonzero(snapshot["prompt_lengths"] == 0)).size:
        raise ValueError(f"state {missing[0]} is that of an environment before its first reset: call env.reset()")
    return {**snapshot, "kl_penalty": current["kl_penalty"]}


def _checked_actions(actions: npt.ArrayLike, running: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return (M,) or (M, K) int64."""
    array = _integers("actions", actions)
    if array.ndim not in (1, 2) or len(array) != len(running) or not array.size:
        raise ValueError(
            f"actions must have shape (M,) or (M, K) for M = {len(running)} states, got shape {array.shape}"
        )
    if not running.all():
        raise ValueError(f"state {running.argmin()} is that of an ended episode, in which no action can be taken")
    return array


def _integers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array.astype(np.int64)
