"""Cost of branching an episode at every position, relative to collecting as many tokens.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/branching.py [--rounds 5] [--rollouts 64] [--tokens 24]

An episode of 24 tokens is branched with 64 rollouts in each of its 24 states, then as many tokens are collected with
the same scorer in as many slots of the language model; both in turn, by processor time. The second line is the same
where texts end with a sentence, at different lengths.
"""

import argparse
import statistics
import time
from typing import Any

import gymnasium as gym
import torch

import textgym  # noqa: F401 (registers the environments)
from textgym.endings import SentenceEnd
from textgym_agents import Episodes, LMPolicy, branch, collect, episode_states

NUM_SLOTS = 256
"""The default of ``branch``."""
SETTINGS: dict[str, dict[str, Any]] = {
    "full length": {},
    "to the end of a sentence": {"stop": SentenceEnd(8)},
}


def first_full_episode(env: gym.vector.VectorEnv, policy: LMPolicy, num_tokens: int) -> tuple[int, Episodes]:
    """Return the first seed whose episode has so many tokens, and the episode."""
    for seed in range(1_000):
        episode = collect(env, policy, 1, seed=seed, generator=torch.Generator().manual_seed(seed))
        if int(episode.num_steps[0]) == num_tokens:
            return seed, episode
    raise ValueError(f"no episode of 1,000 has {num_tokens} tokens")


def compare(
    keywords: dict[str, Any], num_tokens: int, num_rollouts: int, num_rounds: int
) -> tuple[float, float, float]:
    """Return the tokens per second of branching and of collecting, and the median ratio of their times per token."""
    policy = LMPolicy("tiny")
    settings = {"scorer": "sentiment", "max_new_tokens": num_tokens, **keywords}
    single = gym.make_vec("TextGen-v0", num_envs=1, **settings)
    seed, episode = first_full_episode(single, policy, num_tokens)
    single.reset(seed=seed)
    states, _ = episode_states(single, episode.infos[0]["completion_ids"])
    many = gym.make_vec("TextGen-v0", num_envs=NUM_SLOTS, autoreset_mode="SameStep", **settings)

    def branching() -> tuple[float, int]:
        start = time.process_time()
        result = branch(single, policy, num_rollouts, states=states, num_slots=NUM_SLOTS, return_ids=True)
        seconds = time.process_time() - start
        assert result.ids is not None
        pad = single.unwrapped.pad_token_id
        written = (result.ids != pad).sum() - num_rollouts * sum(int(state["lengths"][0]) for state in states)
        return seconds, int(written)

    def collecting(num_episodes: int) -> tuple[float, int]:
        start = time.process_time()
        episodes = collect(many, policy, num_episodes, seed=0, generator=torch.Generator().manual_seed(0))
        return time.process_time() - start, int(episodes.num_steps.sum())

    _, tokens = branching()
    _, collected = collecting(NUM_SLOTS)
    num_episodes = round(tokens / (collected / NUM_SLOTS))
    rates: list[tuple[float, float]] = []
    for _ in range(num_rounds):
        own, written = branching()
        other, written_by_other = collecting(num_episodes)
        rates.append((written / own, written_by_other / other))
    own_rate, other_rate = (statistics.median(column) for column in zip(*rates, strict=True))
    return own_rate, other_rate, statistics.median(other / own for own, other in rates)


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, keywords in SETTINGS.items():
        own, other, ratio = compare(keywords, arguments.tokens, arguments.rollouts, arguments.rounds)
        print(
            f"{name:26} branching {own:7,.0f} tokens/s, collecting {other:7,.0f} tokens/s, time per token "
            f"{ratio:.2f} x (target 1.3 x)",
            flush=True,
        )


if __name__ == "__main__":
    main()
