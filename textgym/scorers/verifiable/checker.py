"""Scores of a user's function that runs in another process with a time limit."""

import inspect
from collections.abc import Callable
from math import isfinite
from typing import Any

import cloudpickle
import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import EpisodewiseScorer, Scores, scorer_name
from textgym.scorers.evaluation import episode_error
from textgym.scorers.verifiable.worker import Answer, Worker

__all__ = ["Checker", "scores_of_answers"]


class Checker(EpisodewiseScorer):
    """Result of a function of yours, which may hang, crash or run the completion as a program.

    Formula: ``float(function(completion))`` or ``float(function(completion, sample))``; NaN for ``None``. Range: the
    function's. Empty completion: passed to the function. Deterministic if the function is and stays well within the
    time limit. Not incremental.

    The function runs in another process, which is started with the first batch and kept; its start does not count. A
    call that exceeds ``time_limit`` is killed with all processes it has started; that episode alone fails, or scores
    ``on_timeout``. An exception fails its episode alone. A call that leaves a thread running ends the process after its
    answer. A completion that forks, starts threads, closes descriptors or writes to them can thus only fail itself.
    This is not a sandbox: a completion run as a program may read and write your files, end your other processes, and
    patch modules, which changes the scores of later episodes.

    Args:
        function: ``f(completion)`` or ``f(completion, sample)``; the sample is passed to a second parameter that is
            required or called ``sample``. May be a lambda; it is sent once, with the globals it uses.
        time_limit: Seconds of wall time for each episode.
        on_timeout: Score of an episode that takes longer; None makes it an error.
        memory_limit: Bytes of address space of the process, on POSIX; None sets no limit.

    Raises:
        TypeError: If the function has another signature, or cannot be sent to another process.
        ValueError: If a limit is not positive, or ``on_timeout`` is not finite.

    >>> checker = Checker(lambda completion, sample: completion in sample.references)
    >>> checker(TextBatch.from_texts(["4", "5"], references=[["4", "four"]] * 2))
    array([1., 0.])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        time_limit: float = 1.0,
        on_timeout: float | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if on_timeout is not None and not isfinite(on_timeout):
            raise ValueError(f"on_timeout must be None or a finite number, got {on_timeout!r}")
        self.function = function
        self.name = scorer_name(function)
        self.time_limit = time_limit
        self.on_timeout = on_timeout
        self.memory_limit = memory_limit
        self._takes_sample = _takes_sample(function)
        self._worker = Worker(function, time_limit, memory_limit)

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the scores, and the errors by episode."""
        columns = (batch.completions, batch.samples) if self._takes_sample else (batch.completions,)
        answers = self._worker.map(list(zip(*columns, strict=True)))
        return scores_of_answers(self.name, answers, batch, self.on_timeout)

    def close(self) -> None:
        """End the process; the next batch starts another."""
        self._worker.close()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_worker"}
        return state | {"function": cloudpickle.dumps(self.function)}  # pickle cannot store a lambda

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.function = cloudpickle.loads(state["function"])
        self._worker = Worker(self.function, self.time_limit, self.memory_limit)


def scores_of_answers(name: str, answers: list[Answer], batch: TextBatch, on_timeout: float | None) -> Scores:
    """Return the scores and errors of a worker's answers."""
    values = np.full(len(answers), np.nan)
    errors: dict[int, str] = {}
    for i, answer in enumerate(answers):
        if answer.timed_out and on_timeout is not None:
            values[i] = on_timeout
        elif answer.error is None:
            values[i] = answer.value
        else:
            errors[i] = episode_error(name, answer.error, batch.completions[i])
    return Scores(values, {}, errors)


def _takes_sample(function: Any) -> bool:
    if not callable(function):
        raise TypeError(f"function is {function!r} of type {type(function).__name__}, expected a function")
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # some built-in functions have none
        raise TypeError(f"{scorer_name(function)!r} has no readable signature; wrap it in a function") from error
    parameters = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = sum(p.default is p.empty for p in parameters)
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    second = positional[1] if len(positional) > 1 else None
    takes_sample = second is not None and (second.default is second.empty or second.name == "sample")
    if inspect.iscoroutinefunction(function) or not positional or required > 1 + takes_sample:
        raise TypeError(
            f"{scorer_name(function)!r} has the signature {signature}; expected f(completion) or f(completion, sample)"
        )
    return takes_sample
