"""A task of your own in one file: data with levels, a prompt, a scorer. Here: sentences that alliterate.

Registered, it works wherever the built-in tasks do: gym.make, gym.make_vec, TextGenVecEnv, any agent.

python examples/custom_task.py [--timesteps 20000]
"""

import argparse
import random

import gymnasium as gym
import torch

from textgym.tasks import Row, Task, register_task
from textgym_agents import Reinforce, collect

NAMES = {1: ("Tom", "Sara", "Theo", "Will", "Ben"), 2: ("Lily", "Max", "Nora", "Paul", "Fred")}
"""By level: many words begin with the letters of level 1."""


def rows(seed: int, index: int, level: int) -> Row:
    """Return a row that the three numbers decide, and nothing else: so episodes can be repeated."""
    rng = random.Random(f"{seed} {index} {level}")
    name = rng.choice(NAMES[level])
    when = rng.choice(("One day", "On Monday", "In the morning", "Last summer", "At noon", "After school", "Today"))
    return {"name": name, "when": when, "letter": name[0]}


def alliteration(prompts: list[str], completions: list[str], letter: list[str], **_) -> list[float]:
    """Share of the words, of at least five, that begin with the letter; the rows' columns come by name."""
    scores = []
    for completion, initial in zip(completions, letter, strict=True):
        words = completion.lower().split()
        scores.append(sum(word.startswith(initial.lower()) for word in words) / max(len(words), 5))
    return scores


def scorer():
    """Return the scorer; a class with a batch, or several with weights, would do as well."""
    return alliteration


ALLITERATION = register_task(
    Task(
        name="alliteration",
        id="Alliteration-v0",
        rows=rows,
        columns={"name": "who", "when": "when it happens", "letter": "with what the words are to begin"},
        prompt="{when}, {name}",
        instruction="Continue the sentence with words that begin with the letter {letter}: {when}, {name} ...",
        scorer=scorer,
        keywords={"max_prompt_tokens": 16, "max_new_tokens": 16, "stop": [".", "!", "?"]},
        num_levels=2,
        success_score=0.4,  # from which on level="auto" counts an episode as a success
    )
)


def show(title: str, agent: Reinforce) -> None:
    """Print what the agent writes to held-out prompts, and the mean score."""
    env = gym.make_vec("Alliteration-v0", num_envs=64, split="eval", level=1, autoreset_mode="SameStep")
    episodes = collect(env, agent.policy, 256, seed=0, generator=torch.Generator().manual_seed(0))
    print(f"\n{title}: {sum(info['score'] for info in episodes.infos) / 256:.2f}")
    for info in episodes.infos[:5]:
        print(f"  {info['score']:.2f}  {info['prompt']}{info['completion']}")


def main() -> None:
    """Train, with a curriculum, and show samples from before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=20_000)
    args = parser.parse_args()

    env = gym.make_vec("Alliteration-v0", num_envs=64, level="auto", autoreset_mode="SameStep")
    agent = Reinforce("tiny", env, learning_rate=1e-3, kl_coef=0.02)
    show("before", agent)
    agent.learn(args.timesteps, progress_bar=True)
    show("after", agent)


if __name__ == "__main__":
    main()
