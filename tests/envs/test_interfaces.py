"""The three interfaces as their frameworks use them: Gymnasium's vector API, EnvSpec, Stable-Baselines3, rendering."""

import os
import re
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

import textgym
from textgym.actions import Subset
from textgym.constraints import AllowTokens
from textgym.registration import IDS
from textgym.tasks import find_task
from textgym.testing import check_text_env
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
TASK_IDS = [env_id for env_id, keywords in IDS.items() if "task" in keywords]
KEYWORDS = {"tokenizer": "char", "prompts": ["Hi ", "Hello "], "max_new_tokens": 4, "scorer": "length_band"}


def make_vec(num_envs=3, autoreset_mode="SameStep", **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=autoreset_mode, **KEYWORDS | kwargs)


# Gymnasium's vector API -----------------------------------------------------------------------------------------------


def test_make_vec_makes_the_arrays_and_not_single_environments():
    envs = gym.make_vec("TextGen-v0", num_envs=3, **KEYWORDS)
    assert isinstance(envs.unwrapped, textgym.TextGenVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert envs.observation_space.shape == (3, 36)
    assert envs.single_action_space == gym.spaces.Discrete(97)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_make_vec_also_makes_gymnasiums_own_vector_environments(mode):
    theirs = gym.make_vec("TextGen-v0", num_envs=2, vectorization_mode=mode, **KEYWORDS)
    ours = gym.make_vec("TextGen-v0", num_envs=2, **KEYWORDS)
    try:
        np.testing.assert_array_equal(theirs.reset(seed=4)[0], ours.reset(seed=4)[0])
        for _ in range(6):
            check_same(theirs.step(np.array([5, EOS])), ours.step(np.array([5, EOS])), mode)
    finally:
        theirs.close()


def test_next_step_mode_resets_in_the_step_after_the_end():
    envs = make_vec(autoreset_mode="NextStep")
    envs.reset(seed=0)
    last, _, terminated, _, info = envs.step([EOS, 1, 2])
    assert terminated.tolist() == [True, False, False]
    assert info["_completion"].tolist() == [True, False, False]
    assert EOS in last[0]
    first, rewards, terminated, _, info = envs.step([7, 1, 2])
    assert (rewards[0], terminated.any(), info) == (0.0, False, {})
    assert 7 not in first[0]
    assert envs.unwrapped.core.steps.tolist() == [0, 2, 2]
    assert envs.step([7, 1, 2])[0][0].tolist().count(7) == 1


def test_next_step_mode_ignores_whatever_action_a_waiting_slot_is_given():
    envs = make_vec(autoreset_mode="NextStep", constraints=AllowTokens(["a"]))
    envs.reset(seed=0)
    a = CHAR.encode("a")[0]
    envs.step([EOS, a, a])
    envs.step([5000, a, a])
    assert envs.unwrapped.core.running.all()


def test_next_step_mode_may_have_every_slot_waiting():
    envs = make_vec(autoreset_mode="NextStep")
    envs.reset(seed=0)
    envs.step([EOS, EOS, EOS])
    _, rewards, terminated, truncated, info = envs.step([0, 0, 0])
    assert not rewards.any()
    assert not (terminated | truncated).any()
    assert info == {}


def test_same_step_mode_returns_the_new_episode_and_the_old_end():
    envs = make_vec()
    envs.reset(seed=0)
    observations, _, terminated, _, info = envs.step([EOS, 1, EOS])
    assert terminated.tolist() == [True, False, True]
    assert EOS not in observations
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == [True, False, True]
    assert info["final_obs"][1] is None
    assert EOS in info["final_obs"][0]
    assert info["final_info"]["end_reason"].tolist() == ["eos", None, "eos"]
    assert "completion" not in info


def test_same_step_mode_steps_and_ends_with_every_step():
    envs = make_vec()
    envs.reset(seed=0)
    for _ in range(3):
        assert envs.step([EOS, EOS, EOS])[2].all()


def test_disabled_mode_waits_for_a_masked_reset_which_leaves_the_others_alone():
    envs = make_vec(autoreset_mode="Disabled")
    before, _ = envs.reset(seed=0)
    after, _, _, _, _ = envs.step([EOS, 1, 2])
    with pytest.raises(ResetNeeded):
        envs.step([0, 0, 0])
    mask = np.array([True, False, False])
    options = {"reset_mask": mask}
    reset, _ = envs.reset(options=options, seed=[0, 100, 200])
    np.testing.assert_array_equal(reset[0], before[0])
    np.testing.assert_array_equal(reset[1:], after[1:])
    assert options == {"reset_mask": mask}
    other = make_vec(autoreset_mode="Disabled")
    other.reset(seed=0)
    # The generators of the slots that were not reset were not seeded either.
    check_same(other.unwrapped.get_rng_states()[1:], envs.unwrapped.get_rng_states()[1:], "generators")


@pytest.mark.parametrize("mask", [[False] * 3, np.ones(2, bool), np.ones(3), 1])
def test_a_masked_reset_needs_a_mask(mask):
    envs = make_vec(autoreset_mode="Disabled")
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="reset_mask must be bool"):
        envs.reset(options={"reset_mask": mask})


