"""What a Reinforce update costs beside a bare forward and backward over the same tokens.

Run it alone, on one thread: OMP_NUM_THREADS=1 python benchmarks/reinforce_update.py
The bare loop is model(ids).logits, the cross-entropy of the chosen tokens, backward: no baseline, no entropy, no
clipping, no optimizer step. With a KL penalty the reference's forward is added to both sides.
"""

import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import torch
import torch.nn.functional as F

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym_agents import Episodes, LMPolicy, Reinforce, ReinforceConfig, collect

NUM_ROUNDS = 15


def bare(policy: LMPolicy, reference: LMPolicy | None, episodes: Episodes) -> Callable[[], None]:
    rows, steps = episodes.mask.nonzero(as_tuple=True)
    columns = episodes.prompt_lengths[rows] + steps
    chosen = episodes.ids[rows, columns]

    def run() -> None:
        policy.zero_grad(set_to_none=True)
        if reference is not None:
            with torch.no_grad():
                reference.model(input_ids=episodes.ids, use_cache=False)
        logits = policy.model(input_ids=episodes.ids, use_cache=False).logits
        F.cross_entropy(logits[rows, columns - 1], chosen).backward()

    return run


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    env = gym.make_vec("TextGen-v0", num_envs=64, autoreset_mode="SameStep", time_limit="terminated")
    for kl_coef in (0.0, 0.1):
        agent = Reinforce("tiny", env, ReinforceConfig(kl_coef=kl_coef, learning_rate=1e-6))
        episodes = collect(env, agent.policy, 64, seed=0, generator=agent.generator)
        loop = bare(agent.policy, agent.reference if kl_coef else None, episodes)
        ratios = []
        for round_number in range(NUM_ROUNDS + 2):
            ours, theirs = seconds(lambda: agent.update(episodes)), seconds(loop)  # noqa: B023 (called at once)
            if round_number >= 2:
                ratios.append(ours / theirs)
        what = "with" if kl_coef else "without"
        print(
            f"Reinforce update {what} KL penalty, {int(episodes.num_steps.sum())} tokens: "
            f"{statistics.median(ratios):.2f} x a bare forward and backward (at most 1.15)"
        )


if __name__ == "__main__":
    main()
