"""Write docs/scorers.md: what each scorer measures, costs and needs, and its scores of five fixed texts.

``python tools/scorer_table.py`` keeps the times that are in the page and measures only those of new scorers;
``--all-times`` measures all of them anew, on a machine that does nothing else. The row of a scorer whose package is not
installed is kept as it is.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import inspect
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import textgym.scorers
from textgym.batch import TextBatch
from textgym.scorers import Scorer
from textgym.scorers.catalogue import CATALOGUE, FOLDERS
from textgym.scorers.text import ends_with_mark
from textgym.tokenizers import Tokenizer, as_tokenizer
from world import story

__all__ = [
    "PAGE",
    "TEXTS",
    "TIMES",
    "Row",
    "built",
    "facts_of",
    "groups_of_scorers",
    "page",
    "row_of",
    "rows_of",
    "scores_of",
]

PAGE = Path(__file__).parent.parent / "docs" / "scorers.md"
TEXTS = {
    "good": "The little dog was happy to see its 2 friends again.",
    "sad": "The old man was lonely and afraid, and he cried all night.",
    "repeated": "dog dog dog dog dog dog dog dog dog dog dog dog",
    "mash": "asdf jkl; qwpoe rizxc mvbn, fghj tyqw lkjh zzxv",
    "German": "Der kleine Hund freute sich, seine Freunde zu sehen.",
}
PROMPT = "One evening a dog came home."
REFERENCE = "The dog was very glad to see his 2 friends."
SOURCE = "A little dog came home from a walk, and was very glad to see its 2 old friends."
METADATA = {"question": "How many friends?", "answer": "2", "metadata": {}, "source": SOURCE}
ROUNDS, NUM_TIMED, NUM_WORDS = 7, 64, 20

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "BannedWords": (["cried", "afraid"],),
    "Checker": (ends_with_mark,),
    "JSONSchema": ({"type": "object"},),
    "Judge": ("a-model", "http://localhost:8000/v1"),
    "Keywords": (["dog", "friends"],),
    "Novelty": ([TEXTS["good"]],),
    "Regex": ("(?i)dog",),
}
"""Arguments of scorers that require some, or would give all texts the same score without."""
PAIRS = [
    {"prompt": PROMPT, "chosen": f"The {who} was {good}.", "rejected": f"The {who} was {bad}."}
    for who in ("dog", "cat", "man")
    for good, bad in (("happy", "sad"), ("glad", "afraid"), ("kind", "lonely"))
]
UNMEASURED = {"Judge": "depends on the endpoint", "RewardModel": "depends on the model"}
OWN_PROCESS = ("Checker", "MathAnswer")
"""Scorers that work in another process, so that wall time is measured instead of CPU time."""

FACTS = ("Scorer", "What it measures", "Range", "Deterministic", "Incremental", "Empty text")
TIMES = ("µs alone", f"µs in {NUM_TIMED}")
PACKAGES = ("Package", "Licence")
SCORES = ("Scorer", *TEXTS, "Built as")

Cells = dict[str, str]
"""A row of a table by column."""

_FIRST_SENTENCE = re.compile(r".*?\.(?=\s|$)", re.DOTALL)
_LICENCES = {"Apache 2.0": "Apache-2.0", "Apache Software License": "Apache-2.0", "Apache 2.0 License": "Apache-2.0"}
_LICENCES |= {"MIT License": "MIT"}
_BUNDLED = "BSD-3-Clause and others"
"""The licence of torch, whose metadata list those of all bundled software."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scorer's row in the tables."""

    name: str
    """The class."""
    id: str | None
    """The registered id, if it has one."""
    built_as: str
    """The expression that was measured."""
    measures: str
    """The first sentence of its docstring."""
    range: str
    deterministic: bool
    incremental: bool
    packages: tuple[str, ...]
    scores: dict[str, float] | str
    """By text, the empty one under ``""``, NaN where the scorer does not apply; or why there are none."""
    times: tuple[str, str] | None = None
    """Microseconds per text, alone and in a batch, as written in the page; None if not measured."""


