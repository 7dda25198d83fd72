"""Speed of the environment: random actions, a constant scorer, window 64, episodes of 32 tokens.

    OMP_NUM_THREADS=1 python benchmarks/env_steps.py

The baseline is the same single environment under Gymnasium's SyncVectorEnv. Both are timed alternately.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym import TextBatch, TextGenEnv, TextGenVectorEnv

NUM_ROUNDS = 7


def constant(batch: TextBatch) -> np.ndarray:
    return np.ones(len(batch))


KEYWORDS: dict[str, Any] = {
    "tokenizer": "char",
    "prompts": [f"once upon a time {i}" for i in range(100)],
    "scorer": constant,
    "max_prompt_tokens": 32,
    "max_new_tokens": 32,
}


def steps_of(envs: gym.vector.VectorEnv[Any, Any, Any], num_steps: int) -> Callable[[], None]:
    """Return a function that takes ``num_steps`` steps with precomputed random actions, never EOS (the last id)."""
    rng = np.random.default_rng(0)
    actions = rng.integers(envs.single_action_space.n - 1, size=(64, envs.num_envs))  # type: ignore[attr-defined]
    envs.reset(seed=0)

    def run() -> None:
        for t in range(num_steps):
            envs.step(actions[t % 64])

    return run


def single_steps(num_steps: int) -> Callable[[], None]:
    env = TextGenEnv(**KEYWORDS)
    actions = np.random.default_rng(0).integers(env.num_actions - 1, size=64).tolist()
    env.reset(seed=0)

    def run() -> None:
        for t in range(num_steps):
            _, _, terminated, truncated, _ = env.step(actions[t % 64])
            if terminated or truncated:
                env.reset()

    return run


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    large = steps_of(TextGenVectorEnv(1024, autoreset_mode="SameStep", **KEYWORDS), 320)
    ours = steps_of(TextGenVectorEnv(64, autoreset_mode="SameStep", **KEYWORDS), 640)
    singles = [lambda: TextGenEnv(**KEYWORDS)] * 64
    baseline = steps_of(SyncVectorEnv(singles, autoreset_mode=AutoresetMode.SAME_STEP), 64)
    single = single_steps(6400)
    for warm_up in (large, ours, baseline, single):
        warm_up()
    rates, ratios, costs = [], [], []
    for _ in range(NUM_ROUNDS):
        rates.append(320 * 1024 / seconds(large))
        ratios.append((640 / seconds(ours)) / (64 / seconds(baseline)))
        costs.append(seconds(single) / 6400 * 1e6)
    print(f"N = 1024: {statistics.median(rates) / 1e6:.2f} M env-steps/s (at least 2)")
    print(f"N = 64: {statistics.median(ratios):.1f} x SyncVectorEnv over the same single environments (at least 20)")
    print(f"N = 1, unwrapped: {statistics.median(costs):.1f} microseconds a step, resets included")


if __name__ == "__main__":
    main()
