"""Compare agents on the tasks, between the untrained language model and the known optimum.

    python -m textgym_agents.leaderboard [--tasks qa summary] [--agents PPO GRPO] [--seeds 3] [--out docs]

For each task: random tokens, the embedded LM greedy, sampled and as the best of 8, then trained by Reinforce, PPO,
GRPO, DQN and Stable-Baselines3's PPO, and the optimum, each on the same held-out cases. It writes leaderboard.json,
leaderboard.md and leaderboard.png, and can be interrupted: finished runs are kept, and not run again.
"""

from textgym_agents.leaderboard import main

if __name__ == "__main__":
    main(description=__doc__)
