"""Writes the data of the built-in tasks, ``textgym/tasks/data``, from the generator ``world``.

    python tools/write_task_data.py

Run it after every change of the generator. Nothing but the generator decides what the files hold; a test compares them
with it and with ``SHA256SUMS``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from textgym.batch import TextBatch
from textgym.prompts.sources import prompt_hash
from textgym.scorers import Consistency, Repetition
from textgym.scorers.text import sentences
from textgym.scorers.text import words as words_of
from textgym.tasks import TASKS
from textgym.tasks.base import data_file, fill_template
from textgym.tasks.shop import customer_opening
from world import question, sentence_pair, shopping, stable_rng, story, summary
from world.vocabulary import adjectives, spots, things

DATA = data_file("", "", 0).parent
NUM_ROWS = {"train": 4096, "eval": 1000}
"""Rows of each split, per level."""
SEEDS = {"train": 11, "eval": 12}
"""Seeds of the generator by split. The embedded LM is trained on seed 1."""
NUM_TRIES = 32
"""Rows that are tried for one of the split whose prompt is new; then a prompt may occur twice."""
STRIDE = 2**20
"""Distance of their indices."""

NUM_CONTINUED = {1: range(18, 31), 2: range(34, 47), 3: range(50, 63)}
"""Words of a continuation, by level."""
_is_disputed = re.compile(
    r"\b(?:Sam|clockmaker|heart beat|far away|back room|little one|hot pot|out of the window|school bag|school yard"
    r"|tall boy|letter box|thief|pocket knife|good friends|bad news|good news|had had|hid|woke|tore|dug)\b"
).search
"""Finds phrases of the world that Harper takes for mistakes."""

Row = dict[str, Any]


def opening(seed: int, index: int, level: int) -> Row:
    """Return the first words of a story."""
    words = story(seed, index).split()
    return {"opening": " ".join(words[: stable_rng(seed, index, 40).randint(4, 7)])}


def translation(seed: int, index: int, level: int) -> Row:
    """Return an English sentence and its French translation."""
    pair = sentence_pair(seed, index, level)
    return {"source": pair.english, "target": pair.french}


def qa(seed: int, index: int, level: int) -> Row:
    """Return a passage, a question about it and the answer."""
    found = question(seed, index, level)
    return {"context": found.passage, "question": found.question, "answer": found.answer, "kind": found.kind}


def summarised(seed: int, index: int, level: int) -> Row:
    """Return a passage and its summary."""
    found = summary(seed, index, level)
    return {"document": found.passage, "summary": found.summary}


def customer(seed: int, index: int, level: int) -> Row:
    """Return the setting, a customer's first line and goal."""
    goal = shopping(seed, index, level)
    return {"setting": goal.setting, "opening": customer_opening(goal), "goal": asdict(goal)}


def continued(seed: int, index: int, level: int) -> Row:
    """Return the beginning of a story and the rest of it, in which the checkers of ``quality`` find nothing."""
    for attempt in itertools.count():
        for row in _parts(story(seed, index + attempt * NUM_TRIES * STRIDE), level):
            batch = TextBatch.from_texts([f" {row['continuation']}"], [row["opening"]])
            is_consistent, is_repeated = Consistency()(batch)[0] == 1, Repetition(4, after_prompt=True)(batch)[0] > 0
            if is_consistent and not is_repeated and not _is_disputed(row["continuation"]):
                return row
    raise AssertionError("the loop above has no end")


def _parts(text: str, level: int) -> Iterator[Row]:
    """Yield the ways to cut a story between two sentences, outside of direct speech."""
    found = sentences(text)
    for i in range(1, len(found)):
        opening, rest = " ".join(found[:i]), " ".join(found[i:])
        is_cut_between = opening.count('"') % 2 == 0 and rest.lstrip('"')[0].isupper()
        if len(words_of(rest)) in NUM_CONTINUED[level] and is_cut_between:
            yield {"opening": opening, "continuation": rest}


SOURCES: dict[str, tuple[Callable[[int, int, int], Row], str]] = {
    "story": (opening, "sentiment"),
    "translation": (translation, "translation"),
    "qa": (qa, "qa"),
    "summary": (summarised, "summary"),
    "dialogue": (customer, "dialogue"),
    "quality": (continued, "quality"),
}
"""By the files' name: the rows, as a pure function of seed, index and level, and a task that reads them."""


def rows(name: str, split: str, level: int) -> Iterator[Row]:
    """Yield the rows of a split and level, endlessly.

    A hash of the prompt decides on its split, so that no prompt is in both. Within a split no prompt occurs twice as
    long as one of ``NUM_TRIES`` rows has a new one.
    """
    make, task = SOURCES[name]
    seen: set[str] = set()
    for index in itertools.count():
        found: Row = {}
        for attempt in range(NUM_TRIES):
            row = make(SEEDS[split], index + attempt * STRIDE, level)
            prompt = fill_template(TASKS[task].prompt, row)
            if split_of(prompt) == split:
                found = found or row
                if prompt not in seen:
                    seen.add(prompt)
                    found = row
                    break
        yield found


def split_of(prompt: str) -> str:
    """Return the split of a prompt; platform-independent."""
    return "eval" if prompt_hash(prompt, seed=0)[0] % 2 else "train"


def line(row: Row) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def compressed(text: str) -> bytes:
    """Return a text compressed by gzip, without a time or a name."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(text.encode())
    return buffer.getvalue()


def words() -> str:
    """Return ``words.json``: things with their plural and kinds, colours and places."""
    forms = {thing.singular: [thing.plural, *thing.kinds] for thing in things()}
    lines = ",\n".join(f"    {json.dumps(word)}: {json.dumps(forms[word])}" for word in forms)
    colours = json.dumps([word for word, adjective in adjectives().items() if adjective.is_colour])
    places = json.dumps([spot.name for spot in spots()])
    return f'{{\n  "things": {{\n{lines}\n  }},\n  "colours": {colours},\n  "places": {places}\n}}\n'


def data_files() -> Iterator[tuple[Path, str, str, int]]:
    """Yield the path, name, split and level of each file."""
    for name, (_, task) in SOURCES.items():
        for level, split in itertools.product(range(1, TASKS[task].num_levels + 1), NUM_ROWS):
            yield data_file(name, split, level), name, split, level


def main() -> None:
    """Write all files and their hashes."""
    (DATA / "words.json").write_text(words(), encoding="utf-8")
    for path, name, split, level in data_files():
        path.write_bytes(compressed("".join(map(line, itertools.islice(rows(name, split, level), NUM_ROWS[split])))))
        print(f"{path.name:28} {path.stat().st_size / 1e3:7.1f} kB")
    paths = sorted(path for path in DATA.iterdir() if path.suffix in (".gz", ".json"))
    sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)
    (DATA / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print(f"{sum(path.stat().st_size for path in paths) / 1e6:.2f} MB in {len(paths)} files")


if __name__ == "__main__":
    main()
