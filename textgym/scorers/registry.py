"""How a scorer is given: by name, as weights by name, as a function, as an object."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import Scorer, scorer_name
from textgym.scorers.functions import ColumnFunctionScorer, FunctionScorer

__all__ = ["as_scorer", "register_scorer", "scorer_factory", "scorer_names"]

_FACTORIES: dict[str, Callable[[], Scorer] | str] = {}
_SPELLING = (
    "scorer {name!r} is no name; there is the class {known}: give an object of it, textgym.scorers.{known}(...), "
    "or its name where docs/scorers.md shows one"
)
_EXPECTED = (
    "a registered name, {name: weight}, a Scorer (a callable whose parameter is called batch), "
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
            - a :class:`Scorer`, recognised by its only required parameter being called ``batch`` or annotated
              ``TextBatch``;
            - ``f(completion) -> float``, with one required positional parameter of another name;
            - ``f(prompts, completions, **columns) -> list``, TRL's signature, recognised by a parameter called
              ``completions`` or ``completion_ids``.

    Raises:
        ValueError: If a name is unknown, or weights are empty or not finite.
        TypeError: If ``spec`` is none of these.

    >>> as_scorer({"length_band": 1.0, "repetition": -0.5}).parts.keys()
    dict_keys(['length_band', 'repetition'])
    """
    if isinstance(spec, str):
        return scorer_factory(spec)()
    if isinstance(spec, Mapping):
        return _weighted_sum(spec)
    if isinstance(spec, type):
        raise TypeError(f"scorer is the class {spec.__name__}; give an object of it, such as {spec.__name__}(...)")
    if not callable(spec):
        raise TypeError(f"scorer is {spec!r} of type {type(spec).__name__}; expected {_EXPECTED}")
    return _as_scorer_callable(spec)


def scorer_factory(name: str) -> Callable[[], Scorer]:
    """Return the class or function behind a registered name, which makes the scorer.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _FACTORIES:
        import textgym.scorers  # which imports this module

        for known in textgym.scorers.__all__:
            if known[:1].isupper() and known.casefold() == name.replace("_", "").casefold():
                raise ValueError(_SPELLING.format(name=name, known=known))
        raise unknown_name("scorer", name, _FACTORIES, also="A function or a Scorer object is accepted too.")
    factory = _FACTORIES[name]
    if not isinstance(factory, str):
        return factory
    module, _, attribute = factory.partition(":")
    found: Callable[[], Scorer] = getattr(importlib.import_module(module), attribute)
    return found


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
    if required[0].name == "batch" or required[0].annotation in (TextBatch, "TextBatch"):
        scorer: Scorer = spec
        return scorer
    return FunctionScorer(spec)


def _weighted_sum(spec: Mapping[Any, Any]) -> Scorer:
    from textgym.scorers.combine.arguments import as_part
    from textgym.scorers.combine.weighted_sum import WeightedSum  # which itself accepts whatever as_scorer does

    parts: dict[str, tuple[Any, Any]] = {}
    for key, value in spec.items():
        if callable(value):
            raise TypeError(
                f"the weight of {key!r} is {value!r}; to name a scorer, write {{{key!r}: (scorer, weight)}}"
            )
        part, weight = value if isinstance(value, tuple | list) and len(value) == 2 else (key, value)
        scorer = as_part(part, key) if isinstance(key, str) else as_scorer(part)
        name = key if isinstance(key, str) else scorer_name(scorer)
        if name in parts:
            raise ValueError(f"two scorers are named {name!r}; name them with {{name: (scorer, weight)}}")
        parts[name] = (scorer, weight)
    return WeightedSum(parts)
