"""Correctness of a final answer: a number or a mathematical expression."""

import logging
import re
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache, lru_cache
from math import isfinite
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import EpisodewiseScorer, FloatArray, Scorer, Scores
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned
from textgym.scorers.verifiable.checker import scores_of_answers
from textgym.scorers.verifiable.worker import Worker

__all__ = ["MathAnswer", "NumericAnswer"]

_NUMBER = re.compile(
    r"(?<![A-Za-z_\d])(?<!\d\.)"  # not inside a word, a number or a version
    r"(?P<sign>(?<![\w)\]}])[-+\u2212])?[$\u20ac\u00a3\u00a5]?"  # the minus of 10-5 is no sign
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)(?P<exponent>[eE][-+]?\d+)?"
    r"(?P<percent>\s?%)?"
)
_EXACT = Context(prec=2_100, traps=[])


@dataclass(frozen=True)
class NumericAnswer(Scorer):
    r"""1 where the last number of the completion is the right one, else 0.

    Formula: ``|number - wanted| <= max(tolerance, relative_tolerance * |wanted|)``, in decimal arithmetic, so that
    integers of up to 2,100 digits are compared digit by digit. A number may have a sign, a currency sign, thousands
    separators (``1,234.5``), an exponent and a percent sign; where only one side has a percent sign, both ``50`` and
    ``0.5`` equal ``50%``. Range: {0, 1}; NaN where the sample names no number. A completion without a number, an empty
    one among them, scores 0. Deterministic. Not incremental. Fractions are not read: see ``MathAnswer``. Without a
    marker, what stands before the last number does not count.

    Raises:
        ValueError: If a tolerance is negative or not finite, or the marker is empty.

    >>> scorer = NumericAnswer()
    >>> texts = ["6 * 7 = 42.", "42, not 41", "forty-two", "-42"]
    >>> scorer(TextBatch.from_texts(texts, references=[["42"]] * 4))
    array([1., 0., 0., 0.])
    >>> NumericAnswer(marker="####")(TextBatch.from_texts(["#### 1,000 of 5", "1000"], metadata=[{"answer": 1e3}] * 2))
    array([1., 0.])
    """

    column: str = "answer"
    """The metadata column with the right number, or a text that ends on it; without it, the first reference counts."""
    marker: str | None = None
    """A text such as ``"####"``: the first number after its last occurrence counts, and a completion without it is
    wrong. A reference without it is read as a whole."""
    tolerance: float = 1e-6
    """By how much the number may be off."""
    relative_tolerance: float = 0.0
    """By which share of the wanted number it may be off."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("tolerance", "relative_tolerance"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a finite number from 0, got {value!r}")
        if self.marker is not None and not self.marker.strip():
            raise ValueError(f"marker is blank: {self.marker!r}; None takes the last number")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        wanted = _wanted_answers(batch, self.column)
        return np.array(list(map(self._score, batch.completions, wanted)), dtype=np.float64)

    def _score(self, completion: str, wanted: Any) -> float:
        right = None if wanted is None or isinstance(wanted, bool) else self._read(str(wanted), needs_marker=False)
        if right is None:
            return np.nan
        given = self._read(completion, needs_marker=True)
        return 0.0 if given is None else float(self._agree(given, right))

    def _read(self, text: str, needs_marker: bool) -> tuple[Decimal, bool] | None:
        """Return the number that counts, and whether it is a percentage."""
        if self.marker is not None:
            _, found, after = text.rpartition(self.marker)
            if found:
                return _as_number(_NUMBER.search(after))
            if needs_marker:
                return None
        last = None
        for last in _NUMBER.finditer(text):  # noqa: B007  the last one is what is wanted
            pass
        return _as_number(last)

    def _agree(self, given: tuple[Decimal, bool], right: tuple[Decimal, bool]) -> bool:
        (number, is_percent), (wanted, wants_percent) = given, right
        if self._near(number, wanted):
            return True
        if is_percent == wants_percent:
            return False
        hundred = Decimal(100)
        if is_percent:
            return self._near(_EXACT.divide(number, hundred), wanted)
        return self._near(_EXACT.multiply(number, hundred), wanted)

    def _near(self, number: Decimal, wanted: Decimal) -> bool:
        share = _EXACT.multiply(Decimal(self.relative_tolerance), wanted.copy_abs())
        allowed = max(Decimal(self.tolerance), share)
        return _EXACT.subtract(number, wanted).copy_abs() <= allowed


def _as_number(match: re.Match[str] | None) -> tuple[Decimal, bool] | None:
    if match is None:
        return None
    sign = "-" if match["sign"] in ("-", "\u2212") else ""
    number = _EXACT.create_decimal(sign + match["digits"].replace(",", "") + (match["exponent"] or ""))
    return (number, match["percent"] is not None) if number.is_finite() else None


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
        wanted = _wanted_answers(batch, self.column)
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


def _wanted_answers(batch: TextBatch, column: str) -> list[Any]:
    """Return, for each episode, the metadata in ``column``, else the first reference, else ``None``.

    >>> _wanted_answers(TextBatch.from_texts(["", ""], references=[["4"], []], metadata=[{}, {"answer": 5}]), "answer")
    ['4', 5]
    """
    wanted = []
    for sample in batch.samples:
        answer = sample.metadata.get(column)
        wanted.append(next(iter(sample.references), None) if answer is None else answer)
    return wanted
