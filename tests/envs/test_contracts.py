"""Every registered environment, and every kind of configuration, keeps the contract of environments."""

import gymnasium as gym
import numpy as np
import pytest

import textgym
from fixtures import quick_but
from textgym.actions import Subset
from textgym.constraints import AllowTokens, MinNewTokens
from textgym.prompts import Sample
from textgym.registration import IDS as KEYWORDS
from textgym.testing import check_text_env

IDS = sorted(id for id, spec in gym.registry.items() if str(spec.entry_point).startswith("textgym."))
TASK_IDS = [env_id for env_id, keywords in KEYWORDS.items() if "task" in keywords]
PROMPTS = ["Hello", "A cat ", "once", "The dog was "]
CHAR = {"tokenizer": "char", "prompts": PROMPTS, "max_new_tokens": 10}
LETTERS = [*"abcdefgh ", "<eos>"]


def vowels(completion):
    return sum(letter in "aeiou" for letter in completion) / (1 + len(completion))


def breaks_at_long_texts(completion):
    if len(completion) > 5:
        raise RuntimeError("too long for me")
    return float(len(completion))


def two_spaces(completion):
    return completion.count(" ") >= 2


def many_tokens(batch):
    return batch.num_new_tokens >= 6


class UniformReference:
    """Gives every token the same probability but the first one, which it likes less."""

    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        return np.where(actions == 0, -9.0, -np.log(97.0))


CONFIGURATIONS = {
    "char": {},
    "byte": {"tokenizer": "byte"},
    "unicode": {"tokenizer": "byte", "prompts": ["né 猫", "😀"], "stop": ["é"]},
    "wider vocabulary": {"tokenizer": textgym.tokenizers.as_tokenizer("char", vocab_size=120)},
    "stop strings": {"actions": Subset(LETTERS), "stop": ["ab", "c"]},
    "stop functions": {"actions": Subset(LETTERS), "stop": [two_spaces, many_tokens]},
    "no repetition": {"constraints": "no_repeat_ngram", "actions": Subset(["a", "b"]), "step_info": ["action_mask"]},
    "constraints": {"constraints": [MinNewTokens(4), AllowTokens([*"abc"])], "step_info": ("action_mask",)},
    "subset without EOS": {"actions": Subset([1, 5, 9], eos=False)},
    "dict": {"observation": "dict"},
    "dict and stop": {"observation": "dict", "actions": Subset(LETTERS), "stop": "a", "reward": "potential"},
    "terminated at the limit": {"time_limit": "terminated"},
    "potential": {"reward": "potential", "scorer": vowels},
    "weights": {"scorer": {"repetition": -0.5, "length_band": (vowels, 2.0)}},
    "ignore": {"constraints": AllowTokens([*"abc"]), "on_invalid_action": "ignore", "invalid_action_penalty": 0.25},
    "terminate": {"constraints": AllowTokens([*"abc"]), "on_invalid_action": "terminate", "step_info": ["action_mask"]},
    "groups": {"group_size": 3},
    "invalid": {"scorer": breaks_at_long_texts, "on_scorer_error": "invalid"},
    "instead": {"scorer": breaks_at_long_texts, "on_scorer_error": -1.0, "reward": "potential"},
    "kl": {"kl_penalty": 0.1, "reference": UniformReference()},
    "samples": {"prompts": [Sample("2 + 2 =", ("4",), {"level": 1}), {"prompt": "3 ="}]},
    "one token": {"max_prompt_tokens": 12, "max_new_tokens": 2},
    "truncated prompts": {"max_prompt_tokens": 3, "prompt_truncation": "left"},
}


def test_there_are_registered_environments():
    assert "TextGen-v0" in IDS


@pytest.mark.parametrize("env_id", quick_but(IDS, *TASK_IDS))
def test_every_registered_environment_passes(env_id):
    check_text_env(env_id)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_passes(name):
    check_text_env("TextGen-v0", **CHAR | CONFIGURATIONS[name])


@pytest.mark.parametrize("num_envs", [1, 64])
def test_any_number_of_slots_passes(num_envs):
    check_text_env("TextGen-v0", num_envs=num_envs, **CHAR | {"actions": Subset(LETTERS), "stop": "ab"})


def test_an_unimported_id_and_a_factory_pass():
    check_text_env("textgym:TextGen-v0", **CHAR)
    check_text_env(textgym.TextGenEnv, **CHAR)


@pytest.mark.parametrize("env", [textgym.TextGenEnv(**CHAR), gym.make("TextGen-v0", **CHAR), None])
def test_an_environment_in_place_of_its_id_raises_and_the_message_says_what_to_pass(env):
    with pytest.raises(TypeError, match=f"a registered id or a function .*got {type(env).__name__}: pass "):
        check_text_env(env)


def test_the_default_environment_makes_and_steps():
    env = gym.make("TextGen-v0")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)


class WrongReward(textgym.TextGenEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.float32(reward), *rest


class WideObservation(textgym.TextGenEnv):
    def step(self, action):
        observation, *rest = super().step(action)
        return observation + 100, *rest


class UndocumentedKey(textgym.TextGenEnv):
    def step(self, action):
        *rest, info = super().step(action)
        return *rest, info | {"surprise": 1}


class LosesTheScore(textgym.TextGenEnv):
    def step(self, action):
        *rest, info = super().step(action)
        info.pop("score", None)
        return *rest, info


class Unseeded(textgym.TextGenEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(options=options)


class ForgetsWhenCloned(textgym.TextGenEnv):
    def clone(self):
        other = super().clone()
        other.core.samples = [Sample("another")]
        return other


class HalfASnapshot(textgym.TextGenEnv):
    def set_state(self, state):
        super().set_state(state | {"rngs": self.get_rng_states()})


class AllowsEverything(textgym.TextGenEnv):
    def action_masks(self):
        return np.ones(self.num_actions, dtype=np.bool_)


class NeverRefuses(textgym.TextGenEnv):
    def step(self, action):
        if not self.core.running[0]:
            self.reset()
        return super().step(action)


class OtherRewardThanTheVector(textgym.TextGenEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + 1.0, *rest


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongReward, "reward .*must be a float|float32, expected float"),
        (WideObservation, "within the observation space|outside"),
        (UndocumentedKey, "undocumented key 'surprise'"),
        (LosesTheScore, r"lacks \['score'\]"),
        (Unseeded, "np_random|random generat|same seed differ"),
        (ForgetsWhenCloned, "the cloned environment does not continue as the original"),
        (HalfASnapshot, "the (cloned|restored elsewhere|restored) environment does not continue"),
        (AllowsEverything, "InvalidActionError"),
        (NeverRefuses, "a step before the first reset raises InvalidActionError"),
        (OtherRewardThanTheVector, r"vector and single environments differ \(NextStep\).*rewards"),
        (gym.make("CartPole-v1").unwrapped.__class__, "makes a CartPoleEnv, expected a TextGenEnv"),
    ],
)
def test_a_broken_environment_is_caught_and_the_message_says_how(broken, message):
    keywords = {} if not issubclass(broken, textgym.TextGenEnv) else CHAR | {"constraints": AllowTokens([*"abcd"])}
    with pytest.raises(AssertionError, match=message):
        check_text_env(broken, **keywords)


def test_an_environment_that_cannot_be_pickled_is_caught():
    with pytest.raises(AssertionError, match="cannot be pickled"):
        check_text_env("TextGen-v0", **CHAR, scorer=lambda text: len(text))