def groups_of_scorers() -> dict[str, list[type]]:
    """Return the scorers of each folder but ``combine``."""
    return {folder: scorers_in(folder) for folder in FOLDERS if folder != "combine"}


def scorers_in(folder: str) -> list[type]:
    """Return the scorers that a folder exports."""
    names = sorted((name for name, entry in CATALOGUE.items() if entry.module.startswith(f"{folder}.")), key=str.lower)
    exported = [getattr(textgym.scorers, name) for name in names]
    return [kind for kind in exported if inspect.isclass(kind) and issubclass(kind, Scorer)]


def row_of(kind: type, *, timed: bool, times: tuple[str, str] | None = None) -> Row:
    """Build a scorer and score the fixed texts.

    Args:
        kind: Its class.
        timed: Whether to measure times, unless they are given.
        times: Known times.

    Raises:
        ImportError: If a package that it needs is missing.
    """
    name = kind.__name__
    scorer, built_as = built(kind)
    try:
        if times is None and timed and name not in UNMEASURED:
            times = _times(scorer, name in OWN_PROCESS)
        return Row(
            name=name,
            id=CATALOGUE[name].id,
            built_as=built_as,
            measures=_first_sentence(kind),
            range=_range(scorer, kind),
            deterministic=scorer.deterministic,
            incremental=scorer.incremental,
            packages=CATALOGUE[name].packages,
            scores=UNMEASURED[name] if name in UNMEASURED else _scores(scorer),
            times=times,
        )
    finally:
        if hasattr(scorer, "close"):
            scorer.close()


def built(kind: Any) -> tuple[Any, str]:
    """Return a scorer of a class, and the expression that built it.

    Raises:
        ImportError: If a package that it needs is missing.
    """
    if kind.__name__ == "BradleyTerry":
        settings = textgym.scorers.PreferenceSettings(held_out=0, epochs=8)
        return kind.train(PAIRS, settings), f"`BradleyTerry.train(pairs)` of {len(PAIRS)} pairs"
    if kind.__name__ == "ReasoningGym":
        dataset = importlib.import_module("reasoning_gym").create_dataset("chain_sum")
        return kind(dataset), "`ReasoningGym(reasoning_gym.create_dataset('chain_sum'))`"
    if kind.__name__ == "RewardModel":
        return kind(lambda prompts, completions: [0.0] * len(prompts)), "`RewardModel(model)`"
    arguments = ARGUMENTS.get(kind.__name__, ())
    shown = ", ".join(argument.__name__ if callable(argument) else repr(argument) for argument in arguments)
    try:
        return kind(*arguments), f"`{kind.__name__}({shown})`"
    except TypeError as error:
        raise TypeError(f"{kind.__name__} needs other arguments than ARGUMENTS of {__file__} has: {error}") from error


def _first_sentence(kind: type) -> str:
    found = _FIRST_SENTENCE.match(inspect.getdoc(kind) or "")
    if found is None:
        raise ValueError(f"the docstring of {kind.__name__} does not begin with a sentence")
    return " ".join(found[0].split()).replace("|", r"\|")


def _range(scorer: Any, kind: type) -> str:
    limits = scorer.score_range
    if limits is None:
        return "any number"
    binary = re.search(r"Range:\s+\{0,\s+1\}", kind.__doc__ or "")
    return "{0, 1}" if binary and tuple(limits) == (0, 1) else f"[{limits[0]:g}, {limits[1]:g}]"


def _batch(completions: list[str], references: list[str] | None = None) -> TextBatch:
    """Return episodes whose ids are those of the embedded language model."""
    size = len(completions)
    return TextBatch.from_texts(
        completions,
        [PROMPT] * size,
        [[REFERENCE]] * size if references is None else [[reference] for reference in references],
        [METADATA] * size,
        tokenizer=_tokenizer(),
    )


@cache
def _tokenizer() -> Tokenizer:
    return as_tokenizer("tiny")


