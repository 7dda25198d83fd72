"""Tasks: contract in every interface, known optimum, disjoint splits, keywords and registration."""

import inspect
import json
import pickle
import re
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

import textgym
from fixtures import slow_but
from textgym.registration import IDS, TASK_KEYWORDS
from textgym.tasks import TASKS, Task, find_task, register_task, score_bounds, task_keywords, task_page, task_prompts
from textgym.tasks import prompts as prompts_of_tasks
from textgym.testing import check_task, check_text_env
from textgym.testing.tasks import play_optimal
from textgym.testing.traces import check_same

TASK_LEVELS = [(name, level) for name, task in TASKS.items() for level in range(1, task.num_levels + 1)]
SOLVABLE = [(name, level) for name, level in TASK_LEVELS if TASKS[name].target or TASKS[name].expert]
TASK_IDS = [env_id for env_id, keywords in IDS.items() if "task" in keywords]
STORIES = ["sentiment", "topic", "length", "style", "format"]


def write(env, text):
    """Write a space, a text and EOS; return the last step."""
    step = None
    for token in [*env.tokenizer.encode(" " + text), env.eos_token_id]:
        step = env.step(token)
        if step[2] or step[3]:
            break
    return step


def samples(task, level, split, count):
    prompts = task_prompts(task, split, level)
    return [prompts[i] for i in range(count)]


# The contract ---------------------------------------------------------------------------------------------------------


def test_the_tasks_are_known():
    assert set(TASKS) == {*STORIES, "dialogue", "translation", "qa", "summary", "quality"}
    assert {task.id: {"task": task.name} for task in TASKS.values() if task.id} == {
        env_id: IDS[env_id] for env_id in TASK_IDS
    }


@pytest.mark.parametrize("task", slow_but(TASKS, "format"))
def test_every_task_keeps_the_contract(task):
    check_task(task)


@pytest.mark.slow
def test_a_task_keeps_the_contract_with_other_keywords():
    check_text_env("TextGenDialogue-v0", num_envs=2, level=3, reward="terminal", observation="dict", max_turns=2)


@pytest.mark.parametrize("task", TASKS)
def test_all_interfaces_give_the_same_episodes(task):
    env_id = TASKS[task].id
    keywords = {} if env_id else {"task": task}
    single = gym.make(env_id or "TextGen-v0", **keywords).unwrapped
    vector = gym.make_vec(env_id or "TextGen-v0", num_envs=2, **keywords).unwrapped
    ours = textgym.TextGenVecEnv(2, **({"id": env_id} if env_id else keywords))
    ours.seed(3)
    first = single.reset(seed=3)[0]
    np.testing.assert_array_equal(vector.reset(seed=3)[0][0], first)
    np.testing.assert_array_equal(ours.reset()[0], first)
    text = TASKS[task].optimal_turn(single.core.samples[0]) if (task, 1) in SOLVABLE else "went to the sea."
    for token in [*single.tokenizer.encode(" " + text), single.eos_token_id]:
        observation, reward, terminated, _, info = single.step(token)
        observations, rewards, terminations, _, infos = vector.step([token] * 2)
        np.testing.assert_array_equal(observations[0], observation)
        assert (rewards[0], terminations[0]) == (reward, terminated)
        _, ours_rewards, dones, ours_infos = ours.step(np.array([token] * 2))
        assert (ours_rewards[0], dones[0]) == (np.float32(reward), terminated)
    if terminated:
        assert infos["score"][0] == info["score"] == ours_infos[0]["score"]


@pytest.mark.parametrize("env_id", TASK_IDS)
def test_a_spec_goes_through_json(env_id):
    assert gym.spec(env_id).kwargs == {"registered": env_id}
    env = gym.make(env_id, split="eval", level=2)
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    check_same(env.reset(seed=3), twin.reset(seed=3), "reset")


# The data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "level"), TASK_LEVELS)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_prompts_and_references_fit_the_budgets(name, level, split):
    task = TASKS[name]
    env = textgym.TextGenEnv(task=name, level=level, split=split)
    tokens_of = env.tokenizer.encode
    for sample in samples(task, level, split, 100):
        assert len(tokens_of(sample.prompt)) <= env.config.max_prompt_tokens
        for reference in sample.references:
            assert len(tokens_of(" " + reference)) + 1 <= env.config.max_new_tokens