def test_a_masked_reset_takes_options_for_its_slots():
    envs = make_vec(autoreset_mode="Disabled")
    envs.reset(seed=0)
    mask = np.array([True, False, True])
    observations, _ = envs.reset(options={"reset_mask": mask, "prompt": ["x", "y"]})
    assert [CHAR.decode(row[:1]) for row in observations] == ["x", "H", "y"]


@pytest.mark.parametrize("seed", [7, np.int64(7), [7, 8, 9], (7, 8, 9)])
def test_seeds_are_one_for_all_or_one_for_each_slot(seed):
    envs = make_vec(prompts=[f"{i} " for i in range(50)])
    observations, _ = envs.reset(seed=seed)
    for slot in range(3):
        single = gym.make("TextGen-v0", **KEYWORDS | {"prompts": [f"{i} " for i in range(50)]})
        np.testing.assert_array_equal(single.reset(seed=7 + slot)[0], observations[slot])


def test_a_list_of_seeds_may_leave_slots_as_they_are_and_has_n_entries():
    envs = make_vec()
    envs.reset(seed=0)
    states = envs.unwrapped.get_rng_states()
    envs.reset(seed=[1, None, None])
    assert envs.unwrapped.get_rng_states()[0] != states[0]
    with pytest.raises(ValueError, match="2 seeds for num_envs=3"):
        envs.reset(seed=[1, 2])


def test_there_is_at_least_one_slot():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        textgym.TextGenVectorEnv(0, **KEYWORDS)


def test_an_unknown_autoreset_mode_is_refused():
    with pytest.raises(ValueError, match=r"unknown autoreset_mode .* Known: Disabled, NextStep, SameStep"):
        textgym.TextGenVectorEnv(2, autoreset_mode="Sometimes", **KEYWORDS)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_statistics_wrapper_counts_episodes(mode):
    envs = gym.wrappers.vector.RecordEpisodeStatistics(make_vec(autoreset_mode=mode))
    envs.reset(seed=0)
    for _ in range(10):
        envs.step([1, 2, EOS])
    assert envs.episode_count >= 6
    if mode == "NextStep":  # with SAME_STEP, gymnasium 1.2 miscounts the lengths
        assert set(envs.length_queue) == {4, 1}


def test_the_public_properties_reach_through_wrappers():
    env = gym.make("TextGen-v0", **KEYWORDS)
    assert env.get_wrapper_attr("pad_token_id") == 97
    assert env.get_wrapper_attr("eos_token_id") == 96
    assert env.get_wrapper_attr("max_new_tokens") == 4
    assert env.get_wrapper_attr("window") == 36
    assert env.get_wrapper_attr("num_actions") == 97
    assert env.get_wrapper_attr("action_masks")().all()
    assert env.get_wrapper_attr("tokenizer").decode([0, 1]) == "\n "
    assert not env.get_wrapper_attr("has_invalid_actions")


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


# The table of info keys -----------------------------------------------------------------------------------------------


