"""Turn names, weights by name, functions and objects into scorers."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import Scorer, scorer_name
from textgym.scorers.catalogue import CATALOGUE
from textgym.scorers.functions import BatchFunctionScorer, ColumnFunctionScorer, FunctionScorer

__all__ = ["as_scorer", "register_scorer", "scorer_factory", "scorer_names"]

_FACTORIES: dict[str, Callable[[], Scorer] | str] = {
    id: f"textgym.scorers.{module}:{name}" for name, (module, id) in CATALOGUE.items() if id is not None
}
_OF_WEIGHTS = "textgym.scorers.combine.weighted_sum:weighted_sum"
"""Builds the scorer of ``{name: weight}``. Named as factories are: composites are built on :func:`as_scorer`."""
_SPELLING = (
    "{name!r} is not a registered scorer name; pass an object of the class, textgym.scorers.{known}(...), or its name "
    "as docs/scorers.md lists it"
)
_EXPECTED = (
    "a registered name, {name: weight}, a Scorer (or a callable whose parameter is called batch), "
    "f(completion) -> float, or f(prompts, completions, **columns) -> list"
)


def register_scorer(name: str, factory: Callable[[], Scorer] | str) -> None:
    """Make ``scorer=name`` mean ``factory()``.

    Args:
        name: What users type.
        factory: A class or function without required arguments, or where it is, ``"module:attribute"``, which is
            imported when the name is first used.

    Raises:
        ValueError: If the name is taken by another factory.
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
              which puts any scorer under a name of its own; a key may be a scorer, which keeps its own name;
            - a :class:`Scorer`; or any function or object of one required parameter that is called ``batch`` or
              annotated ``TextBatch``, which becomes one with the defaults of all hooks;
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
        scorer: Scorer = _load(_OF_WEIGHTS)(spec)
        return scorer
    if isinstance(spec, type):
        raise TypeError(f"scorer is the class {spec.__name__}; give an object of it, such as {spec.__name__}(...)")
    if not callable(spec):
        raise TypeError(f"scorer is {spec!r} of type {type(spec).__name__}; expected {_EXPECTED}")
    _refuse_hooks(spec)
    return _as_scorer_callable(spec)


def scorer_factory(name: str) -> Callable[[], Scorer]:
    """Return the class or function behind a registered name, which makes the scorer.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _FACTORIES:
        for known in CATALOGUE:
            if known.casefold() == name.replace("_", "").casefold():
                raise ValueError(_SPELLING.format(name=name, known=known))
        raise unknown_name("scorer", name, _FACTORIES, also="A function or a Scorer object is accepted too.")
    factory = _FACTORIES[name]
    found: Callable[[], Scorer] = _load(factory) if isinstance(factory, str) else factory
    return found


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _as_scorer_callable(spec: Callable[..., Any]) -> Scorer:
    if inspect.iscoroutinefunction(spec):
        raise TypeError(f"scorer {scorer_name(spec)!r} is a coroutine function; expected {_EXPECTED}")
    try:
        signature = inspect.signature(spec)
    except ValueError as error:  # some built-in functions do not tell theirs
        raise TypeError(f"scorer {scorer_name(spec)!r} has no readable signature; expected {_EXPECTED}") from error
    parameters = list(signature.parameters.values())
    if any(p.name in ("completions", "completion_ids") for p in parameters):
        return ColumnFunctionScorer(spec)
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) != 1 or required[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"scorer {scorer_name(spec)!r} has the signature {signature}; expected {_EXPECTED}")
    if required[0].name != "batch" and required[0].annotation not in (TextBatch, "TextBatch"):
        return FunctionScorer(spec)
    return BatchFunctionScorer(spec)


def _refuse_hooks(spec: Any) -> None:
    """Refuse a callable with attributes that only have a meaning in a Scorer, instead of ignoring them.

    Raises:
        TypeError: If it has one.
    """
    # Objects of any kind may have a value; without `incremental`, the methods of incremental scorers have no meaning.
    names = [name for name in vars(Scorer) if not name.startswith("_")]
    hooks = [name for name in names if name not in ("name", "begin", "advance", "value") and hasattr(spec, name)]
    if not hooks:
        return
    kind = type(spec).__name__
    advice = (
        "write one that calls the function" if inspect.isroutine(spec) else f"inherit from it, class {kind}(Scorer)"
    )
    raise TypeError(
        f"scorer {scorer_name(spec)!r} has {', '.join(hooks)}, which only a subclass of textgym.scorers.Scorer may "
        f"have: {advice}"
    )
