"""Advantages of the tokens of whole episodes: by rollouts from copies of their states, or by dynamic programming."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.envs.interface import CoreInterface
from textgym.probes import solve
from textgym.rewards import Terminal
from textgym_agents.branching import check_rollout_env, play
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes
from textgym_agents.intervals import Bounds, mean_interval
from textgym_agents.state_replay import env_with_kl, replay

__all__ = ["AdvantageEstimate", "advantage_mc", "check_budget", "exact_values"]

Floats = npt.NDArray[np.float64]

FIRST_ROLLOUTS = 8
"""Rollouts of every state in the first pass over more states than one round holds with ``EVEN_ROLLOUTS``."""
EVEN_ROLLOUTS = 32
"""Rollouts of every state before any gets more."""
ROLLOUTS_PER_ROUND = 4096


@dataclass(frozen=True, kw_only=True)
class AdvantageEstimate:
    """Monte-Carlo values of the states of B episodes of at most T actions, and the advantages of the actions.

    Entries after an episode's end are 0; those of states that a budget left without rollouts are NaN.
    """

    rewards: Floats
    """(B, T) rewards of the actions."""
    values: Floats
    """(B, T + 1) V(s_t), the mean return of the rollouts; 0 after the last action."""
    value_standard_errors: Floats
    """(B, T + 1)."""
    value_num_rollouts: npt.NDArray[np.int64]
    """(B, T + 1)."""
    value_intervals: Floats
    """(B, T + 1, 2) 95 % confidence interval of V(s_t), see ``mean_interval``."""
    gamma: float
    return_name: str
    """The return that all of these concern, for ``report.about["return"]``."""
    num_rounds: int
    """Rounds played."""

    @property
    def advantages(self) -> Floats:
        """(B, T) A_t = r_t + gamma V(s_{t+1}) - V(s_t)."""
        return self.rewards + self.gamma * self.values[:, 1:] - self.values[:, :-1]

    @property
    def standard_errors(self) -> Floats:
        """(B, T) standard error of A_t: all rollouts are independent, so the variances of both values add up."""
        errors = self.value_standard_errors
        return np.hypot(self.gamma * errors[:, 1:], errors[:, :-1])

    @property
    def num_rollouts(self) -> npt.NDArray[np.int64]:
        """(B, T) rollouts of s_t."""
        return self.value_num_rollouts[:, :-1]

    @property
    def intervals(self) -> Floats:
        """(B, T, 2) 95 % confidence interval of A_t, from those of both values (MOVER).

        Source: Zou and Donner 2008, Construction of confidence limits about effect measures.
        """
        below = self.values - self.value_intervals[..., 0]
        above = self.value_intervals[..., 1] - self.values
        low = np.hypot(self.gamma * below[:, 1:], above[:, :-1])
        high = np.hypot(self.gamma * above[:, 1:], below[:, :-1])
        return np.stack([self.advantages - low, self.advantages + high], axis=-1)

    def columns(self) -> dict[str, Floats]:
        """Return the (B, T) columns of a ``TokenTable`` by name."""
        return {
            "advantage_mc": self.advantages,
            "advantage_mc_se": self.standard_errors,
            "advantage_mc_n": self.num_rollouts.astype(np.float64),
            "advantage_mc_low": self.intervals[..., 0],
            "advantage_mc_high": self.intervals[..., 1],
            "value_mc": self.values[:, :-1],
            "value_mc_se": self.value_standard_errors[:, :-1],
        }


def advantage_mc(
    env: Any,
    policy: Any,
    episodes: Episodes,
    *,
    num_rollouts: int = 64,
    seconds: float | None = None,
    max_rounds: int | None = None,
    gamma: float = 1.0,
    kl_coef: float = 0.0,
    reference: Any = None,
    return_range: Bounds | None = None,
    seed: int = 0,
    num_slots: int = 256,
) -> AdvantageEstimate:
    """Estimate A(s_t, a_t) of every action of some episodes by rollouts of a policy from copies of their states.

    A_t = r_t + gamma V(s_{t+1}) - V(s_t), where V is the mean return of rollouts to the end of the episode, without
    bootstrapping, also where the time limit truncates it. Where a simulated user replies at random, A_t contains the
    luck of its reply. ``sum_t gamma^t A_t`` of an episode is its discounted return minus V(s_0).

    Every state gets 32 rollouts, in passes of 8, 8 and 16 where one round does not hold them all, so that a small
    budget leaves rough values of many states rather than none of some. Then, again and again, the rollouts of s_t and
    s_{t+1} are doubled, up to ``num_rollouts``, where |A_t| < 2 standard errors, and |A_t| or its standard error is in
    the upper half of those of all tokens. Rounds have at most 4,096 rollouts. Results are determined by ``seed`` and
    the number of rounds: those of a run that is stopped are the first rounds of a longer one. No two rollouts share
    random numbers, so standard errors of differences of values hold. Because a state is sampled less where |A| happens
    to exceed 2 standard errors, intervals of adaptively sampled tokens are a little too narrow.

    Nothing is changed: neither environment, scorer and policy, nor any generator.

    Args:
        env: The environment of the episodes, of any interface of the TextGen family, wrapped or not.
        policy: A policy such as ``LMPolicy``; V and A are its own, whoever wrote the episodes.
        episodes: B episodes, collected or read from a file; ``state_replay.replay`` rebuilds their states.
        num_rollouts: Rollouts of a state, at most; at least 2.
        seconds: Time after which no further round starts. None sets no limit.
        max_rounds: Rounds after which no further one starts. None sets no limit.
        gamma: Discount per step, in [0, 1].
        kl_coef: Coefficient of log pi(a|s) - log pi_ref(a|s) that is subtracted from each reward, in rollouts too, as
            the agents' k1 penalty is.
        reference: pi_ref, such as ``agent.kl.reference``; see ``state_replay.as_reference``.
        return_range: Least and greatest possible return of a rollout, for intervals where all rollouts agree; by
            default that of the scorer, if it has one and the reward is the score. Else those intervals are NaN.
        seed: Seed of the rollouts, at least 0.
        num_slots: Rollouts in one batch of the language model.

    Raises:
        TypeError: If the environment is of another family, or ``policy`` does not act.
        ValueError: If a number is out of range, the actions of the environment are not the policy's tokens, or an
            episode cannot be rebuilt.
        ScorerError: If the scorer fails in a rollout.

    References:
        Kazemnejad et al. 2024, VinePPO (arXiv:2410.01679).

    >>> import gymnasium, textgym
    >>> from textgym_agents import LMPolicy, collect
    >>> env = gymnasium.make_vec("ProbeCopy-v0", num_envs=4)
    >>> policy = LMPolicy(textgym.lm.random_lm(5))
    >>> estimate = advantage_mc(env, policy, collect(env, policy, 4, seed=0))
    >>> total = estimate.advantages.sum(axis=1) - (estimate.rewards.sum(axis=1) - estimate.values[:, 0])
    >>> estimate.advantages.shape == estimate.rewards.shape, bool(abs(total).max() < 1e-9)
    (True, True)
    """
    num_rollouts, num_slots = check_count("num_rollouts", num_rollouts), check_count("num_slots", num_slots)
    check_budget(num_rollouts, seconds, max_rounds, gamma, seed)
    started = time.monotonic()
    base = env_with_kl(check_rollout_env(env, policy), kl_coef, reference)
    states, index, rewards = replay(base, episodes)
    returns: list[Floats] = [np.zeros(0)] * len(states["lengths"])
    bounds = _return_bounds(base, gamma) if return_range is None else return_range

    def estimate(num_rounds: int) -> AdvantageEstimate:
        return _estimate(rewards, index, returns, bounds, gamma, _return_name(base, kl_coef, reference), num_rounds)

    def out_of_budget(num_rounds: int) -> bool:
        is_late = seconds is not None and time.monotonic() - started >= seconds
        return num_rounds > 0 and (is_late or num_rounds == max_rounds)

    even = min(EVEN_ROLLOUTS, num_rollouts)
    fits = len(returns) * even <= ROLLOUTS_PER_ROUND
    missing = np.full(len(returns), even if fits else min(FIRST_ROLLOUTS, even))
    num_rounds = 0
    while missing.any():
        for state_of in _rounds(missing):
            if out_of_budget(num_rounds):
                return estimate(num_rounds)
            played = play(
                base, policy, states, state_of, gamma=gamma, seed=(seed, num_rounds + 1), num_slots=num_slots
            ).returns
            for state in np.unique(state_of):
                returns[state] = np.concatenate([returns[state], played[state_of == state]])
            num_rounds += 1
        missing = _to_double(estimate(num_rounds), index, len(returns), num_rollouts)
    return estimate(num_rounds)


def exact_values(
    env: Any, policy: Any, episodes: Episodes, *, gamma: float = 1.0, max_transitions: int = 1_000_000
) -> dict[str, Floats]:
    """Return V(s_t), Q(s_t, a_t) and A(s_t, a_t) of B episodes by dynamic programming, where texts can be enumerated.

    They concern the environment's rewards, and are expectations over hidden metadata, which those of ``advantage_mc``
    know; see ``textgym.probes.solve``.

    Args:
        env: A small environment of the TextGen family, such as the probes.
        policy: An ``LMPolicy``, or ``f(ids) -> logits``.
        episodes: B episodes of it.
        gamma: Discount per step.
        max_transitions: Bound on the number of pairs of a text and an action.

    Returns:
        (B, T) columns ``value_exact``, ``q_exact`` and ``advantage_exact``, 0 after the end.

    Raises:
        ValueError: If there are more transitions, or a state of the episodes is not one of the environment.
        ValueError, TypeError: As ``textgym.probes.solve``.
    """
    solution = solve(env, policy, gamma=gamma, max_transitions=max_transitions)
    rows, columns = (x.numpy() for x in episodes.states())
    windows = np.full((len(rows), solution.ids.shape[1]), solution.action_masks.shape[1])
    size = min(windows.shape[1], episodes.ids.shape[1])
    inside = np.arange(size) <= columns[:, None]
    windows[:, :size] = np.where(inside, episodes.ids.numpy()[rows, :size], windows[:, :size])
    try:
        states = solution.index(windows)
    except KeyError as error:
        raise ValueError(f"a state of the episodes is not exactly one of the environment's: {error.args[0]}") from error
    q = solution.q_values[states, episodes.actions().numpy()]
    flat = {"value_exact": solution.values[states], "q_exact": q, "advantage_exact": q - solution.values[states]}
    spread = {name: np.zeros(tuple(episodes.mask.shape)) for name in flat}
    for name, values in flat.items():
        spread[name][episodes.mask.numpy()] = values
    return spread


def check_budget(num_rollouts: int, seconds: float | None, max_rounds: int | None, gamma: float, seed: int) -> None:
    """Check the settings of rollouts.

    Raises:
        ValueError: If one is out of range.
    """
    if num_rollouts < 2:
        raise ValueError("num_rollouts must be at least 2, got 1: the standard error needs two returns")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be above 0, got {seconds!r}; None sets no limit")
    if max_rounds is not None and check_count("max_rounds", max_rounds) < 1:
        raise ValueError(f"max_rounds must be at least 1, got {max_rounds!r}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be from 0 to 1, got {gamma!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")


def _rounds(missing: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the states of the rollouts of each round, of which (M,) states lack some."""
    rounds, start = [], 0
    totals = missing.cumsum()
    while start < len(missing):
        before = totals[start - 1] if start else 0
        stop = max(int(np.searchsorted(totals, before + ROLLOUTS_PER_ROUND, side="right")), start + 1)
        if missing[start:stop].any():
            rounds.append(np.repeat(np.arange(start, stop), missing[start:stop]))
        start = stop
    return rounds