def test_the_documented_info_keys_are_those_of_the_real_dict():
    table = re.findall(r"^    \| ``(\w+)`` \| (\S+)", textgym.TextGenEnv.__doc__, flags=re.MULTILINE)
    env = gym.make("TextGen-v0", **KEYWORDS)
    env.reset(seed=0)
    *_, info = env.step(EOS)
    assert list(info) == [key for key, _ in table]
    documented = {key: kind.strip(",") for key, kind in table if key != "end_reason"}
    assert {key: type(info[key]).__name__ for key in documented} == documented


def sections(env_id):
    """Return the text under each heading of an id's page."""
    parts = re.split(r"^## (.+)\n", textgym.describe(env_id), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("env_id", TASK_IDS)
def test_the_information_of_a_task_is_the_tables_with_what_its_docstring_adds(env_id):
    table = re.findall(r"^    \| ``(\w+)`` \|", textgym.TextGenEnv.__doc__, flags=re.MULTILINE)
    env = gym.make(env_id).unwrapped
    added = re.findall(r"``([a-z_]+)``", sections(env_id)["Information"])
    env.reset(seed=0)
    ended = False
    while not ended:
        *_, ended, _, info = env.step(env.eos_token_id)
    assert sorted(info) == sorted([*table, *added])


@pytest.mark.parametrize("env_id", TASK_IDS)
def test_the_numbers_in_the_docstring_of_a_task_are_its_own(env_id):
    env = gym.make(env_id).unwrapped
    page = sections(env_id)
    assert f"``Box(0, V, ({env.window},), int64)``" in page["Observation Space"]
    assert f"{env.max_new_tokens} tokens" in page["Episode End"]
    for column in find_task(env_id).columns:
        assert f"``{column}``" in page["Arguments"]


def test_the_further_keys_of_the_documentation_appear_where_documented():
    text = textgym.TextGenEnv.__doc__.partition("And where they apply:")[2].partition("##")[0]
    keys = set(re.findall(r"``(\w+)`` \(", text))
    everything = KEYWORDS | {
        "group_size": 2,
        "kl_penalty": 0.1,
        "reference": EqualReference(),
        "scorer": fails,
        "on_scorer_error": "invalid",
        "constraints": AllowTokens(["a"]),
        "on_invalid_action": "terminate",
        "step_info": ("action_mask", "reward_vector"),
        "reward": "redistributed",
    }
    env = textgym.TextGenEnv(**everything)
    _, info = env.reset(seed=0)
    assert set(info) == {"action_mask"}
    *_, info = env.step(3)
    plain = textgym.TextGenEnv(**KEYWORDS)
    plain.reset(seed=0)
    assert set(info) - set(plain.step(EOS)[4]) == keys


class EqualReference:
    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        return np.zeros(len(actions))


def fails(completion):
    raise RuntimeError("no")


def fails_on_b(completion):
    if "b" in completion:
        raise RuntimeError("no")
    return 1.0


APPLIES_TO_NUMBERS = {"exact": ("exact_match", 1.0), "numeric": ("numeric_answer", 1.0)}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_score_that_does_not_apply_is_missing_and_not_nan(mode):
    keywords = {"tokenizer": "char", "max_new_tokens": 2, "scorer": APPLIES_TO_NUMBERS}
    prompts = [{"prompt": "a", "references": "b"}, {"prompt": "1+1=", "references": "2"}]
    env = textgym.TextGenEnv(prompts=prompts, **keywords)
    scores = []
    for index in range(2):
        env.reset(options={"index": index})
        scores.append(env.step(EOS)[4]["scores"])
    assert [list(names) for names in scores] == [["exact"], ["exact", "numeric"]]
    envs = textgym.TextGenVectorEnv(2, prompts=prompts, autoreset_mode=mode, **keywords)
    envs.reset(options={"index": [0, 1]})
    info = envs.step([EOS, EOS])[4]
    info = info.get("final_info", info)
    assert info["scores"]["_numeric"].tolist() == [False, True]
    assert not np.isnan(info["scores"]["numeric"]).any()


def test_the_qa_task_passes_gymnasiums_comparison_of_two_runs():
    from gymnasium.utils.env_checker import data_equivalence

    env, other = gym.make("TextGenQA-v0", level=1), gym.make("TextGenQA-v0", level=1)
    env.reset(seed=0), other.reset(seed=0)
    infos = [one.step(one.unwrapped.eos_token_id)[4] for one in (env, other)]
    assert "scores" in infos[0]
    assert data_equivalence(*infos)


NUMBERS_ONLY = KEYWORDS | {
    "final_info": "numbers",
    "scorer": fails_on_b,
    "on_scorer_error": 0.5,
    "group_size": 2,
    "kl_penalty": 0.1,
    "reference": EqualReference(),
    "step_info": ("reward_vector",),
}
DTYPES = {
    "score": "float64",
    "length": "int64",
    "group": "int64",
    "kl": "float64",
    "reward_vector": "float64",
    "scorer_error": "bool",
}


def write_b(step):
    """Write b and EOS in every slot; the scorer fails."""
    step([CHAR.encode("b")[0]] * 2)
    return step([EOS] * 2)[-1]


def test_with_numbers_the_last_info_of_a_single_environment_holds_nothing_else():
    env = gym.make("TextGen-v0", **NUMBERS_ONLY)
    env.reset(seed=0)
    info = write_b(lambda actions: env.step(actions[0]))
    assert {key: str(value.dtype) for key, value in info.items()} == DTYPES
    assert (info["score"], info["length"], info["scorer_error"].item()) == (0.5, 2, True)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_with_numbers_the_last_info_of_a_vector_environment_holds_nothing_else(mode):
    envs = make_vec(
        2, mode.value, **{key: NUMBERS_ONLY[key] for key in NUMBERS_ONLY if key not in KEYWORDS}, scorer=fails_on_b
    )
    envs.reset(seed=0)
    info = write_b(envs.step)
    info = info.get("final_info", info)
    assert {key: str(value.dtype) for key, value in info.items() if key[0] != "_"} == DTYPES


def test_with_numbers_the_last_info_under_stable_baselines3_holds_nothing_else_of_ours():
    envs = textgym.TextGenVecEnv(2, **NUMBERS_ONLY)
    envs.reset()
    for info in write_b(lambda actions: envs.step(np.array(actions))):
        assert {key: str(info[key].dtype) for key in info if key not in SB3_KEYS} == DTYPES


SB3_KEYS = ("terminal_observation", "TimeLimit.truncated")


def test_with_none_the_last_info_holds_the_keys_of_step_info_only():
    env = gym.make("TextGen-v0", **KEYWORDS, final_info="none", step_info=["action_mask"])
    env.reset(seed=0)
    assert list(env.step(EOS)[4]) == ["action_mask"]
    envs = make_vec(2, final_info="none")
    envs.reset(seed=0)
    info = envs.step([EOS, 3])[4]
    assert (info["final_info"], info["_final_info"].tolist()) == ({}, [True, False])
    ours = textgym.TextGenVecEnv(2, **KEYWORDS, final_info="none")
    ours.reset()
    infos = ours.step(np.array([EOS, 3]))[3]
    assert (sorted(infos[0]), infos[1]) == (sorted(SB3_KEYS), {})


def test_an_unknown_final_info_is_refused():
    with pytest.raises(ValueError, match="unknown final_info 'number'; did you mean 'numbers'"):
        textgym.TextGenEnv(final_info="number")


@pytest.mark.parametrize("final_info", ["full", "numbers", "none"])
def test_whatever_info_holds_the_environment_keeps_the_contract(final_info):
    parts = {"length_band": 1.0, "repetition": -0.5}
    keywords = {"tokenizer": "char", "prompts": ["Hi ", "a"], "max_new_tokens": 4, "scorer": parts}
    check_text_env(
        "TextGen-v0", num_envs=2, final_info=final_info, step_info=["reward_vector", "action_mask"], **keywords
    )
    check_text_env("TextGen-v0", num_envs=2, final_info=final_info, reward="redistributed", **keywords)


def test_an_invalid_action_is_an_array_of_bool_in_every_interface():
    keywords = KEYWORDS | {"constraints": AllowTokens(["a"]), "on_invalid_action": "ignore"}
    env = gym.make("TextGen-v0", **keywords)
    env.reset(seed=0)
    flag = env.step(3)[4]["invalid_action"]
    assert (flag.dtype, flag.shape, flag.item()) == (np.bool_, (), True)
    envs = gym.make_vec("TextGen-v0", num_envs=2, vectorization_mode="sync", **keywords)
    envs.reset(seed=0)
    assert envs.step([3, CHAR.encode("a")[0]])[4]["invalid_action"].dtype == np.bool_


HEADINGS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "References",
    "Version History",
]


