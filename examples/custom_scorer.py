"""Three kinds of scorers: a plain function, a batched class, and a weighted sum.

python examples/custom_scorer.py [--timesteps 20000]
"""

import argparse

import gymnasium as gym
import numpy as np

from textgym import TextBatch
from textgym.rendering import display_text
from textgym.scorers import Repetition, Scorer
from textgym.testing import check_scorer
from textgym_agents import Reinforce


def direct_speech(completion: str) -> float:
    """Return 1 if there is direct speech, else 0."""
    return float('"' in completion)


class ShortSentences(Scorer):
    """1 if sentences have at most six words on average, falling linearly to 0 at twelve.

    Range [0, 1]; a text without a sentence end counts as one sentence; an empty completion scores 1.
    """

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> np.ndarray:
        """Return (B,) float64."""
        words = np.array([len(text.split()) for text in batch.completions])
        ends = np.array([max(1, sum(map(text.count, ".!?"))) for text in batch.completions])
        return np.clip(2 - words / ends / 6, 0.0, 1.0)


def main() -> None:
    """Check the scorer against the contract, train on the sum, print the scores by component."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=20_000)
    args = parser.parse_args()

    check_scorer(ShortSentences())
    scorer = {
        "speech": (direct_speech, 1.0),
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
    i = int(np.flatnonzero(last["_score"])[0])  # the first environment whose episode ended
    components = {name: values[i] for name, values in last["scores"].items() if not name.startswith("_")}
    print(f"\n{display_text(last['prompt'][i])} ...{display_text(last['completion'][i])}")
    print("  ".join(f"{name} {value:.2f}" for name, value in components.items()))


if __name__ == "__main__":
    main()
