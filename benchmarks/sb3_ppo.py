"""Training speed of stock SB3 PPO in tokens per second, with textgym's policy and buffer and with a naive LM policy.

    OMP_NUM_THREADS=1 python benchmarks/sb3_ppo.py

Both train the embedded model on the same task, stories of 48 tokens, few of which end before, with the same settings.
The naive policy is what the SB3 documentation suggests: an ActorCriticPolicy whose forward runs the model on padded
texts with an attention mask, in every step and for every transition of every minibatch, with SB3's rollout buffer. It
is not slowed down on purpose: texts are cut to the longest of the batch, and logits are computed for the last token
only.
"""

import time
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from textgym import TextGenVecEnv
from textgym.lm import load_lm
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy

NUM_TOKENS = 48
SETTINGS = {"n_steps": NUM_TOKENS, "n_epochs": 4, "batch_size": 384, "learning_rate": 1e-5, "gamma": 1.0, "seed": 0}
NUM_ENVS = 32


class NaiveLMPolicy(ActorCriticPolicy):
    """An SB3 policy on a language model without textgym_agents."""

    def _build(self, lr_schedule: Any) -> None:
        self.lm = load_lm("tiny")
        self.value_net = nn.Linear(self.lm.config.hidden_size, 1)
        nn.init.zeros_(self.value_net.weight)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1))

    def read(self, obs: torch.Tensor) -> tuple[CategoricalDistribution, torch.Tensor]:
        """Return pi(.|s) and (N, 1) V(s) of (N, L) windows."""
        mask = obs != self.action_space.n
        lengths = mask.sum(dim=1)
        mask = mask[:, : lengths.max()]
        ids = obs[:, : lengths.max()].masked_fill(~mask, 0)
        hidden = self.lm.transformer(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        hidden = hidden[torch.arange(len(ids)), lengths - 1]
        return self.action_dist.proba_distribution(self.lm.lm_head(hidden)), self.value_net(hidden)

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> tuple[torch.Tensor, ...]:
        """Choose actions."""
        distribution, values = self.read(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Evaluate actions."""
        distribution, values = self.read(obs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def predict_values(self, obs: torch.Tensor) -> torch.Tensor:
        """Return V(s)."""
        return self.read(obs)[1]


def make_env() -> TextGenVecEnv:
    return TextGenVecEnv(
        NUM_ENVS, max_new_tokens=NUM_TOKENS, scorer=lambda completion: completion.count("e") / max(1, len(completion)),
    )  # fmt: skip


def tokens_per_second(model: PPO, num_rollouts: int) -> float:
    """Return tokens per second, after one rollout and update as warm-up."""
    size = NUM_TOKENS * NUM_ENVS
    model.learn(size)
    start = time.perf_counter()
    model.learn(num_rollouts * size)
    return num_rollouts * size / (time.perf_counter() - start)


def main() -> None:
    torch.set_num_threads(1)
    ours = PPO(LMActorCriticPolicy, make_env(), rollout_buffer_class=EpisodeRolloutBuffer, **SETTINGS)
    naive = PPO(NaiveLMPolicy, make_env(), **SETTINGS)
    # Measured alternately, so that a temporarily slower machine affects both.
    fast, slow = [], []
    for _ in range(3):
        fast.append(tokens_per_second(ours, 4))
        slow.append(tokens_per_second(naive, 1))
    fast.sort(), slow.sort()
    print(f"SB3 PPO with LMActorCriticPolicy and EpisodeRolloutBuffer: {fast[1]:,.0f} tokens/s")
    print(f"SB3 PPO with a naive policy and SB3's buffer: {slow[1]:,.0f} tokens/s")
    print(f"ratio: {fast[1] / slow[1]:.1f} (at least 10)")


if __name__ == "__main__":
    main()