@pytest.mark.parametrize("env_id", IDS)
def test_every_id_has_its_page_with_all_headings(env_id):
    assert list(sections(env_id)) == HEADINGS
    assert all(text.strip() for text in sections(env_id).values())


def test_an_id_without_a_page_is_refused():
    with pytest.raises(ValueError, match="unknown id 'TextGenQ-v0'; did you mean 'TextGenQA-v0'"):
        textgym.describe("TextGenQ-v0")


# Actions and attributes -----------------------------------------------------------------------------------------------


def test_a_single_environment_takes_one_integer_only():
    env = gym.make("TextGen-v0", **KEYWORDS).unwrapped
    env.reset(seed=0)
    for action in (5, np.int64(5), np.array(5)):
        env.step(action)
    with pytest.raises(ValueError, match=r"action must be one integer, got an array of shape \(1,\): .*action\[0\]"):
        env.step(np.array([5]))


def test_call_and_get_attr_return_what_gymnasiums_own_vector_environment_does():
    ours = gym.make_vec("TextGen-v0", num_envs=2, constraints=AllowTokens(["a"]), **KEYWORDS)
    theirs = gym.make_vec(
        "TextGen-v0", num_envs=2, vectorization_mode="sync", constraints=AllowTokens(["a"]), **KEYWORDS
    )
    ours.reset(seed=0), theirs.reset(seed=0)
    for name in ("max_new_tokens", "action_space", "observation_space", "pad_token_id", "reward_names"):
        assert ours.get_attr(name) == theirs.get_attr(name)
    check_same(theirs.call("action_masks"), ours.call("action_masks"), "action_masks")
    ours.set_attr("render_mode", "ansi")
    assert ours.call("render") == ours.render()
    ours.set_attr("note", [3, 3])
    assert ours.get_attr("note") == (3, 3)
    for values in ([1], [1, 2]):
        with pytest.raises(ValueError, match="'note' must have one value in all 2"):
            ours.set_attr("note", values)
    with pytest.raises(AttributeError):
        ours.call("nothing")


