"""A custom task in one file: data with levels, a prompt, a scorer. Here: alliteration.

A registered task works wherever the built-in ones do: gym.make, gym.make_vec, TextGenVecEnv, any agent.

python examples/custom_task.py [--timesteps 20000]
"""

import argparse

import gymnasium as gym
import torch

from textgym.rendering import display_text
from textgym.tasks import Task, register_task
from textgym_agents import Reinforce, collect

NAMES = {1: ("Tom", "Sara", "Theo", "Will", "Ben"), 2: ("Lily", "Max", "Nora", "Paul", "Fred")}
"""By level: the letters of level 1 begin more words."""
TIMES = ("One day", "On Monday", "In the morning", "Last summer", "At noon", "After school", "Today")
ROWS = [
    {"name": name, "when": when, "letter": name[0], "level": level}
    for level, names in NAMES.items()
    for name in names
    for when in TIMES
]
"""A tenth of them is held out. The path of a JSONL or CSV file, or a ``datasets.Dataset``, would do as well."""


def alliteration(prompts: list[str], completions: list[str], letter: list[str], **_) -> list[float]:
    """Return the share of at least five words that begin with the letter; columns are passed by name."""
    scores = []
    for completion, initial in zip(completions, letter, strict=True):
        words = completion.lower().split()
        scores.append(sum(word.startswith(initial.lower()) for word in words) / max(len(words), 5))
    return scores


def scorer():
    """Return the scorer: a function as here, a Scorer, or several with weights."""
    return alliteration


ALLITERATION = register_task(
    Task(
        name="alliteration",
        id="Alliteration-v0",
        data=ROWS,
        columns={"name": "a name", "when": "a time", "letter": "the letter that words should begin with"},
        prompt="{when}, {name}",
        instruction="Continue the sentence with words that begin with the letter {letter}: {when}, {name} ...",
        scorer=scorer,
        keywords={"max_prompt_tokens": 16, "max_new_tokens": 16, "stop": [".", "!", "?"]},
        num_levels=2,
        success_score=0.4,  # least score that level="auto" counts as a success
    )
)


def show(title: str, agent: Reinforce) -> None:
    """Print completions of held-out prompts and the mean score."""
    env = gym.make_vec("Alliteration-v0", num_envs=64, split="eval", level=1, autoreset_mode="SameStep")
    episodes = collect(env, agent.policy, 256, seed=0, generator=torch.Generator().manual_seed(0))
    print(f"\n{title}: {sum(info['score'] for info in episodes.infos) / 256:.2f}")
    for info in episodes.infos[:5]:
        print(f"  {info['score']:.2f}  {display_text(info['prompt'] + info['completion'], one_line=True)}")


def main() -> None:
    """Train with a curriculum and show samples before and after."""
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
