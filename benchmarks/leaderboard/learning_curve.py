"""Learning curves: scores on held-out cases, measured in the course of a training without changing it."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv

from textgym_agents import Callback, Episodes, collect, env_seed
from textgym_agents.decoding import Greedy
from textgym_agents.policy import BasePolicy, Policy


class LearningCurve(Callback):
    """A callback of ``learn`` that evaluates after the first update past each multiple of ``every`` tokens.

    It acts with a copy of the policy, in an environment and with a generator of its own, so that the training is bit
    for bit the same without it.

    Args:
        make_env: Makes the environment of the evaluations, with as many sub-environments as there are cases.
        cases: Indices into the split ``"eval"``.
        seed: Seed of the simulated user and of the sampling, the same in all evaluations.
        every: Tokens between two evaluations.
        greedy: Whether the policy decodes greedily; otherwise it samples.

    Attributes:
        points: ``[tokens, mean score]`` of each evaluation.
        seconds: Processor time of the evaluations.
    """

    def __init__(
        self,
        make_env: Callable[[], VectorEnv[Any, Any, Any]],
        cases: Sequence[int],
        seed: int,
        *,
        every: int,
        greedy: bool = True,
    ) -> None:
        self.points: list[list[float]] = []
        self.seconds = 0.0
        self._make_env, self._cases, self._seed, self._every, self._greedy = make_env, cases, seed, every, greedy
        self._env: VectorEnv[Any, Any, Any] | None = None
        self._next = every

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> None:
        """Evaluate the agent if it is time to."""
        self.measure(agent.policy, agent.num_timesteps)

    def measure(self, policy: BasePolicy, num_timesteps: int) -> None:
        """Append a point if ``num_timesteps`` has passed a multiple of ``every`` since the last one."""
        if num_timesteps < self._next:
            return
        start = time.process_time()
        self._next = (num_timesteps // self._every + 1) * self._every
        if self._env is None:
            self._env = self._make_env()
        # A copy, since the policy's own KV cache keeps prompts for as long as its weights stay the same.
        acting: Policy = policy.frozen_copy()
        if self._greedy:
            acting = Greedy(acting)
        generator = torch.Generator().manual_seed(self._seed)
        scores = scores_of(play(self._env, acting, self._cases, env_seed(self._seed), generator))
        self.points.append([num_timesteps, float(scores.mean())])
        self.seconds += time.process_time() - start


def play(
    env: VectorEnv[Any, Any, Any],
    policy: Policy,
    cases: Sequence[int],
    seed: int,
    generator: torch.Generator | None = None,
) -> Episodes:
    """Return one episode per case, in an environment of as many sub-environments.

    Args:
        env: The environment.
        policy: The policy.
        cases: Indices into the environment's split.
        seed: Seed of the environment.
        generator: Random generator of the sampling.
    """
    return collect(env, policy, len(cases), seed=seed, options={"index": list(cases)}, generator=generator)


def scores_of(episodes: Episodes) -> npt.NDArray[np.float64]:
    """Return the (B,) float64 scores of episodes."""
    return np.array([info["score"] for info in episodes.infos])


def tokens_to(goal: float, curve: Sequence[Sequence[float]]) -> float | None:
    """Return the tokens of the first point ``[tokens, score]`` that reaches a score, None if none does.

    >>> tokens_to(0.5, [[2000, 0.3], [4000, 0.6], [6000, 0.4]])
    4000
    """
    return next((tokens for tokens, score in curve if score >= goal), None)


def median_tokens(by_seed: Sequence[float | None]) -> float:
    """Return the median over seeds, of which those that do not get there (None) count as infinity.

    >>> median_tokens([4000, None, 2000]), median_tokens([4000, None])
    (4000, inf)
    """
    return median(math.inf if tokens is None else tokens for tokens in by_seed)
