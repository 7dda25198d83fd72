"""The contract of scorers, ``Scorer``, and a library of them.

    lexical       surface form: length, words, repetition, shape
    language      sentiment, profanity, spelling, grammar
    reference     similarity to references
    verifiable    correctness of answers that can be verified
    fluency       likelihood under a language model, and novelty among other texts
    learned       reward models, judges, preferences
    combine       compositions of scorers

A scorer's module is imported when its name is first used, a package that it needs when it is built.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from textgym.scorers.base import Scorer, Scores, component_names, scorer_name
from textgym.scorers.catalogue import CATALOGUE as _CATALOGUE
from textgym.scorers.catalogue import FOLDERS as _FOLDERS
from textgym.scorers.evaluation import evaluate, observe_episodes, score_batch
from textgym.scorers.registry import as_scorer, register_scorer, scorer_names

if TYPE_CHECKING:
    from textgym.scorers.catalogue import *  # noqa: F403  all exported scorers

__all__ = [
    "Scorer",
    "Scores",
    "as_scorer",
    "component_names",
    "evaluate",
    "observe_episodes",
    "register_scorer",
    "score_batch",
    "scorer_name",
    "scorer_names",
]
__all__ += _CATALOGUE
__all__.sort(key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


def __dir__() -> list[str]:
    """List public names and folders, imported or not."""
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__, *_FOLDERS})


def __getattr__(name: str) -> Any:
    """Import a module or a folder of scorers on first access."""
    if name in _FOLDERS:
        return import_module(f"textgym.scorers.{name}")
    if name in _CATALOGUE:
        return getattr(import_module(f"textgym.scorers.{_CATALOGUE[name].module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