@pytest.mark.parametrize("level", range(1, TASKS["dialogue"].num_levels + 1))
def test_the_customers_replies_fit_the_budget_after_any_turns(level):
    task = TASKS["dialogue"]
    env = textgym.TextGenEnv(task="dialogue", level=level)
    frame, script = env.config.reply_format, env.config.user.script
    for sample in samples(task, level, "train", 100):
        for always in (None, "Hello!", "How many would you like?", "Here are nine red apples."):
            turns, reply = [], None
            while reply is None or reply.outcome is None:
                turns.append(always or task.optimal_turn(sample, turns))
                reply = script(sample.metadata, turns)
                assert len(env.tokenizer.encode(frame.replace("{reply}", reply.text))) <= env.config.max_reply_tokens
            written = [len(env.tokenizer.encode(" " + turn)) + 1 for turn in turns]
            assert always or sum(written) <= env.config.max_new_tokens
            assert len(turns) <= env.config.max_turns


@pytest.mark.parametrize(("name", "level"), SOLVABLE)
def test_optimal_turns_score_the_optimum(name, level):
    env = textgym.TextGenEnv(task=name, level=level, split="eval")
    for index in range(20):
        rewards, info = play_optimal(env, TASKS[name], index=index)
        assert info["score"] == pytest.approx(TASKS[name].optimum), info["completion"]
        assert sum(rewards) == pytest.approx(info["score"])
        assert info["end_reason"] == ("success" if name == "dialogue" else "eos")


@pytest.mark.parametrize(("name", "level"), SOLVABLE)
def test_nonsense_scores_less_than_success(name, level):
    env = textgym.TextGenEnv(task=name, level=level, split="eval")
    for index in range(5):
        env.reset(seed=0, options={"index": index})
        done = False
        while not done:
            *_, done, _, info = write(env, "The the.")
        assert info["score"] < 0.5 * TASKS[name].success_score


def test_all_levels_are_mixed_evenly_unless_one_is_chosen():
    env = textgym.TextGenEnv(task="qa")
    prompts = env.core.components.prompts
    levels = list(range(1, TASKS["qa"].num_levels + 1))
    assert len(prompts) == len(levels) * 4096
    assert [prompts[i].metadata["level"] for i in range(2 * len(levels))] == 2 * levels
    rng = np.random.default_rng(0)
    drawn = np.array([prompts.draw(rng).metadata["level"] for _ in range(200 * len(levels))])
    assert all(160 < (drawn == level).sum() < 240 for level in levels)
    assert len(textgym.TextGenEnv(task="qa", split="eval", level=2).core.components.prompts) == 1000


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"task": "q"}, "unknown task 'q'; did you mean 'qa'"),
        ({"task": "qa", "split": "test"}, "unknown split 'test'. Known: eval, train"),
        ({"task": "qa", "level": 99}, f"level is 99; expected 1 to {TASKS['qa'].num_levels} .*'qa', .*level='auto'"),
        ({"task": "qa", "level": "hard"}, "level is 'hard'"),
        ({"task": "qa", "prompts": ["a"], "level": 1}, "prompts=... cannot be combined with level"),
        ({"task": "qa", "columns": {"context": "a"}}, "columns=... renames the columns of data"),
        ({"task": "qa", "data": [{}], "level": 1}, "level=... .* cannot be combined with data"),
        ({"task": "qa", "chat": True}, "no chat template; chat=False"),
    ],
)
def test_invalid_keywords_raise(keywords, message):
    with pytest.raises(ValueError, match=message):
        textgym.TextGenEnv(**keywords)


def test_the_task_keywords_are_the_parameters_of_task_keywords():
    assert set(TASK_KEYWORDS) == inspect.signature(task_keywords).parameters.keys() - {"task", "keywords"}


def test_the_keywords_of_a_task_need_a_task():
    with pytest.raises(TypeError, match=r"split=.* belongs to a task, and none is given"):
        gym.make("TextGen-v0", split="eval")


def test_a_task_is_an_object_or_a_name():
    with pytest.raises(TypeError, match="task is 3 of type int; expected a Task or the name of one"):
        textgym.TextGenEnv(task=3)
    assert find_task(TASKS["qa"]) is find_task("TextGenQA-v0") is TASKS["qa"]
    assert textgym.TextGenEnv(task=TASKS["qa"]).reset(seed=0)[0].shape


def test_the_users_own_prompts_use_the_tasks_scorer():
    sample = {"prompt": "2 + 2 =", "references": "4"}
    env = textgym.TextGenEnv(task="qa", prompts=[sample])
    env.reset(seed=0)
    *_, info = write(env, "4")
    assert (info["score"], "score_normalised" in info) == (1.0, False)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_the_normalised_score_uses_the_bounds_of_the_level():
    bounds = {1: (0.5, 1.0), 2: (0.0, 0.8)}  # of two of the levels, from which the rows come in turn
    env = textgym.TextGenEnv(task="qa", split="eval", score_bounds=bounds)
    infos = [play_optimal(env, TASKS["qa"], index=index)[1] for index in range(3)]
    assert [info.get("score_normalised") for info in infos] == [1.0, 1.25, None]
    env.reset(seed=0, options={"index": 0})
    *_, info = write(env, "the nothing")
    assert info["score_normalised"] == (info["score"] - 0.5) / 0.5 == -1.0


