"""Cost of recording: tokens per second of a rollout that records, relative to one that does not.

    OMP_NUM_THREADS=1 python benchmarks/recording.py

In the demo's setting, 64 environments and the embedded LM: entropy, rank and mask size of each token; the five most
probable tokens with them; and each written as JSON lines. Rollouts of the same episodes alternate; ratios are medians
over rounds of CPU times of the process.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import torch

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.endings import SentenceEnd
from textgym_agents import EpisodeRecorder, LMPolicy, collect, read_episodes

NUM_ENVS = 64
TARGET = 0.95
"""Least ratio without alternatives, written to a file."""


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--episodes", type=int, default=128, help="episodes per rollout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stop = SentenceEnd(min_new_tokens=20)
    env = gym.make_vec(
        "TextGen-v0", num_envs=NUM_ENVS, autoreset_mode="SameStep", stop=stop, scorer="sentiment", max_new_tokens=48
    )
    policy = LMPolicy("tiny")
    kinds: dict[str, tuple[int | None, bool]] = {
        "nothing": (None, False),
        "entropy, rank, mask size": (0, False),
        "and five alternatives": (5, False),
        "entropy, rank, mask size, written": (0, True),
        "and five alternatives, written": (5, True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        recorders = {name: EpisodeRecorder(Path(folder, f"{k}.jsonl")) for k, name in enumerate(kinds)}
        for round_number in range(-1, arguments.rounds):
            for name, (num_alternatives, is_written) in kinds.items():
                generator = torch.Generator().manual_seed(0)
                start = time.process_time()
                episodes = collect(
                    env, policy, arguments.episodes, seed=0, generator=generator, num_alternatives=num_alternatives
                )
                if is_written:
                    recorders[name].write(episodes)
                if round_number >= 0:  # the first one warms up
                    seconds[name].append(time.process_time() - start)
        num_tokens = int(episodes.num_steps.sum())
        for name in kinds:
            ratios = [plain / own for plain, own in zip(seconds["nothing"], seconds[name], strict=True)]
            line = f"{name:36} {statistics.median(ratios):5.3f} x"
            if kinds[name][1]:
                path = recorders[name].path
                line += f"  {path.stat().st_size / num_tokens / (arguments.rounds + 1):5.0f} bytes a token"
                start = time.process_time()
                read_episodes(path)
                line += f", read at {(time.process_time() - start) * 1e6 / num_tokens / (arguments.rounds + 1):.0f} us"
            print(line + (f"  (target {TARGET} x)" if kinds[name] == (0, True) else ""), flush=True)


if __name__ == "__main__":
    main()
