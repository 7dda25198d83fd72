"""Whether a text has a pattern."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer

__all__ = ["Regex"]


@dataclass(frozen=True)
class Regex(Scorer):
    r"""Whether, or how often, a regular expression matches the completion.

    Formula: ``"search"``, 1 where it matches somewhere; ``"fullmatch"``, 1 where it matches the whole text;
    ``"count"``, ``min(matches, maximum) / maximum``, matches that do not overlap. Range: [0, 1]. An empty completion
    scores what the pattern says of an empty text, mostly 0. Deterministic. Not incremental.

    Only the first ``max_characters`` are read; a longer text is no full match. That keeps a pattern of quadratic cost,
    such as ``\s+$``, cheap. It does not help against an exponential one, such as ``(a+)+$``, which takes minutes for 30
    characters and cannot be interrupted: no repetition inside a repetition, where both can match the same.

    Raises:
        ValueError: If the pattern is not valid, the mode is unknown, or a number is not positive.
        TypeError: If the pattern is no string.

    >>> texts = TextBatch.from_texts(["call 555-0199", "555-0199", ""])
    >>> Regex(r"\d{3}-\d{4}")(texts), Regex(r"\d{3}-\d{4}", "fullmatch")(texts), Regex(r"\d", "count", 14)(texts)
    (array([1., 1., 0.]), array([0., 1., 0.]), array([0.5, 0.5, 0. ]))
    """

    pattern: str
    """The expression, in the syntax of :mod:`re`; flags are written in it: ``"(?i)yes"``."""
    mode: Literal["search", "fullmatch", "count"] = "search"
    """What is asked of the text."""
    maximum: int = 1
    """Matches that are enough for a score of 1 in the mode ``"count"``."""
    max_characters: int = 2_000
    """How much of a text is read."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise TypeError(f"pattern is {self.pattern!r} of type {type(self.pattern).__name__}, expected a string")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
        if self.mode not in ("search", "fullmatch", "count"):
            raise unknown_name("mode", self.mode, ["search", "fullmatch", "count"])
        if self.maximum < 1 or self.max_characters < 1:
            raise ValueError(
                f"maximum and max_characters must be positive, got {self.maximum!r} and {self.max_characters!r}"
            )

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        pattern = re.compile(self.pattern)  # which re keeps
        if self.mode == "fullmatch":
            whole = [len(text) <= self.max_characters and pattern.fullmatch(text) for text in batch.completions]
            return np.array([match is not None and match is not False for match in whole], dtype=np.float64)
        texts = [text[: self.max_characters] for text in batch.completions]
        if self.mode == "search":
            return np.array([pattern.search(text) is not None for text in texts], dtype=np.float64)
        counts = [sum(1 for _ in pattern.finditer(text)) for text in texts]
        return np.minimum(np.array(counts, dtype=np.float64), self.maximum) / self.maximum
