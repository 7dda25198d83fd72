"""Train stock Stable-Baselines3 PPO with an MLP policy.

    python examples/sb3_ppo_mlp.py [--timesteps 20000]

The MLP observes token ids only, so the action space is restricted to a few words. It learns which words raise VADER's
sentiment.
"""

import argparse

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from textgym import TextGenVecEnv
from textgym.actions import Subset
from textgym.rendering import display_text
from textgym.tokenizers import WordTokenizer
from textgym_agents import env_seed

WORDS = [
    "the", "a", "dog", "cat", "sun", "rain", "was", "is", "and",
    "happy", "bright", "love", "good", "kind", "sad", "dark", "fear", "bad", "cruel",
]  # fmt: skip


def main() -> None:
    """Train, and compare the mean return before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=20_000)
    args = parser.parse_args()

    keywords = {
        "tokenizer": WordTokenizer(WORDS),
        "prompts": ["the dog was", "the cat is", "the rain and the sun"],
        "actions": Subset([f" {word}" for word in WORDS], eos=False),
        "max_new_tokens": 8,
        "max_prompt_tokens": 8,
    }
    env = VecMonitor(TextGenVecEnv(16, **keywords))
    settings = {"n_steps": 64, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}
    model = PPO("MlpPolicy", env, seed=env_seed(0), verbose=0, **settings)
    test_env = VecMonitor(TextGenVecEnv(16, **keywords))
    test_env.seed(1)
    before, _ = evaluate_policy(model, test_env, n_eval_episodes=64, deterministic=False)
    model.learn(args.timesteps)
    test_env.seed(1)
    after, _ = evaluate_policy(model, test_env, n_eval_episodes=64, deterministic=False)

    observations = test_env.reset()
    for _ in range(8):
        actions, _ = model.predict(observations, deterministic=False)
        observations, _, _, infos = test_env.step(actions)
    for info in infos[:4]:
        print(f"[{info['score']:+.2f}] {display_text(info['prompt'] + ' ...' + info['completion'])}")
    print(f"mean sentiment: before {before:+.3f}, after {after:+.3f}")


if __name__ == "__main__":
    main()
