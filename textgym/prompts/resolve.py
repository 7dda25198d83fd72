"""From what a caller writes as ``prompts=`` to a prompt source, and the built-in set."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from textgym.errors import unknown_name
from textgym.prompts.base import PromptSource, Sample, as_sample
from textgym.prompts.files import FilePrompts
from textgym.prompts.generators import GeneratorPrompts
from textgym.prompts.hf_datasets import DatasetPrompts
from textgym.prompts.lists import IndexedPrompts, ListPrompts
from textgym.prompts.reasoning_gym import ReasoningGymPrompts, reasoning_gym_sample
from textgym.prompts.splits import train_eval_split

__all__ = ["as_prompts", "builtin_prompts"]

BUILTIN_SETS = {"openings": "all", "openings:train": "train", "openings:eval": "eval"}


def builtin_prompts(split: str = "all") -> IndexedPrompts:
    """Return the openings of stories that come with textgym.

    Args:
        split: ``"all"``, ``"train"`` (nine tenths) or ``"eval"`` (one tenth).

    Raises:
        ValueError: If there is no such split.

    >>> len(builtin_prompts("train")) + len(builtin_prompts("eval")) == len(builtin_prompts())
    True
    """
    splits = openings()
    if split not in splits:
        raise unknown_name("split", split, splits)
    return splits[split]


@cache
def openings() -> dict[str, IndexedPrompts]:
    """Read the built-in set, and divide it, once a process."""
    every = FilePrompts(Path(__file__).parent / "openings.txt")
    train, held_out = train_eval_split(every)
    return {"all": every, "train": train, "eval": held_out}


def as_prompts(spec: Any = None) -> PromptSource:
    """Return the prompt source that ``spec`` means.

    Args:
        spec: None or ``"openings"`` for the built-in set, ``"openings:train"`` or ``"openings:eval"`` for its parts; a
            list of texts, samples or mappings; the path of a ``.txt``, ``.jsonl`` or ``.csv`` file; a
            ``datasets.Dataset``; a data set of reasoning-gym; a function ``f(rng) -> prompt``; an iterator; or a prompt
            source.

    Raises:
        ValueError: If the source is empty, or a text names neither a built-in set nor a file.
        FileNotFoundError: If a ``Path`` names no file.
        TypeError: If ``spec`` is nothing of these.

    >>> as_prompts(["Once upon a time"]).draw(np.random.default_rng(0)).prompt
    'Once upon a time'
    """
    if spec is None:
        return builtin_prompts()
    if isinstance(spec, Path):
        return FilePrompts(spec)
    if isinstance(spec, str):
        return prompts_by_name(spec)
    if isinstance(spec, PromptSource):
        return spec
    if callable(getattr(spec, "draw", None)) and not isinstance(spec, type):
        return plain_source(spec)
    if isinstance(spec, Sequence | np.ndarray):
        return ListPrompts(list(spec))
    if hasattr(spec, "column_names") and hasattr(spec, "__len__"):
        return DatasetPrompts(spec)
    if hasattr(spec, "column_names"):  # a datasets.IterableDataset
        return GeneratorPrompts(iter(spec))
    if hasattr(spec, "score_answer") and not isinstance(spec, type):  # a data set of reasoning-gym, itself an iterator
        indexed = hasattr(spec, "__getitem__") and hasattr(spec, "__len__")
        return ReasoningGymPrompts(spec) if indexed else GeneratorPrompts(map(reasoning_gym_sample, iter(spec)))
    if isinstance(spec, Iterator) or (callable(spec) and not isinstance(spec, type)):
        return GeneratorPrompts(spec)
    raise TypeError(
        f"prompts cannot be taken from {type(spec).__name__} {spec!r:.60}; expected a list of prompts, a path, "
        "a data set of Hugging Face or reasoning-gym, a function of a random generator, an iterator or a prompt source"
    )


class PlainPrompts(PromptSource):
    """An object of another class with a method ``draw``."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return what the object draws."""
        return as_sample(self.source.draw(rng))


class PlainIndexedPrompts(PlainPrompts, IndexedPrompts):
    """The same with numbered samples."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return as_sample(self.source[index])


def plain_source(source: Any) -> PromptSource:
    """Wrap an object with ``draw``.

    Raises:
        TypeError: If it also has hooks, which only a ``PromptSource`` has.
    """
    for hook in ("observe", "get_state", "set_state"):
        if hasattr(source, hook):
            name = type(source).__name__
            raise TypeError(f"{name} has a method {hook}: inherit from textgym.prompts.PromptSource, which calls it")
    is_indexed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    return PlainIndexedPrompts(source) if is_indexed else PlainPrompts(source)


def prompts_by_name(name: str) -> PromptSource:
    """Look for a built-in set, then for a file."""
    if name in BUILTIN_SETS:
        return builtin_prompts(BUILTIN_SETS[name])
    if is_file(name):
        return FilePrompts(name)
    also = "Also accepted: the path of an existing .txt, .jsonl or .csv file; give a single prompt as a list: ["
    raise unknown_name(
        "prompts", name if len(name) <= 80 else f"{name[:77]}...", BUILTIN_SETS, also=f"{also}{name!r:.60}]."
    )


def is_file(name: str) -> bool:
    """Return whether there is a file of this name; a text that cannot be a name is none."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long, or with a NUL character
        return False
