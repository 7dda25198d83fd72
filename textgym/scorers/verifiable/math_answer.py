"""Whether a text ends on the right mathematical expression."""

import logging
import re
from functools import cache, lru_cache
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import EpisodewiseScorer, Scores
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned
from textgym.scorers.verifiable.checker import scores_of_answers
from textgym.scorers.verifiable.wanted import wanted_answers
from textgym.scorers.verifiable.worker import Worker

__all__ = ["MathAnswer"]

_MARKED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}|####")


class MathAnswer(EpisodewiseScorer):
    r"""1 where the completion's answer equals the right one as mathematics, else 0.

    Formula: math-verify reads both, LaTeX between dollar signs or in ``\boxed{}`` and plain arithmetic such as ``1/2``,
    the last answer of a completion counting; the right answer may be LaTeX without dollar signs. ``verify`` compares
    them as expressions, sets, intervals, matrices or numbers to six decimals. Range: {0, 1}; NaN where the sample has
    no answer. A completion without an expression, an empty one among them, scores 0. Only the last 2,000 characters
    are read. Deterministic, but for expressions near the time limit. Not incremental.

    It runs in a process of its own, as ``Checker`` does, so that ``9**9**9**9`` can be ended from any thread; an
    expression that takes longer than ``time_limit`` scores ``on_timeout``. Nothing of a completion but digits and
    operators is ever evaluated as Python.

    Source: https://github.com/huggingface/Math-Verify

    Args:
        column: The metadata column with the right answer; without it, the first reference counts.
        time_limit: Seconds of wall time for each episode.
        on_timeout: The score of an episode that takes longer; ``None`` makes it an error.

    Raises:
        ImportError: If the package math-verify is missing.
        ValueError: If the time limit is not positive.
        ScorerError: When it is called and math-verify cannot read an answer that a sample gives as the right one.

    >>> texts = [r"So $x = \frac{2}{4}$.", "It is 0.5", r"\boxed{2}", "no idea"]
    >>> MathAnswer()(TextBatch.from_texts(texts, references=[["1/2"]] * 4))
    array([1., 1., 0., 0.])
    """

    score_range = (0.0, 1.0)

    def __init__(self, column: str = "answer", time_limit: float = 2.0, on_timeout: float | None = 0.0) -> None:
        _math_verify()
        self.column = column
        self.time_limit = time_limit
        self.on_timeout = on_timeout
        self._worker = Worker(_IsEqual(), time_limit)

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the scores, and which episodes failed."""
        wanted = wanted_answers(batch, self.column)
        index = np.array([i for i, answer in enumerate(wanted) if answer is not None], dtype=np.int64)
        asked = batch.select(index)
        calls = [(cleaned(str(wanted[i])), cleaned(batch.completions[i][-2_000:])) for i in index]
        scores = scores_of_answers(self.name, self._worker.map(calls), asked, self.on_timeout)
        total = np.full(len(batch), np.nan)
        total[index] = scores.total
        return Scores(total, {}, {int(index[row]): error for row, error in scores.errors.items()})

    def close(self) -> None:
        """End the process now; the next batch starts another."""
        self._worker.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.column, self.time_limit, self.on_timeout), {"name": self.name}


# What follows runs in the worker. math-verify's own time limits, which need SIGALRM and the main thread, are off.


@cache
def _math_verify() -> Any:
    return import_extra("math_verify", "math_answer", "math-verify")


class _IsEqual:
    """Stands for ``_is_equal``, and makes it ready where it is unpickled, before time is measured."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _ready, ()

    def __call__(self, wanted: str, completion: str) -> bool:
        return _is_equal(wanted, completion)


def _ready() -> _IsEqual:
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    _is_equal("$1$", "$1$")
    return _IsEqual()


def _is_equal(wanted: str, completion: str) -> bool:
    given = _math_verify().parse(completion, parsing_timeout=None)
    return bool(_math_verify().verify(_right_answer(wanted), given, timeout_seconds=None))


@lru_cache(maxsize=4_096)
def _right_answer(wanted: str) -> list[Any]:
    parse = _math_verify().parse
    # math-verify looks for LaTeX between marks only, without which it reads x^2 + 2x + 1 as 1.
    reads_like_a_completion = _MARKED.search(wanted) or _PROSE.search(wanted)
    for text in (wanted,) if reads_like_a_completion else (f"${wanted}$", wanted):
        found: list[Any] = parse(text, parsing_timeout=None)
        if found:
            return found
    raise ValueError(f"math-verify finds no expression in the right answer {wanted[:80]!r}")
