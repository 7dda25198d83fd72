"""Alarms of the demo with and without its KL penalty, and false alarms over healthy seeds.

    OMP_NUM_THREADS=1 python benchmarks/alarms.py [--timesteps 100000] [--seeds 20] [--seed-timesteps 25000]

The setting is that of examples/quickstart.py, whose KL penalty of 0.03 keeps the texts fluent: its runs are healthy, so
every alarm in them is a false one. The runs over the seeds are shorter than the demo, to save time.
"""

import argparse
import runpy
import time
from pathlib import Path

import gymnasium as gym
import torch

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.endings import SentenceEnd
from textgym_agents import Reinforce
from textgym_agents.inspection import Alarms

UPDATES = 60
QUICKSTART = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "quickstart.py"))


def train(kl_coef: float, seed: int, timesteps: int) -> tuple[Alarms, int, float]:
    """Train as the demo does; return the callback, the number of updates, and the callback's share of the time."""
    env = gym.make_vec(
        "TextGen-v0",
        num_envs=64,
        prompts="openings:train",
        scorer="sentiment",
        stop=SentenceEnd(min_new_tokens=20),
        max_new_tokens=48,
        autoreset_mode="SameStep",
    )
    agent = Reinforce("tiny", env, num_episodes=64, learning_rate=5e-4, kl_coef=kl_coef, seed=seed)
    alarms, seconds = Alarms(None), 0.0

    def callback(agent: Reinforce, metrics: dict[str, float]) -> bool:
        nonlocal seconds
        start = time.process_time()
        alarms.on_update_end(agent, metrics)
        seconds += time.process_time() - start
        return agent.num_updates < UPDATES

    start = time.process_time()
    agent.planned_timesteps = timesteps
    alarms.on_training_start(agent)
    agent.learn(timesteps, callback=callback)
    return alarms, agent.num_updates, seconds / (time.process_time() - start)


def described(alarms: Alarms) -> str:
    """Return the alarms with their updates and values."""
    found = [
        f"{a.name} at update {a.update} ({a.value:.3g}, threshold {a.threshold:.3g}, episode {a.episodes[:1]})"
        for a in alarms.alarms
    ]
    return "; ".join(found) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=QUICKSTART["TIMESTEPS"], help="tokens of the two demo runs")
    parser.add_argument("--seeds", type=int, default=20, help="healthy runs")
    parser.add_argument("--seed-timesteps", type=int, default=25_000, help="tokens of each healthy run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    raised, runs = 0, 0
    for seed in range(args.seeds):
        alarms, updates, _ = train(QUICKSTART["KL_COEF"], seed, args.seed_timesteps)
        raised, runs = raised + len(alarms.alarms), runs + bool(alarms.alarms)
        print(
            f"healthy seed {seed}, {updates} updates: {described(alarms)}; so far {raised} false alarms in {runs} of "
            f"{seed + 1} runs",
            flush=True,
        )
    for kl_coef in (0.0, QUICKSTART["KL_COEF"]) if args.timesteps else ():
        alarms, updates, share = train(kl_coef, 0, args.timesteps)
        print(f"kl_coef {kl_coef}, {updates} updates: {described(alarms)}; the callback took {share:.1%} of the time")


if __name__ == "__main__":
    main()
