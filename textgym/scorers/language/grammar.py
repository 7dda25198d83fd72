"""Share of words without a grammatical mistake."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra
from textgym.scorers.text import cleaned

__all__ = ["Grammar"]

_KINDS = (
    *("Agreement", "BoundaryError", "Capitalization", "Eggcorn", "Enhancement", "Formatting", "Grammar", "Malapropism"),
    *("Miscellaneous", "Nonstandard", "Punctuation", "Readability", "Redundancy", "Regionalism", "Repetition"),
    *("Spelling", "Style", "Typo", "Usage", "WordChoice", "WordOrder"),
)
_DIALECTS = ("american", "australian", "british", "canadian", "indian")

_english_words = re.compile(r"[^\W\d_]*[A-Za-z][^\W\d_]*").findall
_long_run = re.compile(r"\S{50}(?=\S)").sub  # no English word is longer
_last_space = re.compile(r"\s\S*\Z").search
_MOST_CHARACTERS_SPELLED = 500  # Harper searches for corrections of each unknown word for some 10 ms

_one_at_a_time = Lock()  # a linter in use by another thread raises
_was_forked_while_busy = False


@contextmanager
def _harper_alone() -> Iterator[None]:
    """Serialise the calls of Harper, whose locks a forked process inherits in whatever state they are."""
    if _was_forked_while_busy:
        raise RuntimeError(
            "Grammar cannot be used in this process, which was forked while another thread ran the grammar checker; "
            "start processes with the method 'spawn' or 'forkserver', or fork when no thread is scoring"
        )
    with _one_at_a_time:
        yield


def _note_fork() -> None:
    global _one_at_a_time, _was_forked_while_busy
    _was_forked_while_busy = _was_forked_while_busy or _one_at_a_time.locked()
    _one_at_a_time = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@cache
def _linter(dialect: str, spelling: bool) -> Any:
    harper = import_extra("harper", "grammar", "harper-py")
    with _harper_alone():
        linter = harper.Linter(harper.Dialect[dialect.upper()])
    linter.set_lint_config({"SpellCheck": spelling})
    return linter


@dataclass(frozen=True)
class Grammar(Scorer):
    """1 minus the mistakes per word that the grammar checker Harper finds in the completion.

    Formula: ``max(0, 1 - mistakes / words)``, with the words that have a Latin letter and the distinct positions of
    mistakes of the given kinds. Range: [0, 1]. Reads English, and the first 2,000 characters, or 500 if ``kinds``
    contains Spelling. Empty completion, or one without words: 0. Deterministic. Not incremental.

    Harper's rules find doubled words, wrong articles ("an cat"), "I has", "he go", spaces before punctuation and
    sentences of more than 40 words. They miss much ("This are wrong.") and accept word salad and other languages:
    combine it with a fluency scorer. Spelling is off by default, as it takes several times longer;
    ``Spelling`` takes microseconds.

    Source: https://github.com/Automattic/harper through https://pypi.org/project/harper-py

    Raises:
        ImportError: If the package harper-py is missing.
        TypeError: If ``kinds`` is one string.
        ValueError: If a kind or the dialect is unknown, or ``kinds`` is empty.
        RuntimeError: When called in a process that was forked while another thread ran Harper.

    >>> Grammar()(TextBatch.from_texts(["He goes to school.", "He go to the the school.", "An cat sat.", ""]))
    array([1.        , 0.66666667, 0.66666667, 0.        ])
    >>> Grammar(kinds=("Repetition",))(TextBatch.from_texts(["He go to the the school."]))
    array([0.83333333])
    """

    kinds: tuple[str, ...] | None = None
    """Harper's kinds of mistakes that count (Agreement, BoundaryError, Capitalization, Eggcorn, Enhancement,
    Formatting, Grammar, Malapropism, Miscellaneous, Nonstandard, Punctuation, Readability, Redundancy, Regionalism,
    Repetition, Spelling, Style, Typo, Usage, WordChoice, WordOrder); all but Spelling by default."""
    dialect: str = "american"
    """american, australian, british, canadian or indian."""
    after_prompt: bool = False
    """Whether the completion continues the prompt and is read after its last 200 characters. If False, a completion
    that begins in lower case has a mistake of capitalization."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str):
            raise TypeError(f"kinds is one string, {self.kinds!r}; expected a sequence of strings")
        if self.kinds is not None:
            if not self.kinds:
                raise ValueError("kinds is empty; leave it out to count all but spelling")
            for kind in self.kinds:
                if kind not in _KINDS:
                    raise unknown_name("kind", kind, _KINDS)
            object.__setattr__(self, "kinds", tuple(self.kinds))
        if self.dialect not in _DIALECTS:
            raise unknown_name("dialect", self.dialect, _DIALECTS)
        self._linter()

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        linter = self._linter()
        prompts = [cleaned(prompt[-200:]) for prompt in batch.prompts] if self.after_prompt else [""] * len(batch)
        pairs = zip(prompts, map(self._read_part, batch.derived(cleaned)), strict=True)
        return np.array([self._score(linter, *pair) for pair in pairs], dtype=np.float64)

    def _linter(self) -> Any:
        return _linter(self.dialect, self._checks_spelling)

    @property
    def _checks_spelling(self) -> bool:
        return self.kinds is not None and "Spelling" in self.kinds

    def _read_part(self, completion: str) -> str:
        """Return the beginning of a completion that is read, up to the end of a word."""
        if not self._checks_spelling or len(completion) <= _MOST_CHARACTERS_SPELLED:
            return completion
        start = completion[: _MOST_CHARACTERS_SPELLED + 1]
        return start[: match.start() if (match := _last_space(start)) else _MOST_CHARACTERS_SPELLED]

    def _score(self, linter: Any, prompt: str, completion: str) -> float:
        num_words = len(_english_words(completion))
        if num_words == 0:
            return 0.0
        # Harper's memory grows with the square of the longest run: 100,000 letters end the process.
        # With dedup, one long sentence would hide all other mistakes.
        prompt, completion = _long_run(r"\g<0> ", prompt), _long_run(r"\g<0> ", completion)
        with _harper_alone():
            lints = linter.lint(prompt + completion, language="plaintext", dedup=False)
        places = {
            (lint.span.start, lint.span.end)
            for lint in lints
            if lint.span.end > len(prompt) and (self.kinds is None or lint.lint_kind in self.kinds)
        }
        return max(0.0, 1 - len(places) / num_words)
