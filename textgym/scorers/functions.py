"""Adapters that turn functions, and objects with ``__call__`` alone, into scorers."""

import inspect
from collections.abc import Callable
from typing import Any

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.base import EpisodewiseScorer, FloatArray, Scorer, Scores, scorer_name
from textgym.scorers.evaluation import as_values, score_each

__all__ = ["BatchFunctionScorer", "ColumnFunctionScorer", "FunctionScorer"]


class FunctionScorer(EpisodewiseScorer):
    """Calls ``function(completion)`` for each episode; ``None`` or NaN where it does not apply.

    A text for which the function raises fails alone: the scores of the others do not depend on it.

    >>> FunctionScorer(len)(TextBatch.from_texts(["a", "abc"]))
    array([1., 3.])
    """

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.function = function
        self.name = scorer_name(function)

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the scores, and the errors by episode."""
        return score_each(batch, lambda completion, _: self.function(completion), self.name)


class BatchFunctionScorer(Scorer):
    """Calls ``function(batch)``, of a function or of an object that is no :class:`Scorer`.

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
    """Calls ``function(prompts=..., completions=..., completion_ids=..., **columns)`` once for all episodes.

    This is the signature of TRL's reward functions. A column is a list of B values: the metadata of the samples by
    key, ``None`` where a sample lacks it, and ``references``. A function without ``**kwargs`` receives those that
    it names. It returns B numbers or ``None``.

    Some of TRL's functions read chats: a completion is a list of one message, ``[{"role": "assistant", "content":
    text}]``, and so is a prompt. Those that say so run as they are: texts are given as chats where the annotation of
    the parameter ``completions`` speaks of a dict. ``conversational`` decides it for one without annotations.

    Args:
        function: Such a function.
        conversational: Whether prompts and completions are given as chats; ``None`` asks the annotation.

    Source: https://huggingface.co/docs/trl/grpo_trainer#using-a-custom-reward-function

    >>> def solved(completions, answer):
    ...     return [float(text == right) for text, right in zip(completions, answer)]
    >>> ColumnFunctionScorer(solved)(TextBatch.from_texts(["4", "5"], metadata=[{"answer": "4"}, {"answer": "6"}]))
    array([1., 0.])
    """

    def __init__(self, function: Callable[..., Any], conversational: bool | None = None) -> None:
        self.function = function
        self.name = scorer_name(function)
        signature = inspect.signature(function)
        self.conversational = _reads_chats(signature) if conversational is None else conversational
        parameters = signature.parameters.values()
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
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


def _reads_chats(signature: inspect.Signature) -> bool:
    parameter = signature.parameters.get("completions")
    return parameter is not None and "dict" in str(parameter.annotation).lower()
