"""``as_prompts``: prompt sources from what a caller passes, and the built-in set."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from textgym.errors import unknown_name
from textgym.prompts.base import IndexedPrompts, PromptSource, Sample, as_sample
from textgym.prompts.data import DatasetPrompts, FilePrompts, ReasoningGymPrompts, reasoning_gym_sample
from textgym.prompts.sources import GeneratorPrompts, ListPrompts, train_eval_split

__all__ = ["as_prompts", "builtin_prompts"]

BUILTIN_SETS = {"openings": "all", "openings:train": "train", "openings:eval": "eval"}


def builtin_prompts(split: str = "all") -> IndexedPrompts:
    """Return the built-in story openings.

    Args:
        split: ``"all"``, ``"train"`` (nine tenths) or ``"eval"`` (one tenth).

    >>> len(builtin_prompts("train")) + len(builtin_prompts("eval")) == len(builtin_prompts())
    True
    """
    splits = _openings()
    if split not in splits:
        raise unknown_name("split", split, splits)
    return splits[split]


@cache
def _openings() -> dict[str, IndexedPrompts]:
    every = FilePrompts(Path(__file__).parent / "openings.txt")
    train, held_out = train_eval_split(every)
    return {"all": every, "train": train, "eval": held_out}


def as_prompts(spec: Any = None) -> PromptSource:
    """Return ``spec`` as a prompt source.

    Args:
        spec: None or ``"openings"`` for the built-in set, ``"openings:train"`` or ``"openings:eval"`` for its splits; a
            list of texts, samples or mappings; the path of a ``.txt``, ``.jsonl`` or ``.csv`` file, compressed by gzip
            (``.jsonl.gz``) or not; a ``datasets.Dataset``; a reasoning-gym data set; a function ``f(rng) -> prompt``;
            an iterator; or a ``PromptSource``.

    >>> as_prompts(["Once upon a time"]).draw(np.random.default_rng(0)).prompt
    'Once upon a time'
    """
    if spec is None:
        return builtin_prompts()
    if isinstance(spec, Path):
        return FilePrompts(spec)
    if isinstance(spec, str):
        return _by_name(spec)
    if isinstance(spec, PromptSource):
        return spec
    if callable(getattr(spec, "draw", None)) and not isinstance(spec, type):
        return _plain_source(spec)
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
        f"prompts is {spec!r:.60} of type {type(spec).__name__}; expected a list of prompts, a path, a data set of "
        "Hugging Face or reasoning-gym, a function of a random generator, an iterator or a PromptSource"
    )


class _PlainPrompts(PromptSource):
    """An object of another class with ``draw``."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a sample from the object."""
        return as_sample(self.source.draw(rng))


class _PlainIndexedPrompts(_PlainPrompts, IndexedPrompts):
    """An object of another class with ``draw``, ``__len__`` and ``__getitem__``."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return as_sample(self.source[index])


def _plain_source(source: Any) -> PromptSource:
    """Wrap an object with ``draw``; other hooks need a ``PromptSource``."""
    for hook in vars(PromptSource):
        if not hook.startswith("_") and hook != "draw" and hasattr(source, hook):
            name = type(source).__name__
            raise TypeError(f"{name} has a method {hook}: inherit from textgym.prompts.PromptSource, which calls it")
    is_indexed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    return _PlainIndexedPrompts(source) if is_indexed else _PlainPrompts(source)


def _by_name(name: str) -> PromptSource:
    """Look up a built-in set, then a file."""
    if name in BUILTIN_SETS:
        return builtin_prompts(BUILTIN_SETS[name])
    if _is_file(name):
        return FilePrompts(name)
    also = "Also accepted: the path of an existing .txt, .jsonl or .csv file; pass a single prompt as a list: ["
    raise unknown_name(
        "prompts", name if len(name) <= 80 else f"{name[:77]}...", BUILTIN_SETS, also=f"{also}{name!r:.60}]."
    )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # not a possible name: too long, or with a NUL character
        return False
