"""Look at single tokens: what each was worth, why it was chosen, and what training did to it.

    python examples/why_this_token.py [--timesteps 15000] [--seed 0] [--out runs/why-1] [--no-open]

Reinforce trains the embedded LM to write happier stories. Then four held-out prompts are continued by the LM before and
after, with the same random numbers, and every token of these eight texts is judged by rollouts from copies of the
environment: its advantage is how much it changed the expected return. The report is printed, and saved as one HTML page
that opens in a browser and needs no network.
"""

import argparse
import itertools
import webbrowser
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.endings import SentenceEnd
from textgym_agents import Reinforce, RunFolder
from textgym_agents.inspection import Report, compare

TASK = {
    "scorer": "sentiment",
    "stop": SentenceEnd(min_new_tokens=20),
    "max_new_tokens": 48,
    "autoreset_mode": "SameStep",
}
NUM_PROMPTS = 4


def train(timesteps: int, seed: int, out: Path) -> Reinforce:
    env = gym.make_vec("TextGen-v0", num_envs=64, prompts="openings:train", **TASK)
    agent = Reinforce("tiny", env, num_episodes=64, learning_rate=5e-4, kl_coef=0.03, seed=seed)
    return agent.learn(timesteps, callback=RunFolder(out), progress_bar=True)


def belief_against_truth(report: Report) -> str:
    """Return how far what the agent believed, and the cheap answers, agree with the advantages by rollouts."""
    columns, lines = report.table.columns, []
    if "advantage_mc" not in columns:
        return ""
    truth = columns["advantage_mc"]
    for name in ("gae_advantage", "td_error", "kl_k1"):
        if name in columns:
            known = np.isfinite(truth) & np.isfinite(columns[name])
            lines.append(f"  {name:14} {np.corrcoef(truth[known], columns[name][known])[0, 1]:+.2f}")
    return "Correlation over tokens with the advantage by rollouts:\n" + "\n".join(lines)


def main() -> None:
    """Train, compare, branch, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=15_000, help="tokens to train on (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=25, help="time for the rollouts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run (default: the first free runs/why-N)")
    parser.add_argument("--no-open", action="store_true", help="do not open the page")
    args = parser.parse_args()
    out = args.out or next(p for n in itertools.count(1) if not (p := Path(f"runs/why-{n}")).exists())
    torch.set_num_threads(1)  # fastest for a model this small

    print(f"Training the embedded LM on {args.timesteps:,} tokens ...", flush=True)
    agent = train(args.timesteps, args.seed, out)
    held_out = gym.make_vec("TextGen-v0", num_envs=NUM_PROMPTS, prompts="openings:eval", **TASK)
    print(f"Rollouts from every token of {2 * NUM_PROMPTS} texts ...\n", flush=True)
    report = compare("tiny", agent, held_out, NUM_PROMPTS, seed=1, branches=64, seconds=args.seconds, run=out)
    report.show()
    print(f"\n{belief_against_truth(report)}")

    page = out / "report.html"
    report.save(page)
    print(f"\nThe same, token by token: {page}")
    if not args.no_open:
        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    main()
