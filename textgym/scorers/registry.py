"""Resolve ids, weights by name, functions and objects to scorers."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from textgym.errors import unknown_name
from textgym.scorers.base import Scorer
from textgym.scorers.catalogue import CATALOGUE
from textgym.scorers.functions import function_scorer

__all__ = ["as_scorer", "register_scorer", "scorer_factory", "scorer_names"]

_FACTORIES: dict[str, Callable[[], Scorer] | str] = {
    entry.id: f"textgym.scorers.{entry.module}:{name}" for name, entry in CATALOGUE.items() if entry.id is not None
}
_WEIGHTED_SUM = "textgym.scorers.combine.composition:weighted_sum"
"""Builds the scorer of ``{name: weight}``. Given by name, because compositions are built on ``as_scorer``."""
_EXPECTED = (
    "a registered name, {name: weight}, a Scorer (or a callable whose parameter is called batch), "
    "f(completion) -> float, or f(prompts, completions, **columns) -> list"
)


def register_scorer(name: str, factory: Callable[[], Scorer] | str) -> None:
    """Make ``scorer=name`` mean ``factory()``.

    Args:
        name: The id that users pass.
        factory: A class or function without required arguments, or ``"module:attribute"``, which is imported when the
            name is first used.

    Raises:
        ValueError: If the name is registered with another factory.
    """
    if _FACTORIES.setdefault(name, factory) != factory:
        raise ValueError(f"a scorer named {name!r} is registered already")


def scorer_names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_FACTORIES)


def as_scorer(spec: Any) -> Scorer:
    """Return the scorer that ``spec`` describes.

    Args:
        spec: One of

            - a registered name: ``"sentiment"``;
            - weights by name: ``{"sentiment": 1.0, "repetition": -0.5}``. A value may be a pair ``(spec, weight)``,
              to give any scorer a name; a key may be a scorer, which keeps its own name;
            - a ``Scorer``; or a function or object with one required parameter that is called ``batch`` or
              annotated ``TextBatch``;
            - ``f(completion) -> float``, with one required positional parameter of another name;
            - ``f(prompts, completions, **columns) -> list``, TRL's signature, recognised by a parameter called
              ``completions`` or ``completion_ids``.

    Raises:
        ValueError: If a name is unknown, or weights are empty or not finite.
        TypeError: If ``spec`` is none of these.

    >>> as_scorer({"length_band": 1.0, "repetition": -0.5}).components
    ('length_band', 'repetition')
    """
    if isinstance(spec, Scorer):
        return spec
    if isinstance(spec, str):
        return as_scorer(scorer_factory(spec)())
    if isinstance(spec, Mapping):
        scorer: Scorer = _load(_WEIGHTED_SUM)(spec)
        return scorer
    if isinstance(spec, type):
        raise TypeError(f"scorer is the class {spec.__name__}; pass an instance, such as {spec.__name__}(...)")
    if not callable(spec):
        raise TypeError(f"scorer is {spec!r} of type {type(spec).__name__}; expected {_EXPECTED}")
    return function_scorer(spec, _EXPECTED)


def scorer_factory(name: str) -> Callable[[], Scorer]:
    """Return the class or function that is registered under a name.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _FACTORIES:
        for known in CATALOGUE:
            if known.casefold() == name.replace("_", "").casefold():
                raise ValueError(
                    f"{name!r} is not a registered scorer name; pass an object of the class, "
                    f"textgym.scorers.{known}(...), or its name as docs/scorers.md lists it"
                )
        raise unknown_name("scorer", name, _FACTORIES, also="A function or a Scorer object is accepted too.")
    factory = _FACTORIES[name]
    found: Callable[[], Scorer] = _load(factory) if isinstance(factory, str) else factory
    return found


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
