"""Learning curves: greedy scores on held-out cases, measured in the course of a training without changing it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback

from textgym_agents import Callback, collect, env_seed
from textgym_agents.decoding import Greedy
from textgym_agents.policy import BasePolicy, Policy

EVERY = 2_000
"""Tokens between two evaluations."""
NUM_CASES = 64
"""Held-out cases of an evaluation, the first of a run."""


class LearningCurve(Callback):
    """A callback of ``learn`` that evaluates after the first update past each multiple of ``EVERY`` tokens.

    It acts with a copy of the policy, in an environment and with a generator of its own, so that the training is bit
    for bit the same without it.

    Args:
        make_env: Makes the environment of the evaluations, with as many sub-environments as there are cases.
        cases: Indices into the split ``"eval"``.
        seed: Seed of the simulated user, the same in all evaluations.

    Attributes:
        points: ``[tokens, mean score]`` of each evaluation.
        seconds: Processor time of the evaluations.
    """

    def __init__(self, make_env: Callable[[], VectorEnv[Any, Any, Any]], cases: Sequence[int], seed: int) -> None:
        self.points: list[list[float]] = []
        self.seconds = 0.0
        self._make_env, self._cases, self._seed = make_env, cases, seed
        self._env: VectorEnv[Any, Any, Any] | None = None
        self._next = EVERY

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> None:
        """Evaluate the agent if it is time to."""
        self.measure(agent.policy, agent.num_timesteps)

    def measure(self, policy: BasePolicy, num_timesteps: int) -> None:
        """Append a point if ``num_timesteps`` has passed a multiple of ``EVERY`` since the last one."""
        if num_timesteps < self._next:
            return
        start = time.process_time()
        self._next = (num_timesteps // EVERY + 1) * EVERY
        if self._env is None:
            self._env = self._make_env()
        # A copy, since the policy's own KV cache keeps prompts for as long as its weights stay the same.
        scores = episode_scores(self._env, Greedy(policy.frozen_copy()), self._cases, env_seed(self._seed))
        self.points.append([num_timesteps, float(scores.mean())])
        self.seconds += time.process_time() - start


class SB3LearningCurve(BaseCallback):
    """Adds the points of a Stable-Baselines3 training to a ``LearningCurve``, after its updates."""

    def __init__(self, curve: LearningCurve) -> None:
        super().__init__()
        self._curve = curve

    def _on_rollout_start(self) -> None:
        self._measure()

    def _on_training_end(self) -> None:
        self._measure()

    def _measure(self) -> None:
        policy: Any = self.model.policy
        self._curve.measure(policy.lm, self.model.num_timesteps)

    def _on_step(self) -> bool:
        return True


def episode_scores(
    env: VectorEnv[Any, Any, Any],
    policy: Policy,
    cases: Sequence[int],
    seed: int,
    generator: torch.Generator | None = None,
) -> npt.NDArray[np.float64]:
    """Return (K,) float64 scores of one episode per case, in an environment of K sub-environments.

    Args:
        env: The environment.
        policy: The policy.
        cases: K indices into the environment's split.
        seed: Seed of the environment.
        generator: Random generator of the sampling.
    """
    options = {"index": list(cases)}
    episodes = collect(env, policy, len(cases), seed=seed, options=options, generator=generator)
    return np.array([info["score"] for info in episodes.infos])