def _scores(scorer: Any) -> dict[str, float]:
    """Return the scores of the fixed texts and of the empty one, all in one batch."""
    found = scorer(_batch([*TEXTS.values(), ""]))
    return dict(zip((*TEXTS, ""), map(float, found), strict=True))


def _times(scorer: Any, is_elsewhere: bool) -> tuple[str, str]:
    clock = time.perf_counter if is_elsewhere else time.process_time
    costs: list[tuple[float, float]] = []
    for i in range(ROUNDS + 1):
        # No text occurs twice, because some scorers and libraries cache results.
        first, second, references = ([_words_of_story(3 * i + k, j) for j in range(NUM_TIMED)] for k in range(3))
        ones = [_batch([text], [reference]) for text, reference in zip(first, references, strict=True)]
        costs.append((_seconds(clock, scorer, ones), _seconds(clock, scorer, [_batch(second, references)])))
    alone, in_batch = (statistics.median(column) for column in zip(*costs[1:], strict=True))  # the first one warms up
    return _microseconds(alone), _microseconds(in_batch)


def _microseconds(seconds: float) -> str:
    value = 1e6 * seconds / NUM_TIMED
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


@cache
def _words_of_story(seed: int, index: int) -> str:
    return " ".join(story(seed, index).split()[:NUM_WORDS])


def _seconds(clock: Callable[[], float], scorer: Any, batches: list[TextBatch]) -> float:
    gc.collect()
    gc.disable()  # as timeit does
    try:
        start = clock()
        for batch in batches:
            scorer(batch)
        return clock() - start
    finally:
        gc.enable()


def licence_of(package: str) -> str:
    """Return the licence in an installed package's metadata, as an SPDX id where that is known.

    Raises:
        PackageNotFoundError: If it is not installed.
    """
    found = metadata(package)
    kinds = [entry.rpartition(" :: ")[2] for entry in found.get_all("Classifier") or [] if entry.startswith("License")]
    name = found.get("License-Expression") or (found.get("License") or "").strip().split("\n")[0] or ", ".join(kinds)
    return _BUNDLED if package == "torch" else _LICENCES.get(name, name) or "unknown"


def facts_of(row: Row) -> dict[str, str]:
    """Return the cells of a row of facts by column."""
    name = f"`{row.name}`" if row.id is None else f'`{row.name}`, `"{row.id}"`'
    empty = row.scores if isinstance(row.scores, str) else _number(row.scores[""])
    flags = ["yes" if flag else "no" for flag in (row.deterministic, row.incremental)]
    cells = [name, row.measures, row.range, *flags, empty]
    licences = ", ".join(dict.fromkeys(map(licence_of, row.packages)))
    cells += [*(row.times or ("-", "-")), ", ".join(row.packages), licences]
    return dict(zip((*FACTS, *TIMES, *PACKAGES), cells, strict=True))


def scores_of(row: Row) -> dict[str, str]:
    """Return the cells of a row of scores by column."""
    scores = ["-"] * len(TEXTS) if isinstance(row.scores, str) else [_number(row.scores[name]) for name in TEXTS]
    return dict(zip(SCORES, (f"`{row.name}`", *scores, row.built_as.replace("|", r"\|")), strict=True))


