"""Environments over characters, whose texts the tests write by hand."""

import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id


def make(**kwargs):
    return TextGenEnv(**{"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 8, "scorer": length} | kwargs)


def make_vector(num_envs=2, **kwargs):
    keywords = {"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 8, "scorer": length}
    return TextGenVectorEnv(num_envs, **keywords | kwargs)


def length(completion):
    return float(len(completion))


def write(env, text):
    """Step through the characters of ``text``; ``$`` is EOS. Return what the last step gave."""
    for character in text:
        outcome = env.step(EOS if character == "$" else CHAR.encode(character)[0])
    return outcome


def started(seed=0, **kwargs):
    env = make(**kwargs)
    env.reset(seed=seed)
    return env


def unchanged(env, error, message, call):
    """The call raises, and the whole state is as it was."""
    before = env.get_state()
    with pytest.raises(error, match=message):
        call()
    check_same(before, env.get_state(), "state")
