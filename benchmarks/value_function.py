"""What V(s) explains of the returns of fresh episodes, its smoothness, and its cost.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/value_function.py [--tasks] [--model tiny] [--seeds 3]

Per seed and value function ("prefix"; "linear", the linear head), PPO trains V for `--updates` updates of 64 episodes
while the language model is frozen; then training goes on until half of the distance to the best score is closed. Each
row is the explained variance of the rest of the return in 512 fresh episodes at 1/4, 1/2, 3/4 of the text and in its
last state, of V and of an affine function of the score of the text so far; then the mean |V(s') - V(s)| at tokens of
probability above 0.99 over that at the others. The last line is the processor time of a PPO iteration relative to one
with the linear head.
"""

import argparse
import statistics
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import textgym  # noqa: F401 (registers the environments)
from textgym.endings import SentenceEnd
from textgym_agents import PPO, Episodes, LMPolicy, PPOConfig, branch, collect

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
STORY = {"prompts": "openings:train", "scorer": "sentiment", "stop": SentenceEnd(16), "max_new_tokens": 40}
TASKS = ("TextGenDialogue-v0", "TextGenTranslation-v0", "TextGenQA-v0", "TextGenSummary-v0")


def make_env(env_id: str, num_envs: int, model: str, **keywords: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(env_id, num_envs=num_envs, model=model, autoreset_mode="SameStep", **keywords)


def make_agent(env_id: str, model: str, value_function: Any, seed: int, **keywords: Any) -> PPO:
    policy = LMPolicy(model, value_function=value_function)
    return PPO(policy, make_env(env_id, 64, model, **keywords), PPOConfig(kl_coef=0.0, seed=seed))


def train(agent: PPO, updates: int, frozen: bool) -> float:
    """Return the mean return of the last update."""
    rates = [group["lr"] for group in agent.optimizer.param_groups]
    if frozen:
        agent.optimizer.param_groups[0]["lr"] = 0.0
    for _ in range(updates):
        metrics = agent.learn_from(agent.collect())
    for group, rate in zip(agent.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return metrics["rollout/ep_rew_mean"]


def explained(values: torch.Tensor, episodes: Episodes) -> list[float]:
    """Return the explained variance of the rest of the return at each fraction of the text."""
    returns = episodes.rewards.flip(1).cumsum(1).flip(1)
    rows = []
    for fraction in FRACTIONS:
        step = torch.minimum((episodes.num_steps * fraction).long(), episodes.num_steps - 1)[:, None]
        target, value = returns.gather(1, step), values.gather(1, step)
        rows.append(float(1 - (target - value).var() / target.var()))
    return rows


def explained_by_the_score_so_far(episodes: Episodes) -> list[float]:
    """Return the squared correlation of the score so far, the sum of past rewards of a potential, with the final."""
    so_far = episodes.rewards.cumsum(1) - episodes.rewards
    rows = []
    for fraction in FRACTIONS:
        step = torch.minimum((episodes.num_steps * fraction).long(), episodes.num_steps - 1)[:, None]
        rows.append(float(np.corrcoef(so_far.gather(1, step)[:, 0], episodes.returns)[0, 1] ** 2))
    return rows


def jumps(episodes: Episodes) -> float:
    """Return the mean |V(s') - V(s)| at tokens of probability above 0.99 over that at the others."""
    change = episodes.values.diff(dim=1).abs()
    inside, forced = episodes.mask[:, 1:], episodes.log_probs[:, :-1].exp() > 0.99
    return float(change[inside & forced].mean() / change[inside & ~forced].mean())


def report(name: str, agent: PPO, env_id: str, model: str, seed: int, keywords: dict[str, Any]) -> None:
    def fresh(**reward: str) -> Episodes:
        env = make_env(env_id, 256, model, **keywords, **reward)
        return collect(env, agent.policy, 512, seed=1_000 + seed, generator=torch.Generator().manual_seed(seed))

    episodes = fresh()
    rows = {
        name: explained(episodes.values, episodes),
        "score so far": explained_by_the_score_so_far(fresh(reward="potential")),
    }
    for label, numbers in rows.items():
        print(f"  {label:28} " + " ".join(f"{number:6.2f}" for number in numbers), flush=True)
    print(f"  mean return {float(episodes.returns.mean()):.2f}, |dV| at forced / other tokens {jumps(episodes):.2f}")


def rank_correlation(agent: PPO, model: str, seed: int, num_episodes: int, num_rollouts: int = 64) -> float:
    """Return the mean, over episodes, of the rank correlation of V with V by rollouts over the states of a text."""
    env = make_env("TextGen-v0", num_episodes, model, **STORY)
    observations, _ = env.reset(seed=2_000 + seed)
    generator, values, truth = torch.Generator().manual_seed(seed), [], []
    running = np.ones(num_episodes, dtype=np.bool_)
    alive = []
    while running.any():
        truth.append(branch(env, agent.policy, num_rollouts, seed=seed).values)
        output = agent.policy.act(observations, generator=generator)
        values.append(output.values)
        alive.append(running.copy())
        observations, _, terminated, truncated, _ = env.step(output.actions)
        running &= ~(terminated | truncated)
    correlations = []
    for column in range(num_episodes):
        inside = np.array(alive)[:, column]
        ranks = [np.argsort(np.argsort(np.array(each)[inside, column])) for each in (values, truth)]
        correlations.append(np.corrcoef(*ranks)[0, 1])
    return float(np.mean(correlations))


def cost(model: str, rounds: int) -> float:
    """Return the processor time of a PPO iteration relative to one with the linear head, the median of rounds."""
    agents = [make_agent("TextGen-v0", model, name, 0, **STORY) for name in ("prefix", "linear")]
    ratios = []
    for _ in range(rounds + 1):
        seconds = []
        for agent in agents:
            start = time.process_time()
            agent.learn_from(agent.collect())
            seconds.append(time.process_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=48, help="updates with a frozen model (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=20, help="episodes with V by rollouts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the cost (default: %(default)s)")
    parser.add_argument("--tasks", action="store_true", help="the tasks instead of the demo's setting")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(args.seeds):
        for env_id in TASKS if args.tasks else ("TextGen-v0",):
            keywords = {} if args.tasks else STORY
            for name in ("prefix", "linear"):
                agent = make_agent(env_id, args.model, name, seed, **keywords)
                start = train(agent, args.updates, frozen=True)
                print(f"{env_id}, seed {seed}, {name}, at the starting policy")
                report(name, agent, env_id, args.model, seed, keywords)
                if args.tasks:
                    continue
                if name == "prefix" and args.episodes:
                    correlation = rank_correlation(agent, args.model, seed, args.episodes)
                    print(f"  rank correlation with V by 64 rollouts within episodes {correlation:.2f}", flush=True)
                updates = 0
                while train(agent, 1, frozen=False) < (1 + start) / 2:
                    updates += 1
                print(f"{env_id}, seed {seed}, {name}, half of the distance closed, {updates + 1} updates later")
                report(name, agent, env_id, args.model, seed, keywords)
    if args.rounds:
        print(f"PPO iteration, relative to the linear head: {cost(args.model, args.rounds):.3f} (at most 1.05)")


if __name__ == "__main__":
    main()