def _number(value: float) -> str:
    return "does not apply" if math.isnan(value) else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def _table(columns: tuple[str, ...], rows: list[Mapping[str, str]]) -> str:
    is_number = {name: name in (*TIMES, *TEXTS, "Empty text") for name in columns}
    lines = [columns, ["---:" if is_number[name] else "---" for name in columns]]
    lines += [[row[name] for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rows_of(text: str) -> dict[str, list[Cells]]:
    """Return the rows of all tables in a page: the cells by column, grouped by the class in the first cell."""
    rows: dict[str, list[Cells]] = {}
    columns: list[str] = []
    for line in text.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) < 3 or cells[0]:
            columns = []
            continue
        cells = [cell.strip() for cell in cells[1:-1]]
        name = re.match(r"`(\w+)`", cells[0])
        if not columns:
            columns = cells
        elif name is not None:
            rows.setdefault(name[1], []).append(dict(zip(columns, cells, strict=True)))
    return rows


def page(groups: Mapping[str, list[tuple[Cells, Cells]]], machine: str | None = None) -> str:
    """Return the page.

    Args:
        groups: By folder, the rows of facts and of scores of each scorer.
        machine: A sentence about the machine on which the times were measured, by default this one.
    """
    parts = [_introduction(_machine() if machine is None else machine)]
    for folder, rows in groups.items():
        about = inspect.getdoc(importlib.import_module(f"textgym.scorers.{folder}")) or ""
        parts += [f"## {folder.capitalize()}", f"`textgym.scorers.{folder}`: {about.splitlines()[0]}"]
        parts += [_table((*FACTS, *TIMES, *PACKAGES), [facts for facts, _ in rows])]
        parts += [_table(SCORES, [scores for _, scores in rows])]
    return "\n\n".join([*parts, _combinations()]) + "\n"


def _introduction(machine: str) -> str:
    examples = "\n".join(f"- {name}: `{text}`" for name, text in TEXTS.items())
    return f"""\
# Scorers

Generated by `python tools/scorer_table.py`; a test compares everything but the times with the current scorers.

A scorer is passed to an environment as an object or, where one is shown, by name: `scorer=LengthBand(4, 8)`,
`scorer="sentiment"`, `scorer={{"sentiment": 1.0, "repetition": -0.5}}`. Formula, arguments, source and known ways to
hack it are in the docstring of its class: `help(textgym.scorers.Rhyme)`.

**Scores** are those of five completions, in one batch with an empty one:

{examples}

All have the prompt `{PROMPT}`, the reference
`{REFERENCE}` and the metadata
`{METADATA}`. Their ids are those of the embedded language model.
"Built as" is the expression that built the scorer.

**Times** are microseconds per text of {NUM_WORDS} words from the story world: {NUM_TIMED} texts scored one by one, and
{NUM_TIMED} others in one batch; medians of {ROUNDS} rounds, each with new texts, without the time of decoding. They are
CPU time, but wall time for {" and ".join(OWN_PROCESS)}, which work in another process.
{machine}

**Incremental** scorers can reward each token (`reward="per_token"`). **Licences** are those in the metadata of the
installed packages; a scorer without a package needs only textgym. The extra `scorers` includes all packages but torch
and transformers, which are in `textgym[agents]`, and reasoning-gym, which is in `textgym[reasoning]`."""


def _machine() -> str:
    """Return a sentence about the machine on which the times were measured."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    cpu = found[1].strip() if found else platform.machine()
    return f"Measured on one core ({cpu}) of a shared machine, Python {platform.python_version()}, one thread."


def _combinations() -> str:
    kinds = scorers_in("combine")
    listed = "\n".join(f"- `{kind.__name__}`: {_first_sentence(kind)}" for kind in kinds)
    return f"## Combine\n\n`textgym.scorers.combine`: Scorers that are made of other scorers.\n\n{listed}"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--all-times", action="store_true", help="measure all times, not only those of new scorers")
    arguments = parser.parse_args()
    old = "" if arguments.all_times or not PAGE.exists() else PAGE.read_text(encoding="utf-8")
    old_rows = rows_of(old)
    groups = {
        folder: [_cells(kind, old_rows.get(kind.__name__)) for kind in kinds]
        for folder, kinds in groups_of_scorers().items()
    }
    machine = re.search(r"Measured on .*", old)
    arguments.out.write_text(page(groups, None if machine is None else machine[0]), encoding="utf-8")


def _cells(kind: type, old: list[Cells] | None) -> tuple[Cells, Cells]:
    """Return the two rows of a scorer, with the times of the old ones, or the old ones where its package is missing."""
    try:
        row = row_of(kind, timed=True, times=None if old is None else (old[0][TIMES[0]], old[0][TIMES[1]]))
    except ImportError:
        if old is None:
            raise
        return old[0] | {"What it measures": _first_sentence(kind)}, old[1]
    return facts_of(row), scores_of(row)


if __name__ == "__main__":
    main()
