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
    """1 where the last number of the completion is the expected one, else 0.

    Formula: ``|number - expected| <= max(tolerance, relative_tolerance * |expected|)`` in decimal arithmetic, exact for
    integers of up to 2,100 digits. A number may have a sign, a currency sign, thousands separators (``1,234.5``), an
    exponent and a percent sign; if only one of the two has a percent sign, both ``50`` and ``0.5`` equal ``50%``.
    Range: {0, 1}; NaN if the sample has no number. Empty completion, or one without a number: 0. Deterministic. Not
    incremental. Fractions are not parsed: see ``MathAnswer``. Without a marker, only the last number counts.

    Raises:
        ValueError: If a tolerance is negative or not finite, or the marker is blank.

    >>> scorer = NumericAnswer()
    >>> texts = ["6 * 7 = 42.", "42, not 41", "forty-two", "-42"]
    >>> scorer(TextBatch.from_texts(texts, references=[["42"]] * 4))
    array([1., 0., 0., 0.])
    >>> NumericAnswer(marker="####")(TextBatch.from_texts(["#### 1,000 of 5", "1000"], metadata=[{"answer": 1e3}] * 2))
    array([1., 0.])
    """

    column: str = "answer"
    """Metadata column of the expected number, or of a text that ends on it; by default of a sample, its first
    reference."""
    marker: str | None = None
    """A text such as ``"####"``: the first number after its last occurrence counts, and a completion without it scores
    0. A reference without it is read as a whole."""
    tolerance: float = 1e-6
    """Absolute tolerance."""
    relative_tolerance: float = 0.0
    """Tolerance relative to the expected number."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("tolerance", "relative_tolerance"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
        if self.marker is not None and not self.marker.strip():
            raise ValueError(f"marker is blank: {self.marker!r}; None takes the last number")

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        expected = _expected_answers(batch, self.column)
        return np.array(list(map(self._score, batch.completions, expected)), dtype=np.float64)

    def _score(self, completion: str, expected: Any) -> float:
        right = None
        if expected is not None and not isinstance(expected, bool):
            right = self._read(str(expected), needs_marker=False)
        if right is None:
            return np.nan
        given = self._read(completion, needs_marker=True)
        return 0.0 if given is None else float(self._agree(given, right))

    def _read(self, text: str, needs_marker: bool) -> tuple[Decimal, bool] | None:
        """Return the number that counts and whether it is a percentage."""
        if self.marker is not None:
            _, found, after = text.rpartition(self.marker)
            if found:
                return _as_number(_NUMBER.search(after))
            if needs_marker:
                return None
        last = None
        for last in _NUMBER.finditer(text):  # noqa: B007  only the last one counts
            pass
        return _as_number(last)

    def _agree(self, given: tuple[Decimal, bool], right: tuple[Decimal, bool]) -> bool:
        (number, is_percent), (expected, expects_percent) = given, right
        if self._near(number, expected):
            return True
        if is_percent == expects_percent:
            return False
        hundred = Decimal(100)
        if is_percent:
            return self._near(_EXACT.divide(number, hundred), expected)
        return self._near(_EXACT.multiply(number, hundred), expected)

    def _near(self, number: Decimal, expected: Decimal) -> bool:
        share = _EXACT.multiply(Decimal(self.relative_tolerance), expected.copy_abs())
        allowed = max(Decimal(self.tolerance), share)
        return _EXACT.subtract(number, expected).copy_abs() <= allowed


def _as_number(match: re.Match[str] | None) -> tuple[Decimal, bool] | None:
    if match is None:
        return None
    sign = "-" if match["sign"] in ("-", "\u2212") else ""
    number = _EXACT.create_decimal(sign + match["digits"].replace(",", "") + (match["exponent"] or ""))
    return (number, match["percent"] is not None) if number.is_finite() else None


_MARKED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}|####")


def _expected_answers(batch: TextBatch, column: str) -> list[Any]:
    """Return B answers: the metadata column ``column``, or the first reference, or None."""
    expected = []
    for sample in batch.samples:
        answer = sample.metadata.get(column)
        expected.append(next(iter(sample.references), None) if answer is None else answer)
    return expected


class MathAnswer(EpisodewiseScorer):
    r"""1 where the completion's answer is mathematically equal to the expected one, else 0.

    Formula: math-verify parses both, LaTeX between dollar signs or in ``\boxed{}`` and plain arithmetic such as
    ``1/2``, and takes the last answer of the completion; the expected one may be LaTeX without dollar signs. ``verify``
    compares expressions, sets, intervals, matrices, and numbers to six decimals. Range: {0, 1}; NaN if the sample has
    no answer. Empty completion, or one without an expression: 0. Reads the last 2,000 characters. Deterministic, except
    near the time limit. Not incremental.

    Runs in another process, as ``Checker`` does, which ends ``9**9**9**9`` after ``time_limit``. Only digits and
    operators of a completion are evaluated as Python.

    Source: https://github.com/huggingface/Math-Verify

    Args:
        column: Metadata column of the expected answer; the first reference if a sample has none.
        time_limit: Seconds of wall time for each episode.
        on_timeout: Score of an episode that takes longer; None makes it an error.

    Raises:
        ImportError: If the package math-verify is missing.
        ValueError: If the time limit is not positive.
        ScorerError: When called, if math-verify cannot parse an expected answer.

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
        """Return the scores, and the errors by episode."""
        expected = _expected_answers(batch, self.column)
        index = np.array([i for i, answer in enumerate(expected) if answer is not None], dtype=np.int64)
        answerable = batch.select(index)
        calls = [(cleaned(str(expected[i])), cleaned(batch.completions[i][-2_000:])) for i in index]
        scores = scores_of_answers(self.name, self._worker.map(calls), answerable, self.on_timeout)
        total = np.full(len(batch), np.nan)
        total[index] = scores.total
        return Scores(total, {}, {int(index[row]): error for row, error in scores.errors.items()})

    def close(self) -> None:
        """End the process; the next batch starts another."""
        self._worker.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.column, self.time_limit, self.on_timeout), {"name": self.name}


# The rest runs in the worker. math-verify's own time limits are off: they need SIGALRM and the main thread.


@cache
def _math_verify() -> Any:
    return import_extra("math_verify", "math_answer", "math-verify")


class _IsEqual:
    """``_is_equal`` as an object that is warmed up where it is unpickled, before the time limit counts."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _ready, ()

    def __call__(self, expected: str, completion: str) -> bool:
        return _is_equal(expected, completion)


def _ready() -> _IsEqual:
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # silences its warning that time limits are off
    _is_equal("$1$", "$1$")
    return _IsEqual()


def _is_equal(expected: str, completion: str) -> bool:
    given = _math_verify().parse(completion, parsing_timeout=None)
    return bool(_math_verify().verify(_parse_expected(expected), given, timeout_seconds=None))


@lru_cache(maxsize=4_096)
def _parse_expected(expected: str) -> list[Any]:
    parse = _math_verify().parse
    # math-verify finds LaTeX between marks only; without them it parses x^2 + 2x + 1 as 1.
    reads_like_a_completion = _MARKED.search(expected) or _PROSE.search(expected)
    for text in (expected,) if reads_like_a_completion else (f"${expected}$", expected):
        found: list[Any] = parse(text, parsing_timeout=None)
        if found:
            return found
    raise ValueError(f"math-verify finds no expression in the expected answer {expected[:80]!r}")
