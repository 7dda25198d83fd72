"""The keys of info, and their documentation."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import textgym
from textgym.constraints import AllowTokens
from textgym.registration import IDS
from textgym.tasks import find_task
from textgym.testing import check_text_env
from textgym.tokenizers import CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
TASK_IDS = [env_id for env_id, keywords in IDS.items() if "task" in keywords]
KEYWORDS = {"tokenizer": "char", "prompts": ["Hi ", "Hello "], "max_new_tokens": 4, "scorer": "length_band"}


def make_vec(num_envs=3, autoreset_mode="SameStep", **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=autoreset_mode, **KEYWORDS | kwargs)


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
