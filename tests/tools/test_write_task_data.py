"""Data of the built-in tasks: the files hold what the generator writes, and no prompt is in both splits."""

import gzip
import hashlib
import itertools
import json

import pytest

from textgym.tasks import TASKS, task_prompts
from write_task_data import DATA, NUM_ROWS, SOURCES, compressed, data_files, line, rows, words

FILES = list(data_files())


def lines(path):
    return gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)


def test_the_files_never_change_unnoticed():
    sums = dict(reversed(entry.split()) for entry in (DATA / "SHA256SUMS").read_text().splitlines())
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in DATA.iterdir() if path.name != "SHA256SUMS"
    }
    assert sums.keys() == {"words.json", *(path.name for path, *_ in FILES)}


@pytest.mark.parametrize(("path", "name", "split", "level"), FILES, ids=lambda value: getattr(value, "name", None))
def test_the_generator_writes_the_same_rows(path, name, split, level):
    written = lines(path)
    assert written[:40] == [line(row) for row in itertools.islice(rows(name, split, level), 40)]
    assert len(written) == NUM_ROWS[split]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name", "split", "level"), FILES, ids=lambda value: getattr(value, "name", None))
def test_the_generator_writes_the_same_bytes(path, name, split, level):
    text = "".join(map(line, itertools.islice(rows(name, split, level), NUM_ROWS[split])))
    assert text == "".join(lines(path))


def test_the_words_are_those_of_the_generator():
    assert (DATA / "words.json").read_text(encoding="utf-8") == words()


def test_a_compressed_text_depends_on_the_text_only():
    assert compressed("a\n") == compressed("a\n")
    assert gzip.decompress(compressed("é\n")).decode() == "é\n"
    assert compressed("a\n")[4:8] == bytes(4)  # no time


@pytest.mark.parametrize("name", SOURCES)
def test_no_prompt_is_in_both_splits(name):
    prompts = {}
    for split in NUM_ROWS:
        source = task_prompts(SOURCES[name][1], split)
        prompts[split] = {source[i].prompt for i in range(len(source))}
    assert not prompts["train"] & prompts["eval"]


@pytest.mark.parametrize(("path", "name", "split", "level"), FILES, ids=lambda value: getattr(value, "name", None))
def test_no_prompt_occurs_twice_in_a_split_unless_the_generator_has_too_few(path, name, split, level):
    source = task_prompts(SOURCES[name][1], split, level)
    num_prompts = len({source[i].prompt for i in range(len(source))})
    assert num_prompts == len(source) or (name == "dialogue" and num_prompts > 750)


def test_all_tasks_read_these_files():
    used = {task.data(split, level) for task in TASKS.values() for split in NUM_ROWS for level in levels(task)}
    assert used == {path for path, *_ in FILES}


def levels(task):
    return range(1, task.num_levels + 1)


def test_goals_are_plain_json():
    goal = json.loads(lines(DATA / "dialogue-eval-1.jsonl.gz")[0])["goal"]
    assert goal.keys() == {"shop", "items", "unsaid", "manner"}
