"""Train several agents on one task and plot their scores against tokens and seconds.

    python examples/compare_agents.py [--timesteps 60000] [--seeds 3] [--agents PPO GRPO] [--out runs/compare-1]

The task is that of the demo: the embedded LM continues stories, and VADER's sentiment is the score. The plot shows the
mean over seeds with its range, and dotted lines for decoding methods that need no training. The table also shows the
perplexity under the initial LM, which rises as the texts become less fluent.
"""

import argparse
import csv
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import stable_baselines3 as sb3
import torch
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from textgym import TextGenVecEnv
from textgym_agents import (
    DQN,
    GRPO,
    PPO,
    Agent,
    Episodes,
    LMPolicy,
    Reinforce,
    SoftQ,
    collect,
    env_seed,
)
from textgym_agents.decoding import BeamSearch, BestOfN, Greedy, RandomPolicy, Sampling
from textgym_agents.policy import Policy
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy, ReportLogProbs

TASK: dict[str, Any] = {"scorer": "sentiment", "max_new_tokens": 24}
NUM_EVALUATED = 128


class Row(NamedTuple):
    """A point of a learning curve, after an update."""

    tokens: int
    seconds: float
    score: float
    """Mean score of the episodes of the update."""


def vector_env(num_envs: int, prompts: str, group_size: int = 1) -> gym.vector.VectorEnv:
    return gym.make_vec(
        "TextGen-v0", num_envs=num_envs, autoreset_mode="SameStep", prompts=prompts, group_size=group_size, **TASK
    )


def train(agent: Agent, timesteps: int) -> tuple[list[Row], Policy]:
    """Train an agent of textgym_agents."""
    rows: list[Row] = []

    def record(_: Agent, metrics: dict[str, float]) -> None:
        rows.append(
            Row(int(metrics["time/total_timesteps"]), metrics["time/time_elapsed"], metrics["rollout/score_mean"])
        )

    agent.learn(timesteps, callback=record)
    return rows, agent.policy


