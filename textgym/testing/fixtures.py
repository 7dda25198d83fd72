"""Test texts, the runner of the scorer checks, and their report."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import as_scorer, score_batch
from textgym.scorers.base import FloatArray

__all__ = ["TEXTS", "Check", "ScorerFixture", "ScorerReport"]

TEXTS = {
    "plain English": "The happy dog ran home.",
    "another sentence": "A sad cat sat, and sat, and sat!",
    "empty text": "",
    "white space": " \t\n  ",
    "one word": "cat",
    "emoji": "😀😀 👩‍👩‍👧",
    "CJK": "猫坐在垫子上。猫坐在垫子上。",
    "punctuation": "?!... --- ({[",
    "replacement character": "a \ufffd b",
    "lone surrogate": "a \ud800 b",
    "NUL": "a\0b",
    "100,000 characters of words": "the cat sat on a mat " * 4762,
    "100,000 letters": "a" * 100_000,
}
"""Completions that a scorer has to accept, by the name that messages use."""
TIMED = "The little dog found a red ball in the garden and took it home to show it to his friend {}."
"""A text of about 20 words for the timing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of one check."""

    name: str
    """Name of the check."""
    passed: bool
    """Whether it passed."""
    detail: str
    """Observed values; of a failure, its line of the error message."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ScorerReport:
    """Report of ``check_scorer``; ``str()`` formats it as a table."""

    name: str
    """The scorer's name."""
    checks: tuple[Check, ...]
    """Results, in the order of the checks."""
    range_seen: tuple[float, float] | None
    """Least and greatest score of a text; None if the scorer never applied."""
    microseconds: dict[int, float] | None = None
    """Microseconds per text of 20 words, by batch size; None unless ``timed``."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __repr__(self) -> str:
        return f"<{self._verdict()}, {self._range()}>"

    def __str__(self) -> str:
        width = max(len("check"), *(len(check.name) for check in self.checks))
        lines = [f"{'check':<{width}}  passed  detail"]
        for check in self.checks:
            lines.append(f"{check.name:<{width}}  {'yes' if check.passed else 'NO':<6}  {check.detail}".rstrip())
        lines.append(f"{self._verdict()}, {self._range()}.")
        if self.range_seen is None:
            lines.append("No score observed: pass references=, metadata= or prompt= if the scorer needs them.")
        if self.microseconds is not None:
            times = ", ".join(f"{value:,.1f} in a batch of {size}" for size, value in self.microseconds.items())
            lines.append(f"Microseconds per text of 20 words: {times}.")
        return "\n".join(lines)

    def _verdict(self) -> str:
        failed = sum(not check.passed for check in self.checks)
        what = f"{failed} of {len(self.checks)} checks failed" if failed else f"{len(self.checks)} checks passed"
        return f"scorer {self.name!r}: {what}"

    def _range(self) -> str:
        if self.range_seen is None:
            return "no score observed"
        low, high = self.range_seen
        return f"scores observed in [{low:.4g}, {high:.4g}]"


class ScorerFixture:
    """Runs checks of one scorer and collects their results."""

    def __init__(
        self, scorer: Any, prompt: str | None, references: Sequence[str], metadata: Mapping[str, Any] | None
    ) -> None:
        self.scorer = as_scorer(scorer)
        self.label = f"scorer {self.scorer.name!r}"
        self.prompt = prompt
        self.references = list(references)
        self.metadata = dict(metadata or {})
        self.scores: FloatArray | None = None
        self.checks: list[Check] = []
        self.causes: list[BaseException | None] = []
        self.seen: list[float] = []

    def batch(self, texts: Mapping[str, str], prompt: str | None = None) -> TextBatch:
        """Return a batch of new episodes with these completions."""
        prompt = self.prompt if prompt is None else prompt
        prompts = [f"Prompt {i}. " if prompt is None else prompt for i in range(len(texts))]
        columns = [copy.deepcopy(self.metadata) for _ in texts]
        return TextBatch.from_texts(list(texts.values()), prompts, [self.references] * len(texts), columns)

    def score(self, batch: TextBatch, how: str = "", names: Sequence[str] = (), scorer: Any = None) -> FloatArray:
        """Return (B,) scores, of a copy if ``scorer`` is given; ``how`` and ``names`` of the texts go into messages."""
        scorer = self.scorer if scorer is None else scorer
        label = f"{self.label}, {how}" if how else self.label
        try:
            scores = score_batch(scorer, batch)
        except ScorerError as error:  # of an empty batch
            raise AssertionError(f"{label} fails: {error}") from error.__cause__
        if scores.error is not None:
            culprits = ""
            if len(batch) > 1:
                alone = [score_batch(scorer, batch.select(np.array([i]))).error for i in range(len(batch))]
                found = [name for name, error in zip(names, alone, strict=False) if error is not None]
                culprits = ", ".join(found) if len(found) < len(batch) else "every text"
            where = f" for: {culprits}" if culprits else ""
            raise AssertionError(f"{label} fails{where}: {scores.error}") from scores.cause
        self.seen += scores.total[~np.isnan(scores.total)].tolist()
        return scores.total

    def run(self, name: str, check: Callable[[], Any]) -> None:
        """Run a check, which raises ``AssertionError`` or returns a detail for the report, and record the result."""
        try:
            detail = check()
        except AssertionError as error:
            self.causes.append(error.__cause__)
            text = str(error)
            message = text if text.startswith(self.label) else f"{self.label} {text}"
            self.checks.append(Check(name=name, passed=False, detail=message))
            return
        except Exception as error:  # noqa: BLE001  what a scorer's own method raises is a failed check
            self.causes.append(error)
            message = f"{self.label} fails, {name}: {type(error).__name__}: {error}"
            self.checks.append(Check(name=name, passed=False, detail=message))
            return
        self.checks.append(Check(name=name, passed=True, detail=detail if isinstance(detail, str) else ""))

    def failed(self, name: str) -> bool:
        """Return whether a check has failed."""
        return any(check.name == name and not check.passed for check in self.checks)

    def report(self, timed: bool) -> ScorerReport:
        """Return the report, or raise ``AssertionError`` with a line for each failed check."""
        failures = [check.detail for check in self.checks if not check.passed]
        if failures:
            raise AssertionError("\n".join(failures)) from next((cause for cause in self.causes if cause), None)
        return ScorerReport(
            name=self.scorer.name,
            checks=tuple(self.checks),
            range_seen=(min(self.seen), max(self.seen)) if self.seen else None,
            microseconds=self._microseconds() if timed else None,
        )

    def _microseconds(self) -> dict[int, float]:
        measured = {}
        for size, repeats in ((1, 32), (64, 5)):
            texts = (TIMED.format(f"number {i}") for i in range(size * repeats))
            batches = [self.batch({f"{i}": next(texts) for i in range(size)}) for _ in range(repeats)]
            seconds = []
            for batch in batches:
                start = time.perf_counter()
                self.scorer(batch)
                seconds.append(time.perf_counter() - start)
            measured[size] = 1e6 * float(np.median(seconds)) / size
        return measured