def _to_double(
    estimate: AdvantageEstimate, index: npt.NDArray[np.int64], num_states: int, num_rollouts: int
) -> npt.NDArray[np.int64]:
    """Return how many rollouts each of the M states lacks."""
    inside = index[:, :-1] >= 0
    size, error = np.abs(estimate.advantages), estimate.standard_errors
    matters = (size >= np.median(size[inside])) | (error >= np.median(error[inside]))
    unclear = inside & ((estimate.num_rollouts < EVEN_ROLLOUTS) | (matters & (size < 2 * error)))
    chosen = np.zeros(index.shape, dtype=np.bool_)
    chosen[:, :-1] |= unclear
    chosen[:, 1:] |= unclear
    chosen &= index >= 0
    missing = np.zeros(num_states, dtype=np.int64)
    count = estimate.value_num_rollouts[chosen]
    missing[index[chosen]] = np.minimum(count, num_rollouts - count)
    return missing


def _estimate(
    rewards: Floats,
    index: npt.NDArray[np.int64],
    returns: Sequence[Floats],
    bounds: Bounds | None,
    gamma: float,
    return_name: str,
    num_rounds: int,
) -> AdvantageEstimate:
    columns = np.full((len(returns) + 1, 4), np.nan)
    columns[-1] = 0.0  # the end, which is index -1
    counts = np.zeros(len(returns) + 1, dtype=np.int64)
    for state, sample in enumerate(returns):
        counts[state] = len(sample)
        if len(sample) > 1:
            is_equal = bool((sample == sample[0]).all())
            deviation = 0.0 if is_equal else sample.std(ddof=1) / math.sqrt(len(sample))
            mean = sample[0] if is_equal else sample.mean()
            columns[state] = mean, deviation, *mean_interval(sample, bounds)
    spread = columns[index]
    return AdvantageEstimate(
        rewards=rewards,
        values=spread[..., 0],
        value_standard_errors=spread[..., 1],
        value_num_rollouts=counts[index],
        value_intervals=spread[..., 2:],
        gamma=gamma,
        return_name=return_name,
        num_rounds=num_rounds,
    )


def _return_bounds(env: CoreInterface, gamma: float) -> Bounds | None:
    """Return the least and largest return of a rollout, where they are known."""
    components = env.core.components
    span = components.scorer.score_range
    is_plain = type(components.reward) is Terminal and components.kl is None and components.on_scorer_error == "raise"
    if span is None or not is_plain or not np.isfinite(span).all() or env.has_invalid_actions:
        return None
    return (min(span[0], 0.0), max(span[1], 0.0)) if gamma < 1 else (float(span[0]), float(span[1]))


def _return_name(env: CoreInterface, kl_coef: float, reference: Any) -> str:
    if kl_coef:
        return f"score minus {kl_coef:.4g} x " + ("log pi" if reference is None else "KL to the reference")
    kl = env.core.components.kl
    return "score" if kl is None else f"score minus {kl.coefficient.coef:.4g} x KL to the reference"
