"""A scorer, the texts that it is given, and what was found so far."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import as_scorer, score_part
from textgym.testing.report import Check, ScorerReport

__all__ = ["TEXTS", "ScorerKit"]

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
"""Completions that a scorer has to live with, by what they are called in a message."""
TIMED = "The little dog found a red ball in the garden and took it home to show it to his friend {}."
"""A text of about 20 words."""

FloatArray = npt.NDArray[np.float64]


class ScorerKit:
    """Scores texts, makes checks and notes how they went."""

    def __init__(
        self, scorer: Any, prompt: str | None, references: Sequence[str], metadata: Mapping[str, Any] | None
    ) -> None:
        self.subject = as_scorer(scorer)
        self.label = f"scorer {self.subject.name!r}"
        self.prompt = prompt
        self.references = list(references)
        self.metadata = dict(metadata or {})
        self.scores: FloatArray | None = None
        self.checks: list[Check] = []
        self.causes: list[BaseException | None] = []
        self.seen: list[float] = []

    def batch(self, texts: Mapping[str, str], prompt: str | None = None) -> TextBatch:
        """Return new episodes of these texts."""
        prompt = self.prompt if prompt is None else prompt
        prompts = [f"Prompt {i}. " if prompt is None else prompt for i in range(len(texts))]
        columns = [copy.deepcopy(self.metadata) for _ in texts]
        return TextBatch.from_texts(list(texts.values()), prompts, [self.references] * len(texts), columns)

    def score(self, batch: TextBatch, how: str = "", names: Sequence[str] = (), scorer: Any = None) -> FloatArray:
        """Return the scores; ``how`` stands before "fails" in the message, ``names`` tells which texts it fails for."""
        scorer = self.subject if scorer is None else scorer
        label = f"{self.label}, {how}" if how else self.label
        try:
            scores = score_part(scorer, batch)
        except ScorerError as error:  # of a batch without episodes
            raise AssertionError(f"{label} fails: {error}") from error.__cause__
        if scores.error is not None:
            culprits = ""
            if len(batch) > 1:
                alone = [score_part(scorer, batch.select(np.array([i]))).error for i in range(len(batch))]
                found = [name for name, error in zip(names, alone, strict=False) if error is not None]
                culprits = ", ".join(found) if len(found) < len(batch) else "every text"
            where = f" for: {culprits}" if culprits else ""
            raise AssertionError(f"{label} fails{where}: {scores.error}") from scores.cause
        self.seen += scores.total[~np.isnan(scores.total)].tolist()
        return scores.total

    def run(self, name: str, check: Callable[[], Any]) -> None:
        """Make a check, and note how it went."""
        try:
            detail = check()
        except AssertionError as error:
            self.causes.append(error.__cause__)
            said = str(error)
            message = said if said.startswith(self.label) else f"{self.label} {said}"
            self.checks.append(Check(name=name, passed=False, detail=message))
            return
        except Exception as error:  # noqa: BLE001  what a scorer's own method raises is a failed check
            self.causes.append(error)
            message = f"{self.label} fails, {name}: {type(error).__name__}: {error}"
            self.checks.append(Check(name=name, passed=False, detail=message))
            return
        self.checks.append(Check(name=name, passed=True, detail=detail if isinstance(detail, str) else ""))

    def failed(self, name: str) -> bool:
        """Return whether a check that was made failed."""
        return any(check.name == name and not check.passed for check in self.checks)

    def report(self, timed: bool) -> ScorerReport:
        """Return the report, or raise it."""
        failures = [check.detail for check in self.checks if not check.passed]
        if failures:
            raise AssertionError("\n".join(failures)) from next((cause for cause in self.causes if cause), None)
        return ScorerReport(
            name=self.subject.name,
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
                self.subject(batch)
                seconds.append(time.perf_counter() - start)
            measured[size] = 1e6 * float(np.median(seconds)) / size
        return measured
