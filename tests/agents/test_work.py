"""Tokens fed to the language model and forwards per episode: the work behind speed, counted without a clock.

Every text has a prompt of P = 5 tokens and T = 6 new ones, so the least work is known: a rollout feeds the new tokens
once and the shared prompt once; an update feeds P + T - 1 tokens of each episode per epoch, in one forward a minibatch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import stable_baselines3
import torch
from torch import nn

from fixtures import TOKENIZER, make_env, share_of_b, small_lm
from textgym import TextGenVecEnv
from textgym.tokenizers import CharTokenizer
from textgym_agents import A2C, DQN, GRPO, PPO, Reinforce, SoftQ
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy

PROMPT, T, NUM_EPISODES = "abcde", 6, 16
P = len(PROMPT)
FULL = P + T - 1
"""Tokens in one forward over a whole text: nothing follows its last token."""


class WithoutEOS(CharTokenizer):
    """Its last token ends no text, so that all have T tokens."""

    def __init__(self, alphabet):
        super().__init__(alphabet)
        self.eos_token_id = None


KEYWORDS = {
    "tokenizer": WithoutEOS(TOKENIZER.alphabet),
    "prompts": [PROMPT],
    "max_prompt_tokens": P,
    "max_new_tokens": T,
}


@contextmanager
def work() -> Iterator[list[int]]:
    """Numbers of tokens of each forward of any language model over the small vocabulary."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(module, nn.Embedding) and module.num_embeddings == TOKENIZER.vocab_size:
            counts.append(inputs[0].numel())

    handle = nn.modules.module.register_module_forward_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def agent_of(algorithm, num_envs=4, **settings):
    env = make_env(num_envs, **KEYWORDS, group_size=4 if algorithm is GRPO else 1)
    return algorithm(small_lm(), env, num_episodes=NUM_EPISODES, **settings)


def test_a_rollout_feeds_each_token_once_and_a_shared_prompt_once():
    agent = agent_of(Reinforce)
    agent.update(agent.collect())  # changed weights empty the KV cache; the first forwards check the cache as well
    with work() as fed:
        agent.collect()
    assert fed == [P - 1 + 4, *[4] * (NUM_EPISODES // 4 * T - 1)]


def test_groups_cost_no_more_than_independent_episodes():
    agent = agent_of(GRPO)
    agent.update(agent.collect())
    with work() as fed:
        agent.collect()
    assert sum(fed) == P - 1 + NUM_EPISODES * T


PLAIN = {"n_epochs": 2, "batch_size": 8, "imitation_coef": 0.0}


@pytest.mark.parametrize(
    ("algorithm", "settings", "num_forwards", "passes"),
    [
        (Reinforce, {"kl_coef": 0.0}, 1, 1),
        (Reinforce, {}, 1 + 1, 1 + 1),  # the reference's forward, and the policy's
        (A2C, {}, 1 + 1, 1 + 1),
        (PPO, PLAIN | {"kl_coef": 0.0}, 2 * 2, 2),
        (PPO, PLAIN, 1 + 2 * 2, 1 + 2),
        (PPO, PLAIN | {"micro_batch": 4}, 4 + 2 * 4, 1 + 2),
        (PPO, PLAIN | {"imitation_coef": 1.0, "imitation_batch_size": NUM_EPISODES}, 1 + 2 * 2 + 1, 1 + 2 + 1),
        (GRPO, PLAIN | {"kl_coef": 0.0}, 2 * 2, 2),
        (GRPO, PLAIN, 1 + 2 * 2, 1 + 2),
        (DQN, {"gradient_steps": 2, "batch_size": NUM_EPISODES}, 2 * 2, 2 * 2),  # online and target network
        (SoftQ, {"gradient_steps": 2, "batch_size": NUM_EPISODES}, 2 * 2, 2 * 2),  # policy and reference
    ],
)
def test_an_update_feeds_each_episode_once_a_pass(algorithm, settings, num_forwards, passes):
    agent = agent_of(algorithm, **settings)
    episodes = agent.collect()
    with work() as fed:
        agent.update(episodes)
    assert len(fed) == num_forwards
    assert sum(fed) == passes * NUM_EPISODES * FULL


def test_stock_ppo_feeds_each_token_once_while_acting_and_each_episode_once_an_epoch():
    env = TextGenVecEnv(4, scorer=share_of_b, **KEYWORDS)
    model = stable_baselines3.PPO(
        LMActorCriticPolicy, env, n_steps=4 * T, batch_size=8 * T, n_epochs=2,
        rollout_buffer_class=EpisodeRolloutBuffer, policy_kwargs={"model": small_lm()},
    )  # fmt: skip
    timesteps = NUM_EPISODES * T
    model.learn(timesteps)
    with work() as fed:
        model.learn(timesteps)
    last_values = 4  # of the states that follow the rollout, which SB3 asks for whether or not it needs them
    rollout = [P - 1 + 4, *[4] * (timesteps // 4 - 1), last_values]
    assert fed == rollout + [8 * FULL] * (2 * 2)
