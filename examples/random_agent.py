"""A random agent, without and with action masks.

python examples/random_agent.py
"""

import gymnasium as gym

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.constraints import AllOf, AllowTokens, MinNewTokens


def main() -> None:
    """Run a few episodes of each and print the texts."""
    env = gym.make("TextGen-v0", max_new_tokens=16, render_mode="ansi")
    env.action_space.seed(0)
    for seed in range(3):
        env.reset(seed=seed)
        ended = False
        while not ended:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            ended = terminated or truncated
        print(f"{reward:+.2f} {info['end_reason']:15} {env.render()}")

    words = [" sun", " rain", " day", " sea", " and", " the", " a", " bright", " cold", " was"]
    tokenizer = env.unwrapped.tokenizer
    known = [word for word in words if len(tokenizer.encode(word)) == 1]
    rules = AllOf(AllowTokens(known), MinNewTokens(4))
    env = gym.make("TextGen-v0", max_new_tokens=8, constraints=rules, step_info=("action_mask",), render_mode="ansi")
    env.action_space.seed(0)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        ended = False
        while not ended:
            action = env.action_space.sample(info["action_mask"])
            _, reward, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
        print(f"{reward:+.2f} {info['end_reason']:15} {env.render()}")


if __name__ == "__main__":
    main()
