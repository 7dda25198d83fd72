"""Peak memory of MaskablePPO's rollouts at 2048 steps, 8 environments and 50,257 tokens, with both buffers.

    python benchmarks/mask_memory.py

Counted are all numpy arrays of MaskableEpisodeRolloutBuffer and of sb3-contrib's MaskableRolloutBuffer while they are
filled and read in minibatches, without the minibatches' tensors, which hold a byte per action in the former and a float
in the latter. sb3-contrib's buffer needs several GB, so it is measured with 1/64 of the steps and scaled.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer

from textgym_agents.sb3 import MaskableEpisodeRolloutBuffer

NUM_STEPS, NUM_ENVS, VOCABULARY, WINDOW, EPISODE = 2048, 8, 50_257, 64, 32
BATCH_SIZE = 64
FRACTION = 64


MASKS = np.random.default_rng(0).random((4, NUM_ENVS, VOCABULARY)) < 0.5


def fill(buffer: Any, num_steps: int) -> None:
    """Fill with episodes of ``EPISODE`` tokens and masks that change in every step."""
    rng = np.random.default_rng(0)
    zeros = torch.zeros(NUM_ENVS)
    for step in range(num_steps):
        if step % EPISODE == 0:
            windows = np.full((NUM_ENVS, WINDOW), VOCABULARY)
            windows[:, :EPISODE] = rng.integers(VOCABULARY, size=(NUM_ENVS, EPISODE))
        actions = rng.integers(VOCABULARY, size=(NUM_ENVS, 1))
        starts = np.full(NUM_ENVS, step % EPISODE == 0)
        buffer.add(windows, actions, np.zeros(NUM_ENVS), starts, zeros, zeros, action_masks=MASKS[step % 4])
        windows[:, EPISODE + step % EPISODE] = actions[:, 0]
    buffer.compute_returns_and_advantage(zeros, np.ones(NUM_ENVS, dtype=np.bool_))


def peak(make: Callable[..., Any], num_steps: int) -> float:
    """Return the peak memory in GB from construction to the last minibatch of the second rollout."""
    observation_and_action = spaces.Box(0, VOCABULARY, (WINDOW,), np.int64), spaces.Discrete(VOCABULARY)
    tracemalloc.start()
    buffer = make(num_steps, *observation_and_action, device="cpu", n_envs=NUM_ENVS)
    for _ in range(2):
        buffer.reset()
        fill(buffer, num_steps)
        for _ in buffer.get(BATCH_SIZE):
            pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak_bytes / 1e9


def main() -> None:
    ours = peak(MaskableEpisodeRolloutBuffer, NUM_STEPS)
    theirs = peak(MaskableRolloutBuffer, NUM_STEPS // FRACTION) * FRACTION
    floats = NUM_STEPS * NUM_ENVS * VOCABULARY * 4 / 1e9
    print(f"MaskableEpisodeRolloutBuffer: {ours:.3f} GB peak (at most 0.12)")
    print(f"sb3-contrib's MaskableRolloutBuffer: {theirs:.1f} GB peak, {floats:.1f} GB for the masks alone")
    print(f"ratio: {theirs / ours:.0f}")


if __name__ == "__main__":
    main()
