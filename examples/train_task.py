"""Train the embedded LM on one of the built-in tasks with GRPO, in about a minute on a CPU.

    python examples/train_task.py dialogue [--timesteps N] [--seed 0]

The tasks are dialogue, qa, summary, translation, and quality, which trains the weaker LM `tiny-early`. Held-out samples
are completed before and after training and printed one above the other.
"""

import argparse
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import textgym
from textgym.rendering import display_text
from textgym.tasks import find_task
from textgym_agents import GRPO, Episodes, LMPolicy, collect

TASKS: dict[str, dict[str, Any]] = {
    "dialogue": {"id": "TextGenDialogue-v0", "timesteps": 20_000},
    "qa": {"id": "TextGenQA-v0", "timesteps": 30_000},
    "quality": {"id": "TextGenQuality-v0", "timesteps": 65_000},
    "summary": {"id": "TextGenSummary-v0", "timesteps": 20_000},
    "translation": {"id": "TextGenTranslation-v0", "timesteps": 60_000},
}
NUM_EVALUATED = 300
NUM_SHOWN = 5


def evaluate(env_id: str, policy: LMPolicy) -> Episodes:
    """Complete held-out prompts, with the same prompts and random numbers for every policy."""
    env = gym.make_vec(env_id, num_envs=NUM_EVALUATED, autoreset_mode="SameStep", split="eval")
    return collect(env, policy, NUM_EVALUATED, seed=1, generator=torch.Generator().manual_seed(1))


def text_of(info: dict[str, Any]) -> str:
    """Return the completion of an episode; of a dialogue, one line per turn."""
    if "turns" not in info:
        return display_text(info["completion"].strip())
    names = {"assistant": "Helper:  ", "user": "Customer:"}
    return "\n".join(f"{names[turn['role']]} {display_text(turn['content'].strip())}" for turn in info["turns"])


def show(before: Episodes, after: Episodes) -> None:
    """Print some samples whose completion changed, and the mean scores of all."""
    pairs = list(zip(before.infos, after.infos, strict=True))
    changed = [(left, right) for left, right in pairs if text_of(left) != text_of(right)]
    for left, right in changed[:NUM_SHOWN]:
        print(f"\n{display_text(left['prompt'])}")
        for name, info in (("before", left), ("after", right)):
            first, *others = text_of(info).splitlines() or [""]
            print(f"  {name:<6} [{info['score']:.2f}]  {first}", *(f"{'':17}{line}" for line in others), sep="\n")
    print(f"\n{len(before)} held-out samples    before    after")
    for label, key in (("mean score", "score"), ("0 = untrained, 1 = optimum", "score_normalised")):
        means = [np.mean([info[key] for info in episodes.infos if key in info]) for episodes in (before, after)]
        print(f"{label:<28}{means[0]:6.3f}   {means[1]:6.3f}")


def main() -> None:
    """Evaluate, train, evaluate again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--timesteps", type=int, help="tokens to train on (default: depends on the task)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # fastest for a model this small

    task = TASKS[args.task]
    agent = GRPO(find_task(args.task).model, task["id"], seed=args.seed)
    before = evaluate(task["id"], agent.policy)
    start = time.perf_counter()
    agent.learn(args.timesteps or task["timesteps"], progress_bar=True)
    seconds = time.perf_counter() - start
    show(before, evaluate(task["id"], agent.policy))
    print(f"{agent.num_timesteps:,} tokens in {seconds:.0f} s, textgym {textgym.__version__}")


if __name__ == "__main__":
    main()