# Rendering ------------------------------------------------------------------------------------------------------------


def test_ansi_renders_prompt_and_completion():
    env = gym.make("TextGen-v0", **KEYWORDS | {"prompts": ["Hi "]}, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "Hi |"
    env.step(CHAR.encode("a")[0])
    assert env.render() == "Hi |a"


def test_human_rendering_prints_at_every_reset_and_step(capsys):
    env = gym.make("TextGen-v0", **KEYWORDS | {"prompts": ["Hi "]}, render_mode="human")
    env.reset(seed=0)
    env.step(CHAR.encode("a")[0])
    assert env.render() is None
    assert capsys.readouterr().out == "Hi |\nHi |a\n"


def test_without_a_render_mode_nothing_is_printed(capsys):
    env = textgym.TextGenEnv(**KEYWORDS)
    env.reset(seed=0)
    env.step(1)
    assert env.render() is None
    assert capsys.readouterr().out == ""


def test_vector_environments_render_a_text_for_each_slot():
    for interface in (textgym.TextGenVectorEnv, textgym.TextGenVecEnv):
        envs = interface(2, render_mode="ansi", **KEYWORDS | {"prompts": ["Hi "]})
        envs.reset()
        envs.step(np.array(CHAR.encode("ab")))
        assert list(envs.render()) == ["Hi |a", "Hi |b"]
        with pytest.raises(ValueError, match="unknown render_mode 'human'"):
            interface(2, render_mode="human", **KEYWORDS)


# Stable-Baselines3 ----------------------------------------------------------------------------------------------------


def make_sb3(num_envs=3, **kwargs):
    return textgym.TextGenVecEnv(num_envs, **KEYWORDS | kwargs)


def test_an_episode_end_has_the_info_that_stable_baselines3_expects():
    envs = make_sb3(max_new_tokens=2, time_limit="truncated")
    envs.seed(0)
    assert envs.reset().shape == (3, 34)
    envs.step(np.array([1, EOS, 2]))
    observations, rewards, dones, infos = envs.step(np.array([1, 2, EOS]))
    assert rewards.dtype == np.float32
    assert dones.tolist() == [True, False, True]
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[2]["TimeLimit.truncated"] is False
    assert EOS in infos[2]["terminal_observation"]
    assert EOS not in observations
    assert infos[1] == {}


def test_seeds_and_options_are_those_of_the_next_reset_only():
    envs = make_sb3(prompts=[f"{i} " for i in range(50)])
    envs.seed(3)
    first = envs.reset()
    assert not (envs.reset() == first).all()
    envs.seed(3)
    np.testing.assert_array_equal(envs.reset(), first)
    envs.set_options({"prompt": "ab"})
    assert (envs.reset()[:, 0] == CHAR.encode("a")[0]).all()
    assert not (envs.reset()[:, 0] == CHAR.encode("a")[0]).any()
    envs.set_options([{"prompt": "ab"}, {}, {"index": 1}])
    assert envs.reset()[2, :2].tolist() == CHAR.encode("1 ")


def test_a_reset_that_fails_in_one_slot_leaves_all_as_they_were():
    envs = make_sb3()
    envs.reset()
    envs.step(np.array([1, 2, 3]))
    before = envs.get_state()
    envs.seed(4)
    envs.set_options([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c" * 100}])
    with pytest.raises(ValueError, match="100"):
        envs.reset()
    check_same(before, envs.get_state(), "the state after a reset that failed")


def test_an_ended_episode_has_its_own_error_and_not_the_next_ones():
    prompts = iter(["good"] * 2 + ["bad"] * 9)

    def fails_on_bad(prompts, completions):
        if "bad" in prompts:
            raise RuntimeError("bad prompt")
        return [0.0] * len(prompts)

    envs = make_sb3(1, prompts=prompts, scorer=fails_on_bad, reward="potential", on_scorer_error="invalid")
    envs.reset()
    assert [list(envs.step(np.array([EOS]))[3][0]).count("scorer_error") for _ in range(3)] == [0, 0, 1]
    assert "bad prompt" in envs.reset_infos[0]["scorer_error"]


def test_each_slot_has_its_own_error():
    def fails(completion):
        raise RuntimeError(f"no score for {completion!r}")

    keywords = KEYWORDS | {"scorer": fails, "on_scorer_error": "invalid", "max_new_tokens": 1}
    envs = textgym.TextGenVectorEnv(2, autoreset_mode="SameStep", **keywords)
    ours = textgym.TextGenVecEnv(2, **keywords)
    envs.reset(seed=0), ours.reset()
    actions = np.array([CHAR.encode("a")[0], CHAR.encode("b")[0]])
    texts = [
        *envs.step(actions)[4]["final_info"]["scorer_error"],
        *(info["scorer_error"] for info in ours.step(actions)[3]),
    ]
    assert [text[-3:] for text in texts] == ["'a'", "'b'"] * 2


@pytest.mark.parametrize("on_scorer_error", ["raise", "invalid"])
def test_a_reward_that_float32_cannot_hold_is_refused_and_the_step_undone(on_scorer_error):
    envs = make_sb3(2, scorer=lambda completion: 1e308, on_scorer_error=on_scorer_error)
    envs.reset()
    envs.step(np.array([1, 2]))
    for one in (envs, envs.clone()):
        before = one.get_state()
        with pytest.raises(textgym.ScorerError, match=r"a reward of 1e\+308 does not fit this interface"):
            one.step(np.array([EOS, 3]))
        check_same(before, one.get_state(), "the state after a reward that does not fit")


def test_a_clone_writes_no_reset_info_of_the_original():
    envs = make_sb3(step_info=("action_mask",))
    envs.reset()
    before = list(map(id, envs.reset_infos))
    other = envs.clone()
    while not other.step(np.zeros(3, dtype=np.int64))[2].any():
        pass
    assert list(map(id, envs.reset_infos)) == before


def test_attributes_and_methods_are_per_environment():
    envs = make_sb3(constraints=AllowTokens(["a"]))
    envs.reset()
    assert envs.get_attr("pad_token_id") == [97, 97, 97]
    assert envs.get_attr("max_new_tokens", [0, 2]) == [4, 4]
    masks = envs.env_method("action_masks", indices=[1])
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[*CHAR.encode("a"), EOS]]
    assert envs.has_attr("action_masks")
    assert len(envs.env_method("get_state")) == 3
    assert envs.env_method("set_log_probs", [0.0, 0.0, 0.0]) == [None, None, None]
    envs.set_attr("render_mode", "ansi")
    assert envs.get_attr("render_mode") == ["ansi"] * 3
    with pytest.raises(ValueError, match="can only be set for all 3"):
        envs.set_attr("render_mode", None, indices=0)
    with pytest.raises(AttributeError):
        envs.get_attr("nothing")
    assert envs.env_is_wrapped(gym.Wrapper) == [False] * 3


def test_the_mask_of_a_new_episode_is_in_the_reset_infos():
    envs = make_sb3(step_info=("action_mask",), constraints="no_repeat_ngram")
    envs.reset()
    envs.step(np.array([EOS, 1, 2]))
    np.testing.assert_array_equal(envs.reset_infos[0]["action_mask"], envs.action_masks()[0])


def test_the_monitor_counts_episodes():
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(scorer=len))
    envs.reset()
    envs.step(np.array([1, 2, 3]))
    *_, infos = envs.step(np.array([EOS, 2, 3]))
    assert (infos[0]["episode"]["r"], infos[0]["episode"]["l"]) == (1.0, 2)


def learn(agent):
    import torch

    torch.set_num_threads(1)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(2 * agent.n_steps * agent.n_envs)
    assert agent.num_timesteps == 2 * agent.n_steps * agent.n_envs
    after = list(agent.policy.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert len(agent.ep_info_buffer) > 0


def test_stock_ppo_learns_and_is_evaluated():
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(4, actions=Subset([*"abc"])))
    agent = PPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=2, seed=0, device="cpu")
    learn(agent)
    returns, lengths = evaluate_policy(agent, envs, n_eval_episodes=6, return_episode_rewards=True)
    assert len(returns) == 6
    assert max(lengths) <= 4


