"""Three ways to say what a text is worth: a plain function, a scorer with a batch, and a weighted sum of both.

python examples/custom_scorer.py [--timesteps 20000]
"""

import argparse

import gymnasium as gym
import numpy as np

from textgym import TextBatch
from textgym.scorers import Repetition, Scorer
from textgym.testing import check_scorer
from textgym_agents import Reinforce


def somebody_speaks(completion: str) -> float:
    """1 if there is direct speech, else 0."""
    return float('"' in completion)


class ShortSentences(Scorer):
    """1 for sentences of at most six words on average, falling to 0 at twelve.

    Range [0, 1]; a text without a sentence end counts as one sentence; an empty completion scores 1.
    """

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> np.ndarray:
        """Return (B,) float64."""
        words = np.array([len(text.split()) for text in batch.completions])
        ends = np.array([max(1, sum(map(text.count, ".!?"))) for text in batch.completions])
        return np.clip(2 - words / ends / 6, 0.0, 1.0)


def main() -> None:
    """Check the scorer against the contract, then train on the sum and show which part moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=20_000)
    args = parser.parse_args()

    check_scorer(ShortSentences())
    scorer = {
        "speech": (somebody_speaks, 1.0),
        "short": (ShortSentences(), 0.5),
        "repetition": (Repetition(n=2), -1.0),
    }
    env = gym.make_vec("TextGen-v0", num_envs=64, scorer=scorer, autoreset_mode="SameStep")
    agent = Reinforce("tiny", env, learning_rate=3e-4, kl_coef=0.05)
    agent.learn(args.timesteps, callback=lambda _, metrics: print(f"score {metrics['rollout/score_mean']:+.3f}"))

    observations, infos = env.reset(seed=0)
    while "final_info" not in infos:
        actions, _ = agent.predict(observations)
        observations, _, _, _, infos = env.step(actions)
    last = infos["final_info"]
    slot = int(np.flatnonzero(last["_score"])[0])
    parts = {name: values[slot] for name, values in last["scores"].items() if not name.startswith("_")}
    print(f"\n{last['prompt'][slot]} ...{last['completion'][slot]}")
    print("  ".join(f"{name} {value:.2f}" for name, value in parts.items()))


if __name__ == "__main__":
    main()
