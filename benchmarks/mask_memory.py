"""Peak memory of MaskablePPO's rollouts at 2048 steps, 8 slots and 50,257 tokens, with our buffer and sb3-contrib's.

Run it with: python benchmarks/mask_memory.py
All numpy arrays of the buffers are counted, while they are filled and while a minibatch after the other is read; not
the tensors that a minibatch becomes, of which sb3-contrib's hold a float per action and ours a byte. Ours is
measured at full size. sb3-contrib's would take several GB: it is measured at a 64th of the steps, and multiplied.
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
    """Write episodes of ``EPISODE`` tokens under masks that change from step to step."""
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
    """Return GB at the peak, from before the buffer is made to the last minibatch of the second rollout."""
    spaces_ = spaces.Box(0, VOCABULARY, (WINDOW,), np.int64), spaces.Discrete(VOCABULARY)
    tracemalloc.start()
    buffer = make(num_steps, *spaces_, device="cpu", n_envs=NUM_ENVS)
    for _ in range(2):
        buffer.reset()
        fill(buffer, num_steps)
        for _ in buffer.get(BATCH_SIZE):
            pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e9


def main() -> None:
    ours = peak(MaskableEpisodeRolloutBuffer, NUM_STEPS)
    theirs = peak(MaskableRolloutBuffer, NUM_STEPS // FRACTION) * FRACTION
    floats = NUM_STEPS * NUM_ENVS * VOCABULARY * 4 / 1e9
    print(f"MaskableEpisodeRolloutBuffer: {ours:.3f} GB at its peak (at most 0.12)")
    print(f"sb3-contrib's MaskableRolloutBuffer: {theirs:.1f} GB at its peak, {floats:.1f} GB for the masks at rest")
    print(f"ratio: {theirs / ours:.0f}")


if __name__ == "__main__":
    main()
