"""Functions as scorers: of a completion, of a batch, or with the keyword signature of TRL's reward functions."""

import inspect
from collections.abc import Callable
from typing import Any

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.base import EpisodewiseScorer, FloatArray, Scorer, Scores, scorer_name
from textgym.scorers.evaluation import as_values, score_each

__all__ = ["BatchFunctionScorer", "ColumnFunctionScorer", "FunctionScorer", "function_scorer"]


def function_scorer(function: Callable[..., Any], expected: str) -> Scorer:
    """Return a function, or an object with ``__call__``, as a scorer; the kind follows from the signature.

    Args:
        function: See ``textgym.scorers.as_scorer``.
        expected: What is accepted, for error messages.

    Raises:
        TypeError: If the signature is none of the accepted ones, or the object has attributes of a ``Scorer``.
    """
    _check_no_hooks(function)
    name = scorer_name(function)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"scorer {name!r} is a coroutine function; expected {expected}")
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # some built-in functions have none
        raise TypeError(f"scorer {name!r} has no readable signature; expected {expected}") from error
    parameters = list(signature.parameters.values())
    if any(p.name in ("completions", "completion_ids") for p in parameters):
        return ColumnFunctionScorer(function)
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) != 1 or required[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"scorer {name!r} has the signature {signature}; expected {expected}")
    if required[0].name != "batch" and required[0].annotation not in (TextBatch, "TextBatch"):
        return FunctionScorer(function)
    return BatchFunctionScorer(function)


def _check_no_hooks(function: Any) -> None:
    """Raise a ``TypeError`` for attributes that only a subclass of Scorer may have, instead of ignoring them."""
    # `name` may be set on any object; the methods of incremental scorers mean nothing without `incremental`.
    names = [name for name in vars(Scorer) if not name.startswith("_")]
    hooks = [name for name in names if name not in ("name", "begin", "advance", "value") and hasattr(function, name)]
    if not hooks:
        return
    kind = type(function).__name__
    advice = (
        "write one that calls the function" if inspect.isroutine(function) else f"inherit from it, class {kind}(Scorer)"
    )
    raise TypeError(
        f"scorer {scorer_name(function)!r} has {', '.join(hooks)}, which only a subclass of textgym.scorers.Scorer may "
        f"have: {advice}"
    )


class FunctionScorer(EpisodewiseScorer):
    """Calls ``function(completion)`` for each episode; ``None`` or NaN means that it does not apply.

    If the function raises for one completion, only that episode fails.

    >>> FunctionScorer(len)(TextBatch.from_texts(["a", "abc"]))
    array([1., 3.])
    """

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.function = function
        self.name = scorer_name(function)

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the scores, and errors by episode."""
        return score_each(batch, lambda completion, _: self.function(completion), self.name)


class BatchFunctionScorer(Scorer):
    """Calls ``function(batch)``.

    >>> BatchFunctionScorer(lambda batch: batch.num_new_tokens)(TextBatch.from_texts(["a", "abc"]))
    array([1., 3.])
    """

    def __init__(self, function: Callable[[TextBatch], Any]) -> None:
        self.function = function
        self.name = scorer_name(function)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return as_values(self.function(batch), len(batch))


class ColumnFunctionScorer(Scorer):
    """Calls ``function(prompts=..., completions=..., completion_ids=..., **columns)`` once per batch, as TRL does.

    Columns are lists of B values: ``references``, and each metadata key of the samples, with ``None`` where a sample
    lacks it. A function without ``**kwargs`` receives only the columns that it names. It returns B numbers or ``None``.

    Args:
        function: A function with the signature of TRL's reward functions.
        conversational: Whether prompts and completions are passed as chats of one message,
            ``[{"role": "assistant", "content": text}]``, which some of TRL's functions expect. By default they are if
            the annotation of the parameter ``completions`` mentions a dict.

    Source: https://huggingface.co/docs/trl/grpo_trainer#using-a-custom-reward-function

    >>> def solved(completions, answer):
    ...     return [float(text == right) for text, right in zip(completions, answer)]
    >>> ColumnFunctionScorer(solved)(TextBatch.from_texts(["4", "5"], metadata=[{"answer": "4"}, {"answer": "6"}]))
    array([1., 0.])
    """

    def __init__(self, function: Callable[..., Any], conversational: bool | None = None) -> None:
        self.function = function
        self.name = scorer_name(function)
        parameters = inspect.signature(function).parameters
        if conversational is None:
            conversational = "completions" in parameters and "dict" in str(parameters["completions"].annotation).lower()
        self.conversational = conversational
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._known = frozenset(p.name for p in named)
        self._required = tuple(p.name for p in named if p.default is p.empty)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64.

        Raises:
            ScorerError: If the function requires a column that no sample has, or does not return B numbers.
        """
        metadata = batch.metadata
        columns: dict[str, list[Any]] = {"references": list(batch.references)}
        for key in dict.fromkeys(key for row in metadata for key in row):
            columns[key] = [row.get(key) for row in metadata]
        columns |= {"prompts": batch.prompts, "completions": list(batch.completions)}
        if self.conversational:
            for name, role in (("prompts", "user"), ("completions", "assistant")):
                columns[name] = [[{"role": role, "content": text}] for text in columns[name]]
        if self._takes_all or "completion_ids" in self._known:
            columns["completion_ids"] = list(batch.completion_ids)
        missing = [name for name in self._required if name not in columns]
        if missing and len(batch) > 0:
            raise ScorerError(f"needs the column {missing[0]!r}; the samples have {', '.join(sorted(columns))}")
        columns |= {name: [] for name in missing}
        if not self._takes_all:
            columns = {name: column for name, column in columns.items() if name in self._known}
        return as_values(self.function(**columns), len(batch))
