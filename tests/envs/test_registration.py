"""Ids, keywords, the EnvSpec, and the token budget as Gymnasium's step limit."""

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym.registration import IDS
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
KEYWORDS = {"tokenizer": "char", "prompts": ["Hi ", "Hello "], "max_new_tokens": 4, "scorer": "length_band"}


def make_vec(num_envs=3, autoreset_mode="SameStep", **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=autoreset_mode, **KEYWORDS | kwargs)


# EnvSpec --------------------------------------------------------------------------------------------------------------


def run_python(code):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_the_id_with_its_module_works_without_an_import():
    code = "import gymnasium; print(gymnasium.make('textgym:TextGen-v0', tokenizer='char', prompts=['a']).reset()[1])"
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("{}\n", "")


def test_a_spec_goes_through_json_and_makes_an_equal_environment():
    keywords = KEYWORDS | {
        "scorer": {"length_band": 1.0, "repetition": -0.5},
        "stop": ("!",),
        "constraints": ("no_repeat_ngram",),
        "step_info": ("action_mask",),
        "observation": "dict",
    }
    env = gym.make("TextGen-v0", **keywords)
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    other = gym.make(spec)
    assert other.observation_space == env.observation_space
    check_same(env.reset(seed=3), other.reset(seed=3), "reset")
    for action in (5, 6, 7, EOS):
        check_same(env.step(action), other.step(action), "step")


def test_the_defaults_of_the_config_survive_json_without_becoming_slow():
    env = gym.make("TextGen-v0", **KEYWORDS, constraints=(), stop=(), step_info=())
    other = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert not other.unwrapped.has_invalid_actions


# Keywords and ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [textgym.TextGenEnv, textgym.TextGenVectorEnv, textgym.TextGenVecEnv])
def test_an_unknown_keyword_is_a_type_error_as_in_python(make):
    with pytest.raises(
        TypeError, match="got an unexpected keyword argument 'max_token'; did you mean 'max_new_tokens'"
    ):
        make(max_token=3)
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'scorrer'; did you mean 'scorer'"):
        make(task="qa", scorrer="length")


def test_every_interface_takes_every_id():
    for env_id in IDS:
        single, vector = textgym.TextGenEnv(id=env_id), textgym.TextGenVectorEnv(2, id=f"textgym:{env_id}")
        ours = textgym.TextGenVecEnv(2, id=env_id)
        ours.seed(3)
        expected = gym.make(env_id).reset(seed=3)[0]
        for observation in (single.reset(seed=3)[0], vector.reset(seed=3)[0][0], ours.reset()[0]):
            np.testing.assert_array_equal(observation, expected)


def test_an_id_of_ones_own_joins_the_table():
    textgym.register_env("OwnShort-v0", task="qa", max_new_tokens=5)
    try:
        assert gym.make("OwnShort-v0").unwrapped.max_new_tokens == 5
        assert textgym.TextGenVecEnv(1, id="OwnShort-v0").max_new_tokens == 5
        with pytest.raises(ValueError, match="'OwnShort-v0' is registered already"):
            textgym.register_env("OwnShort-v0")
    finally:
        del gym.registry["OwnShort-v0"], IDS["OwnShort-v0"]


@pytest.fixture
def own_ids():
    """Ids that build on another one and on one another, taken off the table again."""
    textgym.register_env("OwnCopy-v0", id="textgym:ProbeCopy-v0")
    textgym.register_env("OwnDict-v0", id="OwnCopy-v0", observation="dict")
    textgym.register_env("OwnBudget-v0", max_episode_steps=5, **{k: v for k, v in KEYWORDS.items() if "max" not in k})
    yield
    for env_id in ("OwnCopy-v0", "OwnDict-v0", "OwnBudget-v0"):
        del gym.registry[env_id], IDS[env_id]


