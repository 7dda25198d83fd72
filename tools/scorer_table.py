"""Writes docs/scorers.md: what each scorer measures, costs, needs, and says of five fixed texts.

Run it alone, with nothing else on the machine: python tools/scorer_table.py
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
from textgym.tasks.world import story
from textgym.testing.known_scorers import REQUIRES
from textgym.tokenizers import Tokenizer, as_tokenizer

__all__ = ["PAGE", "TEXTS", "TIMES", "Row", "built", "facts_of", "groups_of_scorers", "page", "row_of", "scores_of"]

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
"""What is given to those that cannot be built without arguments, or would say the same of all texts."""
PAIRS = [
    {"prompt": PROMPT, "chosen": f"The {who} was {good}.", "rejected": f"The {who} was {bad}."}
    for who in ("dog", "cat", "man")
    for good, bad in (("happy", "sad"), ("glad", "afraid"), ("kind", "lonely"))
]
UNMEASURED = {"Judge": "depends on the endpoint", "RewardModel": "depends on the model"}
OWN_PROCESS = ("Checker", "MathAnswer")
"""Those that work in another process, whose CPU time is not this one's."""

FACTS = ("Scorer", "What it measures", "Range", "Deterministic", "Incremental", "Empty text")
TIMES = ("µs alone", f"µs in {NUM_TIMED}")
PACKAGES = ("Package", "Licence")
SCORES = ("Scorer", *TEXTS, "Built as")

_FIRST_SENTENCE = re.compile(r".*?\.(?=\s|$)", re.DOTALL)
_LICENCES = {"Apache 2.0": "Apache-2.0", "Apache Software License": "Apache-2.0", "Apache 2.0 License": "Apache-2.0"}
_LICENCES |= {"MIT License": "MIT"}
_BUNDLED = "BSD-3-Clause and others"
"""Of torch, which lists those of all that is bundled with it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the page says of one scorer."""

    name: str
    """The class."""
    id: str | None
    """What users may type instead, where it can be built without arguments."""
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
    microseconds: tuple[float, float] | None = None
    """Per text, alone and in a batch; None where they were not measured."""


def groups_of_scorers() -> dict[str, list[type]]:
    """Return the scorers of each folder, without those that are made of others."""
    return {folder: scorers_in(folder) for folder in FOLDERS if folder != "combine"}


def scorers_in(folder: str) -> list[type]:
    """Return the scorers that a folder exports."""
    names = sorted((name for name, (module, _) in CATALOGUE.items() if module.startswith(f"{folder}.")), key=str.lower)
    exported = [getattr(textgym.scorers, name) for name in names]
    return [kind for kind in exported if inspect.isclass(kind) and issubclass(kind, Scorer)]


def row_of(kind: type, *, timed: bool) -> Row:
    """Build a scorer and ask it.

    Raises:
        ImportError: If a package that it needs is missing.
    """
    name = kind.__name__
    scorer, built_as = built(kind)
    try:
        return Row(
            name=name,
            id=CATALOGUE[name][1],
            built_as=built_as,
            measures=_first_sentence(kind),
            range=_range(scorer, kind),
            deterministic=scorer.deterministic,
            incremental=scorer.incremental,
            packages=REQUIRES.get(name, ()),
            scores=UNMEASURED[name] if name in UNMEASURED else _scores(scorer),
            microseconds=_microseconds(scorer, name in OWN_PROCESS) if timed and name not in UNMEASURED else None,
        )
    finally:
        if hasattr(scorer, "close"):
            scorer.close()


