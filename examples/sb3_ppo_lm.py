"""Train the embedded language model with stock Stable-Baselines3 PPO to write happier stories.

    python examples/sb3_ppo_lm.py [--timesteps 60000]

The environment subtracts a penalty for the KL to the initial LM, which keeps the stories fluent.
"""

import argparse

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from textgym import TextGenVecEnv
from textgym.rendering import display_text
from textgym_agents import env_seed
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy, ReportLogProbs

TASK = {"scorer": "sentiment", "max_new_tokens": 24}


def stories(model: PPO, num_stories: int = 128) -> list[dict]:
    """Continue held-out prompts; return the last ``info`` of each episode."""
    env = TextGenVecEnv(num_stories, prompts="openings:eval", **TASK)
    env.seed(0)
    observations, ended = env.reset(), {}
    while len(ended) < num_stories:
        actions, _ = model.predict(observations)
        observations, _, dones, infos = env.step(actions)
        ended = {i: infos[i] for i in np.flatnonzero(dones)} | ended  # the first episode of each environment
    return list(ended.values())


def main() -> None:
    """Train, and compare mean scores before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=60_000)
    args = parser.parse_args()

    env = VecMonitor(TextGenVecEnv(64, prompts="openings:train", kl_penalty=0.05, **TASK))
    model = PPO(
        LMActorCriticPolicy, env, policy_kwargs={"model": "tiny"}, rollout_buffer_class=EpisodeRolloutBuffer,
        n_steps=24, batch_size=768, n_epochs=2, learning_rate=3e-4, gamma=1.0, seed=env_seed(0),
    )  # fmt: skip
    before = stories(model)
    model.learn(args.timesteps, callback=ReportLogProbs())
    after = stories(model)

    for story in after[:6]:
        print(f"[{story['score']:+.2f}] {display_text(story['prompt'] + '|' + story['completion'], one_line=True)}")
    means = [np.mean([story["score"] for story in batch]) for batch in (before, after)]
    print(f"mean sentiment on held-out prompts: before {means[0]:+.3f}, after {means[1]:+.3f}")


if __name__ == "__main__":
    main()
