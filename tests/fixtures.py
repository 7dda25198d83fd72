"""Small random language models and environments that the agents' tests share, and a disk that is full."""

import contextlib
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.tokenizers import CharTokenizer
from textgym_agents import QPolicy

ROOT = Path(__file__).parent.parent
"""The repository."""
TOKENIZER = CharTokenizer("abcdefg")
"""Seven letters and EOS: V = 8."""

ONE_SEED_AND_TWO_SLOW = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
"""Seeds of a learning test: the default run makes the first, the slow tests the others."""


def slow_but(names: Iterable[str], *quick: str) -> list[Any]:
    """Return the values of a parameter: the default run makes those in ``quick``, the slow tests the others."""
    names = list(names)
    assert set(quick) <= set(names)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def quick_but(names: Iterable[str], *slow: str) -> list[Any]:
    """Return the values of a parameter: the slow tests make those in ``slow``, the default run the others."""
    return slow_but(names, *(name for name in names if name not in slow))


def small_lm(seed: int = 0) -> GPT2LMHeadModel:
    """Return a random GPT-2 of 8 tokens, width 32, 2 layers, 64 positions."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=8, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=7, eos_token_id=7,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


EPSILON_GREEDY = {
    "tau": 0.1, "exploration_initial_eps": 1.0, "exploration_final_eps": 0.05, "initial_temperature": 0.0,
    "final_temperature": 0.0,
}  # fmt: skip
"""Settings of DQN for a small vocabulary."""


def textbook_q_policy(model: Any, **settings: Any) -> QPolicy:
    """Return a Q-function without a language to keep: all of the model is trained, and every token is plausible."""
    return QPolicy(model, **{"lm_prior": False, "head_gradient": True, "min_p": 0.0} | settings)


def small_q_policy(seed: int = 0, **settings: Any) -> QPolicy:
    """Return a textbook Q-function of the small vocabulary."""
    return textbook_q_policy(small_lm(seed), **settings)


def share_of_b(completion: str) -> float:
    """Share of the letter b in 6 characters: 1 at best, about 1/8 at random."""
    return completion.count("b") / 6


def make_env(num_envs: int = 8, mode: str = "SameStep", **keywords: Any) -> gym.vector.VectorEnv:
    """Return a vector environment over the small vocabulary whose optimal return is 1."""
    settings = {
        "tokenizer": TOKENIZER, "prompts": ["a", "cab", "dag"], "scorer": share_of_b, "max_new_tokens": 6,
        "max_prompt_tokens": 4,
    }  # fmt: skip
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=mode, **settings | keywords)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow past ``size`` bytes: every write that tries fails with an OSError of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