def test_stock_ppo_learns_from_the_dict_observation():
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(4, actions=Subset([*"abc"]), observation="dict"))
    learn(PPO("MultiInputPolicy", envs, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu"))


def test_maskable_ppo_learns_and_never_takes_an_invalid_action():
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(make_sb3(4, constraints=AllowTokens([*"abc"])))  # an invalid action would raise
    agent = MaskablePPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=2, seed=0, device="cpu")
    learn(agent)
    returns, _ = evaluate_policy(agent, envs, n_eval_episodes=4, return_episode_rewards=True)
    assert len(returns) == 4


def test_the_single_environment_works_under_stable_baselines3s_own_vectorisation():
    from stable_baselines3.common.env_util import make_vec_env

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for render_mode="rgb_array", whatever the environment can do
        theirs = make_vec_env("TextGen-v0", n_envs=3, env_kwargs=KEYWORDS, seed=5)
    ours = make_sb3()
    ours.seed(5)
    np.testing.assert_array_equal(theirs.reset(), ours.reset())
    for actions in ([1, 2, EOS], [EOS, 2, 3], [3, 3, 3], [1, 2, 3], [1, 2, 3]):
        for expected, got in zip(theirs.step(np.array(actions))[:3], ours.step(np.array(actions))[:3], strict=True):
            np.testing.assert_array_equal(expected, got)