def test_measured_bounds_are_omitted_where_they_do_not_apply():
    own = task_keywords("qa")
    assert own["score_bounds"] == score_bounds(TASKS["qa"])
    assert task_keywords("qa", model="tiny")["score_bounds"] == own["score_bounds"]
    for keywords in ({"tokenizer": "char"}, {"scorer": "length"}, {"prompts": ["a"]}):
        assert "score_bounds" not in task_keywords("qa", **keywords)
    assert task_keywords("qa", score_bounds=(0.0, 2.0))["score_bounds"] == (0.0, 2.0)


# Registering ----------------------------------------------------------------------------------------------------------


NUMBERS = [{"number": str(i)} for i in range(100)]


def length_band():
    return "length_band"


def new_task(**fields):
    defaults = {"name": "counting", "data": NUMBERS, "columns": {"number": "a number"}, "prompt": "{number}"}
    return Task(**defaults | fields, instruction="{number}", scorer=length_band)


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(ValueError, match=r"task 'qa' is registered already; known: .*qa"):
        register_task(new_task(name="qa"))
    assert register_task(TASKS["qa"]) is TASKS["qa"]


@pytest.mark.parametrize("env_id", ["TextGen-v0", "ProbeCopy-v0", "TextGenQA-v0", "CartPole-v1"])
def test_an_id_of_another_environment_raises_and_registers_nothing(env_id):
    before = dict(TASKS), dict(IDS)
    with pytest.raises(ValueError, match=f"the id '{env_id}' is registered already"):
        register_task(new_task(name="mine", id=env_id))
    assert before == (TASKS, IDS)


def test_a_task_need_not_be_registered():
    env = textgym.TextGenEnv(task=new_task(), split="eval")
    assert len(env.core.components.prompts) == 10
    assert re.fullmatch(r"\d+", env.core.components.prompts[7].prompt)


def test_the_rows_are_not_part_of_a_tasks_repr():
    assert len(repr(new_task())) < 1000
    with pytest.raises(TypeError, match="data"):
        Task(name="a", columns={}, prompt="", instruction="", scorer=length_band)


# Data of a task of one's own ------------------------------------------------------------------------------------------


def numbers_of(task, *args):
    prompts = task_prompts(task, *args)
    return [prompts[i].prompt for i in range(len(prompts))]


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_rows_are_split_by_their_prompts():
    splits = [numbers_of(new_task(), split) for split in ("train", "eval")]
    assert [len(split) for split in splits] == [90, 10]
    assert {*splits[0], *splits[1]} == {row["number"] for row in NUMBERS}


def test_a_file_of_rows_equals_a_list_of_them(tmp_path):
    task = new_task(data=write_rows(tmp_path / "rows.jsonl", NUMBERS))
    assert numbers_of(task) == numbers_of(new_task())