class RecordScores(BaseCallback):
    """Record the mean score of the episodes that ended in each rollout, after its update."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._scores: list[float] = []

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _on_step(self) -> bool:
        self._scores += [info["score"] for info in self.locals["infos"] if "score" in info]
        return True

    def _on_rollout_start(self) -> None:
        self._on_training_end()  # of the previous update: SB3 has no callback after an update

    def _on_training_end(self) -> None:
        if self._scores:
            self.rows.append(Row(self.num_timesteps, time.perf_counter() - self._start, float(np.mean(self._scores))))
            self._scores = []


def train_sb3(seed: int, timesteps: int) -> tuple[list[Row], Policy]:
    """Train stock Stable-Baselines3 PPO on a language-model policy; the environment applies the KL penalty."""
    env = TextGenVecEnv(64, prompts="openings:train", kl_penalty=0.05, **TASK)
    model = sb3.PPO(
        LMActorCriticPolicy, env, policy_kwargs={"model": "tiny"}, rollout_buffer_class=EpisodeRolloutBuffer,
        n_steps=24, batch_size=768, n_epochs=2, learning_rate=3e-4, gamma=1.0, seed=env_seed(seed),
    )  # fmt: skip
    recorder = RecordScores()
    model.learn(timesteps, callback=CallbackList([ReportLogProbs(), recorder]))
    return recorder.rows, model.policy.lm


def ours(make: Callable[[int], Agent]) -> Callable[[int, int], tuple[list[Row], Policy]]:
    return lambda seed, timesteps: train(make(seed), timesteps)


AGENTS: dict[str, Callable[[int, int], tuple[list[Row], Policy]]] = {
    "Reinforce": ours(lambda seed: Reinforce("tiny", vector_env(64, "openings:train"), seed=seed)),
    "PPO": ours(lambda seed: PPO("tiny", vector_env(64, "openings:train"), seed=seed)),
    "GRPO": ours(lambda seed: GRPO("tiny", vector_env(64, "openings:train", 4), seed=seed)),
    "DQN": ours(lambda seed: DQN("tiny", vector_env(64, "openings:train"), seed=seed)),
    "SoftQ": ours(lambda seed: SoftQ("tiny", vector_env(64, "openings:train"), seed=seed)),
    "SB3 PPO": train_sb3,
}


def evaluate(policy: Policy) -> Episodes:
    """Continue held-out prompts, with the same prompts and random numbers for every policy."""
    env = vector_env(NUM_EVALUATED, "openings:eval")
    return collect(env, policy, NUM_EVALUATED, seed=1, generator=torch.Generator().manual_seed(1))


def decoders() -> dict[str, float]:
    """Return the mean score of decoding methods on the untrained embedded LM."""
    lm, env = LMPolicy("tiny"), vector_env(NUM_EVALUATED, "openings:eval")
    policies = {
        "random tokens": RandomPolicy(lm.vocab_size),
        "greedy": Greedy(lm),
        "sampling": lm,
        "top-p 0.9": Sampling(lm, top_p=0.9),
        "beam of 4": BeamSearch(lm, env, 4),
        "best of 8": BestOfN(lm, env, 8),
    }
    scores = {}
    for name, policy in policies.items():
        episodes = collect(env, policy, NUM_EVALUATED, seed=1, generator=torch.Generator().manual_seed(1))
        scores[name] = mean_score(episodes)
    return scores


def mean_score(episodes: Episodes) -> float:
    return float(np.mean([info["score"] for info in episodes.infos]))


@torch.no_grad()
def perplexity(episodes: Episodes) -> float:
    """Return the perplexity per token under the initial LM."""
    log_probs = LMPolicy("tiny").evaluate(episodes).log_probs.sum()
    return float((-log_probs / episodes.num_steps.sum()).exp())


def draw(path: Path, curves: dict[str, list[list[Row]]], lines: dict[str, float]) -> None:
    """Plot score against tokens and against seconds."""
    figure = Figure(figsize=(11, 5), layout="tight")
    for axes, x in zip(figure.subplots(1, 2, sharey=True), ("tokens", "seconds"), strict=True):
        for name, runs in curves.items():
            end = min(getattr(run[-1], x) for run in runs)
            grid = np.linspace(max(getattr(run[0], x) for run in runs), end, 60)
            scores = [
                np.interp(grid, [getattr(row, x) for row in run], smooth([row.score for row in run])) for run in runs
            ]
            (line,) = axes.plot(grid, np.mean(scores, axis=0), label=name)
            axes.fill_between(grid, np.min(scores, axis=0), np.max(scores, axis=0), color=line.get_color(), alpha=0.15)
        for score in lines.values():
            axes.axhline(score, color="gray", linestyle=":", linewidth=1)
        axes.set_xlabel("tokens" if x == "tokens" else "seconds of training")
        axes.grid(alpha=0.3)
    left, right = figure.axes
    left.set_ylabel("mean score of the texts")
    left.legend(loc="lower right")
    height = -np.inf
    for name, score in sorted(lines.items(), key=lambda line: line[1]):
        height = max(score, height + 0.03)  # so that labels do not overlap
        right.annotate(name, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    figure.savefig(path, dpi=120)


def smooth(values: list[float]) -> list[float]:
    """Return a centred moving average over five values, over fewer near the ends."""
    reaches = [min(2, i, len(values) - 1 - i) for i in range(len(values))]
    return [float(np.mean(values[i - reach : i + reach + 1])) for i, reach in enumerate(reaches)]


def main() -> None:
    """Train all agents, print the table, write the plot and the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=60_000, help="tokens per training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per agent (default: %(default)s)")
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--out", type=Path, help="folder (default: the first free runs/compare-N)")
    args = parser.parse_args()
    out = args.out or next(p for n in itertools.count(1) if not (p := Path(f"runs/compare-{n}")).exists())
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # fastest for a model this small

    lines = decoders()
    print(f"{'without training':18} score")
    for name, score in lines.items():
        print(f"{name:18} {score:+.3f}")
    print(
        f"\n{'after ' + format(args.timesteps, ',') + ' tokens':18} score (of each seed)            perplexity  seconds"
    )
    curves: dict[str, list[list[Row]]] = {}
    for name in args.agents:
        scores, perplexities = [], []
        for seed in range(args.seeds):
            rows, policy = AGENTS[name](seed, args.timesteps)
            curves.setdefault(name, []).append(rows)
            episodes = evaluate(policy)
            scores.append(mean_score(episodes))
            perplexities.append(perplexity(episodes))
        each = " ".join(f"{score:+.2f}" for score in scores)
        seconds = np.mean([run[-1].seconds for run in curves[name]])
        print(
            f"{name:18} {np.mean(scores):+.3f} ({each:18})   {np.mean(perplexities):11.2f} {seconds:8.0f}", flush=True
        )
    draw(out / "compare_agents.png", curves, lines)
    with (out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["agent", "seed", *Row._fields])
        writer.writerows(
            (name, seed, *row) for name, runs in curves.items() for seed, run in enumerate(runs) for row in run
        )
    initial = perplexity(evaluate(LMPolicy("tiny")))
    print(f"\nThe initial LM has perplexity {initial:.2f}. Plot: {out / 'compare_agents.png'}")


if __name__ == "__main__":
    main()
