"""Cost of an agent's update and iteration relative to the bare computation, with 64 episodes of 32 tokens.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/updates.py

The bare computation is `generate` of as many tokens from the same prompts and, per epoch, one model(ids).logits over
the batch with the cross-entropy of the sampled tokens and its backward: no environment, scorer, advantages, entropy,
clipping or optimizer step. With a KL penalty it includes the reference's forward. Both are measured alternately on the
embedded LM; figures are medians over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym_agents import GRPO, PPO, Episodes, GRPOConfig, LMPolicy, PPOConfig, Reinforce, ReinforceConfig

NUM_EPISODES, NUM_TOKENS = 64, 32


def learn_bare(policy: LMPolicy, reference: LMPolicy | None, episodes: Episodes) -> Callable[[], object]:
    """Return a function that runs forward and backward over the episodes without textgym."""
    rows, columns = episodes.states()
    chosen = episodes.ids[rows, columns + 1]

    def run() -> None:
        policy.zero_grad(set_to_none=True)
        if reference is not None:
            with torch.no_grad():
                reference.model(input_ids=episodes.ids, use_cache=False)
        logits = policy.model(input_ids=episodes.ids, use_cache=False).logits
        F.cross_entropy(logits[rows, columns], chosen).backward()

    return run


def generate(policy: LMPolicy, episodes: Episodes) -> Callable[[], object]:
    """Return a function that samples NUM_TOKENS tokens with transformers after the left-padded prompts."""
    width = int(episodes.prompt_lengths.max())
    ids = torch.zeros(len(episodes), width, dtype=torch.int64)
    for row, (text, length) in enumerate(zip(episodes.ids, episodes.prompt_lengths.tolist(), strict=True)):
        ids[row, width - length :] = text[:length]
    is_token = (torch.arange(width) >= width - episodes.prompt_lengths[:, None]).long()
    settings: dict[str, Any] = {"do_sample": True, "top_k": 0, "pad_token_id": 0}
    settings |= {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS}
    return lambda: policy.model.generate(input_ids=ids, attention_mask=is_token, **settings)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def update_ratio(kl_coef: float, num_rounds: int) -> float:
    """Return the time of Reinforce's update relative to a bare forward and backward."""
    agent = Reinforce("tiny", make_env(1), ReinforceConfig(kl_coef=kl_coef, learning_rate=1e-6))
    episodes = agent.collect()
    bare = learn_bare(agent.policy, agent.kl.reference.copy if kl_coef else None, episodes)
    ratios = [seconds(lambda: agent.update(episodes)) / seconds(bare) for _ in range(num_rounds + 2)]
    return statistics.median(ratios[2:])


def iteration_ratio(agent: PPO | GRPO, num_rounds: int) -> float:
    """Return the time of an iteration relative to `generate` and a bare forward and backward per epoch."""
    episodes = agent.collect()
    sample, learn = generate(agent.policy, episodes), learn_bare(agent.policy, None, episodes)
    ratios = []
    for _ in range(num_rounds + 2):
        before = agent.num_timesteps
        ours = seconds(lambda: agent.learn_from(agent.collect()))
        share = (agent.num_timesteps - before) / (NUM_EPISODES * NUM_TOKENS)  # fewer tokens after an early EOS
        bare = seconds(sample) * share + agent.config.n_epochs * seconds(learn)
        ratios.append(ours / bare)
    return statistics.median(ratios[2:])


def make_env(group_size: int) -> gym.vector.VectorEnv:
    keywords: dict[str, Any] = {"autoreset_mode": "SameStep", "group_size": group_size}
    return gym.make_vec("TextGen-v0", num_envs=NUM_EPISODES, max_new_tokens=NUM_TOKENS, **keywords)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    num_rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"Reinforce update without KL penalty   {update_ratio(0.0, num_rounds):.2f} x bare (at most 1.15)")
    print(f"Reinforce update with KL penalty      {update_ratio(0.1, num_rounds):.2f} x bare (at most 1.15)")
    settings: dict[str, Any] = {"kl_coef": 0.0, "learning_rate": 1e-6}
    ppo = PPO("tiny", make_env(1), PPOConfig(n_epochs=4, imitation_coef=0.0, **settings))
    print(f"PPO iteration, 4 epochs               {iteration_ratio(ppo, num_rounds):.2f} x bare (at most 1.2)")
    grpo = GRPO("tiny", make_env(8), GRPOConfig(n_epochs=1, batch_size=None, imitation_coef=0.0, **settings))
    print(f"GRPO iteration, 8 groups of 8         {iteration_ratio(grpo, num_rounds):.2f} x bare (at most 1.2)")


if __name__ == "__main__":
    main()
