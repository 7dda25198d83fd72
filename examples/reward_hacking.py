"""Reward hacking: one agent trained on a naive reward and on a more robust one.

    python examples/reward_hacking.py [--timesteps 49152] [--seed 0] [--out runs/hacking-1]

Reinforce trains the embedded LM twice. In the first run the score is VADER's sentiment, without a KL penalty: within a
minute the texts are lists of happy words. In the second run the score is sentiment times fluency times the share of
bigrams that are not repeated, with a KL penalty: the texts are happier stories. Some hacking remains: a few happy
sentences that fit every story occur often. Before training, the scorers are tested on degenerate texts.
"""

import argparse
import itertools
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure

from textgym import TextBatch
from textgym.rendering import display_text
from textgym.scorers import Affine, Clip, Fluency, Product, Repetition, Sentiment, WeightedSum
from textgym.testing import probe_hacks
from textgym_agents import Agent, Episodes, LMPolicy, Reinforce, ReinforceConfig, collect
from textgym_agents.reward_hacking import ScoredText, scored_texts

TIMESTEPS = 49_152
LEARNING_RATE = 1e-3
NUM_SHOWN = 6
NUM_EVALUATED = 128


def naive() -> Sentiment:
    return Sentiment()


def composite() -> Product:
    """Return sentiment times fluency times the share of bigrams that are not repeated."""
    return Product(
        {
            "sentiment": Clip("sentiment", 0.0, 1.0),
            "fluency": Fluency(scale="probability"),
            "variety": Affine(Repetition(n=2), scale=-1.0, shift=1.0),
        }
    )


class Row(NamedTuple):
    """Statistics of a set of texts."""

    tokens: int
    """Tokens of training so far."""
    sentiment: float
    """Mean sentiment, also where the score is another one."""
    perplexity: float
    """Median perplexity per token under the initial LM."""


class Run(NamedTuple):
    """A training run."""

    name: str
    rows: list[Row]
    """Statistics of the texts of each update."""
    before: tuple[ScoredText, ...]
    """Held-out prompts, continued by the initial LM."""
    after: tuple[ScoredText, ...]
    """The same prompts, continued by the trained LM."""


def train(name: str, scorer: Any, kl_coef: float, timesteps: int, seed: int) -> Run:
    """Train, record statistics of the texts, and continue held-out prompts before and after."""
    task = {"scorer": scorer, "max_new_tokens": 24, "autoreset_mode": "SameStep"}
    env = gym.make_vec("TextGen-v0", num_envs=64, prompts="openings:train", **task)
    held_out = gym.make_vec("TextGen-v0", num_envs=NUM_EVALUATED, prompts="openings:eval", **task)
    config = ReinforceConfig(num_episodes=64, learning_rate=LEARNING_RATE, kl_coef=kl_coef, seed=seed)
    agent = Reinforce("tiny", env, config)
    rows: list[Row] = []

    def record(agent: Agent, metrics: dict[str, float]) -> None:
        rows.append(row(int(metrics["time/total_timesteps"]), scored_texts(agent.episodes, agent.kl.reference)))

    before = scored_texts(write(agent.policy, held_out), agent.kl.reference)
    agent.learn(timesteps, callback=record, progress_bar=True)
    return Run(name, rows, before, scored_texts(write(agent.policy, held_out), agent.kl.reference))


def row(tokens: int, texts: Sequence[ScoredText]) -> Row:
    sentiments = Sentiment()(TextBatch.from_texts([text.completion for text in texts]))
    return Row(tokens, float(sentiments.mean()), float(np.median([text.perplexity for text in texts])))


def write(policy: LMPolicy, env: gym.vector.VectorEnv) -> Episodes:
    """Continue held-out prompts, with the same prompts and random numbers for every policy."""
    return collect(env, policy, env.num_envs, seed=1, generator=torch.Generator().manual_seed(1))


def side_by_side(left: Run, right: Run) -> str:
    """Return completions of both in two columns under their prompts."""
    width = min(56, (shutil.get_terminal_size((120, 24)).columns - 6) // 2)
    lines = [f"  {left.name:<{width}}   {right.name}"]
    pairs = {text.prompt: (text, other) for text, other in zip(left.after, right.after, strict=True)}
    for prompt, texts in itertools.islice(pairs.items(), NUM_SHOWN):
        lines.append(f"> {display_text(prompt, one_line=True)} ...")
        cells = [cell(text, width) for text in texts]
        lines += [f"  {a:<{width}}   {b}" for a, b in itertools.zip_longest(*cells, fillvalue="")]
    return "\n".join(lines)


def cell(text: ScoredText, width: int) -> list[str]:
    words = display_text(" ".join(text.completion.split()))
    return textwrap.wrap(f"[{text.score:+.2f}, perplexity {text.perplexity:,.1f}] {words}", width)


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Plot sentiment and perplexity against tokens."""
    figure = Figure(figsize=(11, 4.5), layout="tight")
    left, right = figure.subplots(1, 2)
    for run, color in zip(runs, ("tab:red", "tab:blue"), strict=True):
        tokens = [row.tokens for row in run.rows]
        left.plot(tokens, [row.sentiment for row in run.rows], color=color, label=run.name)
        right.plot(tokens, [row.perplexity for row in run.rows], color=color, label=run.name)
    left.set_ylabel("mean sentiment of the texts (1 is the maximum)")
    right.set_ylabel("median perplexity under the initial LM")
    right.set_yscale("log")
    left.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("tokens")
        axes.grid(alpha=0.3)
    left.set_title("Sentiment rises in both runs", fontsize=11)
    right.set_title("Only one stays fluent", fontsize=11)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Test the scorers on degenerate texts, train on both, show texts and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=TIMESTEPS, help="tokens per training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kl-coef", type=float, default=0.05, help="of the second training (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder (default: the first free runs/hacking-N)")
    args = parser.parse_args()
    out = args.out or next(p for n in itertools.count(1) if not (p := Path(f"runs/hacking-{n}")).exists())
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # fastest for a model this small

    print("Scores of degenerate texts; * marks those that reach the median of good texts.\n")
    weighted = WeightedSum({"sentiment": ("sentiment", 1.0), "repetition": ("repetition", -1.0)})
    print(probe_hacks({"sentiment": naive(), "less repetition": weighted, "product": composite()}), end="\n\n")
    runs = [
        train("sentiment alone", naive(), 0.0, args.timesteps, args.seed),
        train("sentiment x fluency x variety, and KL", composite(), args.kl_coef, args.timesteps, args.seed),
    ]
    draw(out / "reward_hacking.png", runs)
    print("\nHeld-out prompts, continued by both; in brackets the score and the perplexity under the initial LM.\n")
    print(side_by_side(*runs))
    print(f"\n{f'{NUM_EVALUATED} held-out prompts':40} mean sentiment  median perplexity")
    for name, texts in (("initial LM", runs[0].before), *((run.name, run.after) for run in runs)):
        _, sentiment, perplexity = row(args.timesteps, texts)
        print(f"{name:40} {sentiment:+14.3f}  {perplexity:17,.1f}")
    print(f"\nPlot: {out / 'reward_hacking.png'}")


if __name__ == "__main__":
    main()