def built(kind: Any) -> tuple[Any, str]:
    """Return a scorer of a class, and the expression that stands for it.

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
    """Return what it says of the fixed texts and of the empty one, all in one batch."""
    found = scorer(_batch([*TEXTS.values(), ""]))
    return dict(zip((*TEXTS, ""), map(float, found), strict=True))


def _microseconds(scorer: Any, is_elsewhere: bool) -> tuple[float, float]:
    clock = time.perf_counter if is_elsewhere else time.process_time
    costs: list[tuple[float, float]] = []
    for i in range(ROUNDS + 1):
        # No text comes twice, for the sake of scorers and libraries that remember what they have seen.
        first, second, references = ([_words_of_story(3 * i + k, j) for j in range(NUM_TIMED)] for k in range(3))
        ones = [_batch([text], [reference]) for text, reference in zip(first, references, strict=True)]
        costs.append((_seconds(clock, scorer, ones), _seconds(clock, scorer, [_batch(second, references)])))
    alone, in_batch = (statistics.median(column) for column in zip(*costs[1:], strict=True))  # the first one warms up
    return 1e6 * alone / NUM_TIMED, 1e6 * in_batch / NUM_TIMED


@cache
def _words_of_story(seed: int, index: int) -> str:
    return " ".join(story(seed, index).split()[:NUM_WORDS])


def _seconds(clock: Callable[[], float], scorer: Any, batches: list[TextBatch]) -> float:
    gc.collect()
    gc.disable()  # as timeit does: the heap of this process is not the scorer's
    try:
        start = clock()
        for batch in batches:
            scorer(batch)
        return clock() - start
    finally:
        gc.enable()


def licence_of(package: str) -> str:
    """Return what an installed package says of its licence, as SPDX calls it where that is known.

    Raises:
        PackageNotFoundError: If it is not installed.
    """
    found = metadata(package)
    kinds = [entry.rpartition(" :: ")[2] for entry in found.get_all("Classifier") or [] if entry.startswith("License")]
    said = found.get("License-Expression") or (found.get("License") or "").strip().split("\n")[0] or ", ".join(kinds)
    return _BUNDLED if package == "torch" else _LICENCES.get(said, said) or "not said"


def facts_of(row: Row) -> dict[str, str]:
    """Return the cells of a row of facts by column."""
    name = f"`{row.name}`" if row.id is None else f'`{row.name}`, `"{row.id}"`'
    empty = row.scores if isinstance(row.scores, str) else _number(row.scores[""])
    flags = ["yes" if flag else "no" for flag in (row.deterministic, row.incremental)]
    cells = [name, row.measures, row.range, *flags, empty]
    times = ("-", "-") if row.microseconds is None else tuple(map(_time, row.microseconds))
    licences = ", ".join(dict.fromkeys(map(licence_of, row.packages)))
    cells += [*times, ", ".join(row.packages), licences]
    return dict(zip((*FACTS, *TIMES, *PACKAGES), cells, strict=True))


def scores_of(row: Row) -> dict[str, str]:
    """Return the cells of a row of scores by column."""
    said = ["-"] * len(TEXTS) if isinstance(row.scores, str) else [_number(row.scores[name]) for name in TEXTS]
    return dict(zip(SCORES, (f"`{row.name}`", *said, row.built_as.replace("|", r"\|")), strict=True))


def _number(value: float) -> str:
    return "does not apply" if math.isnan(value) else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def _time(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _table(columns: tuple[str, ...], rows: list[Mapping[str, str]]) -> str:
    is_number = {name: name in (*TIMES, *TEXTS, "Empty text") for name in columns}
    lines = [columns, ["---:" if is_number[name] else "---" for name in columns]]
    lines += [[row[name] for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(groups: Mapping[str, list[Row]]) -> str:
    """Return the whole page for the rows of each folder."""
    parts = [_introduction()]
    for folder, rows in groups.items():
        about = inspect.getdoc(importlib.import_module(f"textgym.scorers.{folder}")) or ""
        parts += [f"## {folder.capitalize()}", f"`textgym.scorers.{folder}`: {about.splitlines()[0]}"]
        parts += [_table((*FACTS, *TIMES, *PACKAGES), [facts_of(row) for row in rows])]
        parts += [_table(SCORES, [scores_of(row) for row in rows])]
    return "\n\n".join([*parts, _combinations()]) + "\n"


def _introduction() -> str:
    examples = "\n".join(f"- {name}: `{text}`" for name, text in TEXTS.items())
    return f"""\
# Scorers

Written by `python tools/scorer_table.py`; a test compares all but the times with what the scorers say now.

A scorer is given to an environment as an object of its class or, where one is shown, by name:
`scorer=LengthBand(4, 8)`, `scorer="sentiment"`, `scorer={{"sentiment": 1.0, "repetition": -0.5}}`. Formula, arguments,
source and known ways to hack it are in the docstring of its class: `help(textgym.scorers.Rhyme)`.

**Scores** are what these five completions get, in one batch with an empty one:

{examples}

For the scorers that want more, all have the prompt `{PROMPT}`, the reference
`{REFERENCE}` and the metadata
`{METADATA}`. Their ids are those of the embedded language model.
"Built as" is the expression that was asked.

**Times** are microseconds for a text of {NUM_WORDS} words from the story world. {NUM_TIMED} of them were scored one by
one, {NUM_TIMED} others in one batch; what is shown is the median of {ROUNDS} rounds, each with new texts. Texts were
decoded before. What was measured is CPU time of the process; {" and ".join(OWN_PROCESS)} work in another one,
so theirs is wall time. {_machine()}

**Incremental** scorers can reward each token (`reward="per_token"`). **Licences** are what the installed packages say;
a scorer without a package needs nothing but textgym. The extra `scorers` brings all of them but torch and
transformers, which are in `textgym[agents]`, and reasoning-gym, which is in `textgym[reasoning]`."""


def _machine() -> str:
    """Return a sentence about where the times were measured."""
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
    """Measure all scorers and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    rows = {folder: [row_of(kind, timed=True) for kind in kinds] for folder, kinds in groups_of_scorers().items()}
    arguments.out.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