def test_a_column_gives_the_level_of_a_row():
    rows = [row | {"level": 1 + i // 50} for i, row in enumerate(NUMBERS)]
    task = new_task(data=rows, num_levels=2)
    easy, hard, both = (numbers_of(task, "train", level) for level in (1, 2, None))
    assert max(map(int, easy)) < 50 <= min(map(int, hard))
    assert both[:4] == [easy[0], hard[0], easy[1], hard[1]]
    assert sorted(both) == sorted(easy + hard) == sorted(numbers_of(new_task()))
    assert task_prompts(task, "train", 2)[0].metadata["level"] == 2


@pytest.mark.parametrize("level", [0, 3, "hard"])
def test_a_level_that_the_task_lacks_raises(level):
    task = new_task(data=[*NUMBERS, {"number": "7", "level": level}], num_levels=2)
    with pytest.raises(ValueError, match=rf"row 100 of the data: level is {level!r}; expected 1 to 2"):
        numbers_of(task, "train", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test",), "unknown split 'test'. Known: eval, train"),
        (("train", 2), "level is 2; expected 1 to 1 for task 'counting', or None"),
        (("train", "auto"), "level is 'auto'; expected 1 to 1"),
        (("train", 0), "level is 0"),
    ],
)
def test_an_unknown_split_or_level_of_rows_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        task_prompts(new_task(), *arguments)


@pytest.mark.parametrize("rows", [[], NUMBERS[:1]])
def test_too_few_rows_raise(rows):
    with pytest.raises(ValueError, match=r"data of task 'counting': .*fewer than two distinct prompts"):
        numbers_of(new_task(data=rows))


def test_rows_from_an_iterator_raise():
    with pytest.raises(TypeError, match=r"data of task 'counting' is an iterator, .* pass list\(\.\.\.\)"):
        numbers_of(new_task(data=iter(NUMBERS)))


def test_all_levels_are_read_in_one_pass(monkeypatch):
    passes = []
    numbered_rows = prompts_of_tasks._numbered_rows
    monkeypatch.setattr(prompts_of_tasks, "_numbered_rows", lambda data: passes.append(1) or numbered_rows(data))
    task = new_task(data=[row | {"level": 1 + i % 3} for i, row in enumerate(NUMBERS)], num_levels=3)
    assert len(numbers_of(task)) == 90
    assert passes == [1]


def test_a_pickle_holds_no_rows_that_can_be_read_again():
    prompts = task_prompts("qa", "eval", 1)
    samples = [prompts[i] for i in range(len(prompts))]
    pickled = pickle.dumps(prompts)
    assert len(pickled) < 10_000
    twin = pickle.loads(pickled)
    assert [twin[i] for i in range(len(twin))] == samples


def test_a_level_without_rows_raises():
    with pytest.raises(ValueError, match="task 'counting' has no row of level 2 in the split 'train'"):
        numbers_of(new_task(num_levels=2))


def rows_by_level(split, level):
    return [{"number": f"{split} {level} {i}"} for i in range(level)]


def test_a_function_gives_the_rows_of_a_split_and_level():
    task = new_task(data=rows_by_level, num_levels=2)
    assert numbers_of(task, "train", 2) == ["train 2 0", "train 2 1"]
    assert numbers_of(task, "eval") == ["eval 1 0", "eval 2 0", "eval 2 1"]
    check_task(task)


def test_a_file_is_read_again_only_after_it_changed(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", NUMBERS[:3])
    task = new_task(data=partial(same_file, path))
    first = task_prompts(task, "train", 1)
    assert task_prompts(task, "eval", 1).rows() is first.rows()
    write_rows(path, NUMBERS)
    assert numbers_of(task, "train", 1) == [row["number"] for row in NUMBERS]


def same_file(path, split, level):
    return path


@pytest.mark.parametrize("name", TASKS)
def test_an_environment_reads_no_other_file_than_that_of_its_level(name, monkeypatch):
    opened = []
    monkeypatch.setattr(prompts_of_tasks, "read_rows", lambda path, _: opened.append(path.name) or [(1, ROW)])
    monkeypatch.setattr(prompts_of_tasks, "_rows_of_file", prompts_of_tasks._rows_of_file.__wrapped__)
    level = TASKS[name].num_levels
    files = TASKS[name].data.args[0]
    textgym.TextGenEnv(task=name, level=level).reset(seed=0)
    assert opened == [f"{files}-train-{level}.jsonl.gz"]
    opened.clear()
    textgym.TextGenEnv(task=name, level="auto", split="eval").reset(seed=0)
    assert opened == [f"{files}-eval-1.jsonl.gz"]


ROW = dict.fromkeys({column for task in TASKS.values() for column in task.columns}, "A text.")


# The checker ----------------------------------------------------------------------------------------------------------


def test_the_checker_accepts_a_task_of_ones_own_unregistered():
    check_task(new_task())


RNG = np.random.default_rng(0)


def random_rows(split, level):
    return [{"number": str(RNG.integers(10**6))}]


def rows_without_number(split, level):
    return [{"num": "1"}]


def equal_rows(split, level):
    return NUMBERS


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"data": random_rows}, AssertionError, r"data\('train', 1\) returns other rows when it is called again"),
        (
            {"data": rows_without_number},
            ValueError,
            "row 0 of the data: .*missing are number",
        ),
        ({"data": equal_rows}, AssertionError, "100 prompts are in both splits, such as '0'"),
        ({"prompt": "Count:"}, ValueError, "fewer than two distinct prompts cannot be split"),
        (
            {"target": "number", "optimum": 2.0},
            AssertionError,
            "level 1, row 0: the optimal turns score .* optimum 2.0",
        ),
    ],
)
def test_the_checker_names_what_is_wrong_with_a_task(fields, error, message):
    with pytest.raises(error, match=message):
        check_task(new_task(**fields))


def test_a_page_without_a_description_lists_the_columns():
    page = task_page(new_task())
    assert "## Description\nRows with the columns ``number`` (a number).\n" in page
