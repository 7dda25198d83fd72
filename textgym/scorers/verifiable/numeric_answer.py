"""Whether the number that a text ends on is the right one."""

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from math import isfinite
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.verifiable.wanted import wanted_answers

__all__ = ["NumericAnswer"]

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
        wanted = wanted_answers(batch, self.column)
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