MAKERS = {
    "make": lambda name, **keywords: gym.make(name, **keywords),
    "id": lambda name, **keywords: textgym.TextGenEnv(id=name, **keywords),
    "make_vec": lambda name, **keywords: gym.make_vec(name, num_envs=2, **keywords),
    "sync": lambda name, **keywords: gym.make_vec(name, num_envs=2, vectorization_mode="sync", **keywords).envs[0],
    "sb3": lambda name, **keywords: textgym.TextGenVecEnv(2, id=name, **keywords),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_id_means_the_same_wherever_it_is_given(own_ids, make):
    assert make("OwnCopy-v0").unwrapped.num_actions == 5
    env = make("OwnDict-v0").unwrapped
    assert (env.num_actions, env.config.observation) == (5, "dict")
    assert textgym.describe("OwnDict-v0") == textgym.describe("ProbeCopy-v0")
    assert make("OwnBudget-v0").unwrapped.max_new_tokens == 5
    for name in ("max_episode_steps", "max_new_tokens"):  # what is given goes before what is registered
        assert make("OwnBudget-v0", **{name: 3}).unwrapped.max_new_tokens == 3
        assert make("TextGenQA-v0", **{name: 3}).unwrapped.max_new_tokens == 3


def test_an_id_that_builds_on_one_that_does_not_exist_is_refused():
    for env_id in ("ProbeCopi-v0", "OwnLoop-v0"):
        with pytest.raises(ValueError, match=f"unknown id '{env_id}'"):
            textgym.register_env("OwnLoop-v0", id=env_id)
    assert "OwnLoop-v0" not in IDS
    assert "OwnLoop-v0" not in gym.registry


# The token budget as Gymnasium's step limit ---------------------------------------------------------------------------


def returns(env, num_steps):
    """Write one token again and again; return the flags of the last step and the return."""
    env.reset(seed=0)
    total = 0.0
    for _ in range(num_steps):
        _, reward, terminated, truncated, _ = env.step(5)
        total += reward
    return terminated, truncated, total


@pytest.mark.parametrize("time_limit", ["truncated", "terminated"])
def test_max_episode_steps_of_make_is_the_budget_and_the_text_gets_its_score(time_limit):
    keywords = {"tokenizer": "char", "prompts": ["Hi "], "scorer": len, "time_limit": time_limit}
    made = gym.make("TextGen-v0", max_episode_steps=8, **keywords)
    built = textgym.TextGenEnv(max_episode_steps=8, **keywords)
    plain = textgym.TextGenEnv(max_new_tokens=8, **keywords)
    assert made.observation_space == built.observation_space == plain.observation_space
    assert returns(made, 8) == returns(built, 8) == returns(plain, 8) == (*CUT[time_limit], 8.0)


CUT = {"truncated": (False, True), "terminated": (True, False)}


def test_max_episode_steps_of_make_may_exceed_the_default_budget():
    assert gym.make("TextGen-v0", max_episode_steps=50).unwrapped.max_new_tokens == 50
    assert gym.make("TextGenQA-v0", max_episode_steps=-1).unwrapped.max_new_tokens == 16


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_max_episode_steps_of_make_vec_is_the_budget(mode):
    keywords = {"tokenizer": "char", "prompts": ["Hi "], "scorer": len, "time_limit": "terminated"}
    envs = gym.make_vec("TextGen-v0", num_envs=2, vectorization_mode=mode, max_episode_steps=3, **keywords)
    assert envs.single_observation_space.shape == (35,)
    envs.reset(seed=0)
    for _ in range(3):
        _, rewards, terminated, truncated, _ = envs.step(np.array([5, 5]))
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([3.0] * 2, [True] * 2, [False] * 2)
    assert textgym.TextGenVecEnv(2, max_episode_steps=3, **keywords).max_new_tokens == 3


def test_the_two_names_of_the_budget_must_agree():
    with pytest.raises(ValueError, match="max_episode_steps=8 and max_new_tokens=9 are two names of one budget"):
        gym.make("TextGen-v0", max_episode_steps=8, max_new_tokens=9)
    assert gym.make("TextGen-v0", max_episode_steps=8, max_new_tokens=8).unwrapped.max_new_tokens == 8


def test_a_time_limit_wrapper_shorter_than_the_budget_is_refused():
    env = gym.wrappers.TimeLimit(gym.make("TextGen-v0", **KEYWORDS), 3)
    with pytest.raises(ValueError, match=r"a TimeLimit of 3 steps .* budget is 4 tokens.* Give max_new_tokens=3"):
        env.reset()
    assert gym.wrappers.TimeLimit(gym.make("TextGen-v0", **KEYWORDS), 9).reset(seed=0)


@pytest.mark.parametrize("make", [textgym.TextGenEnv, lambda **keywords: gym.make("TextGen-v0", **keywords)])
@pytest.mark.parametrize(("time_limit", "flags"), [("terminated", (True, False)), ("truncated", (False, True))])
def test_a_time_limit_wrapper_equal_to_the_budget_leaves_the_end_to_the_environment(make, time_limit, flags):
    env = gym.wrappers.TimeLimit(make(time_limit=time_limit, **KEYWORDS), 4)
    for _ in range(2):
        assert returns(env, 4)[:2] == flags


def test_a_time_limit_wrapper_is_found_wherever_it_stands_and_whenever_it_came():
    env = textgym.TextGenEnv(**KEYWORDS)
    env.reset(seed=0)
    wrapped = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(env, 3))
    for _ in range(2):
        with pytest.raises(ValueError, match="a TimeLimit of 3 steps"):
            wrapped.reset()
    assert env.reset(seed=0)


class Looked:
    """Counts how often a frame whose ``self`` it is has been looked at."""

    count = 0

    @property
    def __class__(self):
        self.count += 1
        return Looked

    def reset(self, env, depth):
        return self.reset(env, depth - 1) if depth else env.reset()


def test_a_reset_does_not_search_the_whole_stack_each_time():
    env, looked = gym.make("TextGen-v0", **KEYWORDS), Looked()
    looked.reset(env, 20)
    looked.count = 0
    for _ in range(10):
        looked.reset(env, 20)
    assert looked.count <= 10


def test_an_environment_that_makes_another_keeps_its_step_limit_to_itself():
    class Outer(gym.Wrapper):
        metadata = textgym.TextGenEnv.metadata  # gymnasium 1.2 reads it of the class

        def __init__(self):
            super().__init__(textgym.TextGenEnv(**KEYWORDS))

    gym.register("OuterOfText-v0", entry_point=Outer)
    try:
        assert gym.make("OuterOfText-v0", max_episode_steps=9).unwrapped.max_new_tokens == 4
    finally:
        del gym.registry["OuterOfText-v0"]


def test_the_spec_of_a_made_environment_has_the_budget_and_the_registry_does_not():
    assert gym.spec("TextGen-v0").max_episode_steps is None
    env = gym.make("TextGen-v0", **KEYWORDS)
    assert env.spec.max_episode_steps == 4
    timed = gym.wrappers.TimeAwareObservation(env, normalize_time=True, flatten=False)
    timed.reset(seed=0)
    assert [timed.step(5)[0]["time"].item() for _ in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert gym.make_vec("TextGen-v0", num_envs=2, **KEYWORDS).spec.max_episode_steps == 4
    assert gym.make_vec(env.spec, num_envs=2).unwrapped.max_new_tokens == 4
