"""Teach the embedded LM to translate English into French, in about a minute on a CPU.

python examples/tasks/translation.py [--timesteps N] [--seed 0]
"""

import gymnasium as gym
from before_and_after import learn

from textgym_agents import GRPO


def make_agent(env: gym.vector.VectorEnv, seed: int) -> GRPO:
    return GRPO("tiny", env, num_episodes=128, learning_rate=3e-4, kl_coef=0.0, variant="rloo", seed=seed)


if __name__ == "__main__":
    learn(__doc__, "TextGenTranslation-v0", make_agent, timesteps=150_000)
