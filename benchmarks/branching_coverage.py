"""How often the 95 % intervals of values and advantages by rollouts hold the exact ones, on the probes.

    OMP_NUM_THREADS=1 python benchmarks/branching_coverage.py [--states 2000] [--rollouts 64]

States are those that a random language model visits in the probes without hidden metadata, whose values
``textgym.probes.solve`` computes exactly. Coverage is printed for all states and by kind of interval (see
``textgym_agents.inspection.mean_interval``): of two values (Wilson), of more (Student's t), and of rollouts that all
have the same return. Then Student's t alone, which holds nothing where all returns are equal, and the advantages of
``advantage_mc``, whose number of rollouts is adaptive.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

import textgym  # noqa: F401 (registers the environments)
from textgym.envs.interface import select_slots
from textgym.lm import random_lm
from textgym_agents import LMPolicy, branch, collect
from textgym_agents.inspection import advantage_mc, exact_values, mean_interval
from textgym_agents.state_replay import replay

PROBES = ("ProbeCopy-v0", "ProbeReverse-v0", "ProbeStop-v0", "ProbeMemory-v0", "ProbeDelay-v0")
"""Those whose samples hold no hidden metadata."""
RANGE = (0.0, 1.0)
"""Of the returns of these probes."""
KINDS = ("two values (Wilson)", "more values (Student's t)", "all equal")


class Intervals(NamedTuple):
    """Intervals of M values or advantages and the exact ones."""

    exact: npt.NDArray[np.float64]
    """(M,)."""
    ends: npt.NDArray[np.float64]
    """(M, 2)."""
    kinds: npt.NDArray[np.int64]
    """(M,) index in ``KINDS``."""
    t_ends: npt.NDArray[np.float64]
    """(M, 2) intervals of Student's t alone."""

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """(M,) bool, whether the interval holds the exact value, up to rounding in float32."""
        return (self.ends[:, 0] - 1e-5 <= self.exact) & (self.exact <= self.ends[:, 1] + 1e-5)


def sharp_policy(num_tokens: int, seed: int) -> LMPolicy:
    """Return a random language model whose tokens have unequal probabilities."""
    model = random_lm(num_tokens, seed=seed)
    with torch.no_grad():
        model.lm_head.weight *= 3
    return LMPolicy(model)


def value_intervals(num_states: int, num_rollouts: int, seed: int = 0) -> Intervals:
    """Return the intervals of V in ``num_states`` states of the probes, an equal number of each."""
    parts = []
    for env_id, count in _shares(num_states):
        env = gym.make_vec(env_id, num_envs=32, autoreset_mode="SameStep")
        policy = sharp_policy(env.single_action_space.n, seed)
        episodes = collect(env, policy, count, seed=seed, generator=torch.Generator().manual_seed(seed))
        states, index, _ = replay(env.unwrapped, episodes)  # at least one state for each episode
        taken = index >= 0
        exact = np.zeros(len(states["lengths"]))
        exact[index[taken]] = exact_values(env, policy, episodes)["value_exact"][taken[:, :-1]]
        chosen = np.arange(len(exact))[:: max(len(exact) // count, 1)][:count]
        returns = branch(env, policy, num_rollouts, states=select_slots(states, chosen), seed=seed).returns
        parts.append(_intervals(returns, exact[chosen]))
    return Intervals(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def advantage_coverage(num_states: int, num_rollouts: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Return whether the interval of each advantage, with an adaptive number of rollouts, holds the exact one."""
    covered = []
    for env_id, count in _shares(num_states):
        env = gym.make_vec(env_id, num_envs=32, autoreset_mode="SameStep")
        policy = sharp_policy(env.single_action_space.n, seed)
        episodes = collect(env, policy, count // 2, seed=seed, generator=torch.Generator().manual_seed(seed))
        estimate = advantage_mc(env, policy, episodes, num_rollouts=num_rollouts, return_range=RANGE, seed=seed)
        ends = estimate.intervals
        exact = exact_values(env, policy, episodes)["advantage_exact"]
        inside = (ends[..., 0] - 1e-5 <= exact) & (exact <= ends[..., 1] + 1e-5)
        covered.append(inside[episodes.mask.numpy()][:count])
    return np.concatenate(covered)


def _shares(num_states: int) -> Iterator[tuple[str, int]]:
    for number, env_id in enumerate(PROBES):
        yield env_id, num_states * (number + 1) // len(PROBES) - num_states * number // len(PROBES)


def _intervals(returns: npt.NDArray[np.float64], exact: npt.NDArray[np.float64]) -> Intervals:
    num_values = np.array([min(len(np.unique(sample)), 3) for sample in returns])
    half = 1.998 * returns.std(axis=1, ddof=1) / np.sqrt(returns.shape[1])
    mean = returns.mean(axis=1)
    ends = np.array([mean_interval(sample, RANGE) for sample in returns])
    return Intervals(exact, ends, np.array([2, 0, 1])[num_values - 1], np.stack([mean - half, mean + half], axis=1))


def main() -> None:
    """Print the coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--rollouts", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    values = value_intervals(arguments.states, arguments.rollouts)
    print(f"V of {len(values.exact):,} states, {arguments.rollouts} rollouts each: {values.covered.mean():.1%} covered")
    for kind, name in enumerate(KINDS):
        here = values.kinds == kind
        if here.any():
            print(f"  {name:26} {values.covered[here].mean():6.1%} of {here.sum():,}")
    t_covered = values._replace(ends=values.t_ends).covered
    print(f"  Student's t for all        {t_covered.mean():6.1%}")
    advantages = advantage_coverage(arguments.states, arguments.rollouts)
    print(f"A of {len(advantages):,} actions, up to {arguments.rollouts} rollouts: {advantages.mean():.1%} covered")


if __name__ == "__main__":
    main()
