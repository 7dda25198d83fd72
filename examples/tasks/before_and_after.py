"""What the examples of this folder share: held-out cases of a task, played before and after training, side by side."""

import argparse
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch

import textgym
from textgym_agents import Agent, Episodes, LMPolicy, collect

NUM_EVALUATED = 300
NUM_SHOWN = 5


def held_out_cases(env_id: str, policy: LMPolicy) -> Episodes:
    """Play the same held-out cases with the same random numbers, whichever policy it is."""
    env = gym.make_vec(env_id, num_envs=NUM_EVALUATED, autoreset_mode="SameStep", split="eval")
    return collect(env, policy, NUM_EVALUATED, seed=1, generator=torch.Generator().manual_seed(1))


def said(info: dict) -> str:
    """What was written in an episode, on one line a turn."""
    if "turns" not in info:
        return info["completion"].strip()
    names = {"assistant": "Helper:  ", "user": "Customer:"}
    return "\n".join(f"{names[turn['role']]} {turn['content'].strip()}" for turn in info["turns"])


def show(before: Episodes, after: Episodes) -> None:
    """Print some cases whose texts changed, and the mean scores of all."""
    pairs = [(left, right) for left, right in zip(before.infos, after.infos, strict=True) if said(left) != said(right)]
    for left, right in pairs[:NUM_SHOWN]:
        print(f"\n{left['prompt']}")
        for name, info in (("before", left), ("after", right)):
            first, *others = said(info).splitlines() or [""]
            print(f"  {name:<6} [{info['score']:.2f}]  {first}", *(f"{'':17}{line}" for line in others), sep="\n")
    print(f"\n{len(before)} held-out cases      before    after")
    for label, key in (("mean score", "score"), ("  0 = the LM, 1 = the optimum", "score_normalised")):
        means = [np.mean([info[key] for info in episodes.infos if key in info]) for episodes in (before, after)]
        print(f"{label:<30}{means[0]:6.3f}   {means[1]:6.3f}")


def learn(doc: str, env_id: str, make_agent: Callable[[gym.vector.VectorEnv, int], Agent], timesteps: int) -> None:
    """Read the command line, train, and print the held-out cases before and after."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=timesteps, help="tokens to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the fastest choice for a model this small

    env = gym.make_vec(env_id, num_envs=64, autoreset_mode="SameStep", split="train", group_size=16)
    agent = make_agent(env, args.seed)
    before = held_out_cases(env_id, agent.policy)
    start = time.perf_counter()
    agent.learn(args.timesteps, progress_bar=True)
    seconds = time.perf_counter() - start
    show(before, held_out_cases(env_id, agent.policy))
    print(f"{agent.num_timesteps:,} tokens in {seconds:.0f} s, textgym {textgym.__version__}")
