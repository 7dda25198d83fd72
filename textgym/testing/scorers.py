"""The contract of scorers as a function: what one has to pass before it earns rewards."""

import copy
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import Scorer, as_scorer, score_part, scorer_name

__all__ = ["check_scorer"]

TEXTS = {
    "plain English": "The happy dog ran home.",
    "another sentence": "A sad cat sat, and sat, and sat!",
    "empty text": "",
    "white space": " \t\n  ",
    "one word": "cat",
    "emoji": "😀😀 👩‍👩‍👧",
    "CJK": "猫坐在垫子上。猫坐在垫子上。",
    "lone surrogate": "a \ud800 b",
    "NUL": "a\0b",
    "100,000 characters of words": "the cat sat on a mat " * 4762,
    "100,000 letters": "a" * 100_000,
}
"""Completions that a scorer has to live with, by what they are called in a message."""


def check_scorer(
    scorer: Any,
    *,
    score_range: tuple[float, float] | None = None,
    deterministic: bool = True,
    references: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Check that a scorer keeps the contract of :class:`textgym.scorers.Scorer`.

    It has to give one finite number or NaN for each of some ordinary and some nasty texts and for a batch of none,
    stay in its range, leave the batch as it was, survive pickling, and give an episode the same score whenever and in
    whatever company it is asked.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        score_range: The least and the greatest score; by default the scorer's attribute ``score_range``, if it has one.
        deterministic: Whether equal episodes have equal scores. ``False`` leaves out the comparisons.
        references: References that every text is given, for a scorer that needs them.
        metadata: Metadata that every text is given.

    Raises:
        AssertionError: If a check fails; the message says which, and for which text.

    >>> from textgym.scorers import LengthBand
    >>> check_scorer(LengthBand())
    >>> check_scorer(len, score_range=(0, 100))
    Traceback (most recent call last):
    AssertionError: scorer 'len' leaves its range [0, 100] for the 100,000 characters of words: 100002.0
    """
    subject = as_scorer(scorer)
    label = f"scorer {scorer_name(subject)!r}"
    size = len(TEXTS)
    prompts = [f"Prompt {i}. " for i in range(size)]
    columns = [copy.deepcopy(dict(metadata or {})) for _ in TEXTS]
    batch = TextBatch.from_texts(list(TEXTS.values()), prompts, [list(references)] * size, columns)
    before = _contents(batch)
    scores = _scores(subject, batch, label)
    if _contents(batch) != before:
        raise AssertionError(f"{label} modifies the batch that it scores")
    _scores(subject, batch.select(np.array([], dtype=np.int64)), f"{label}, given a batch of 0 episodes,")
    _check_range(scores, score_range or getattr(subject, "score_range", None), label)
    copied = _pickled(subject, label)
    if not deterministic:
        return
    _check_same(scores, _scores(subject, batch, label), f"{label} is not deterministic: asked twice,")
    _check_same(scores, _scores(copied, batch, label), f"{label} does not survive pickling: its copy")
    order = np.arange(size)[::-1]
    reordered = _scores(subject, batch.select(order), label)
    _check_same(scores, reordered[order], f"{label} depends on the order of the batch: reversed, it")
    alone = [_scores(subject, batch.select(np.array([i])), f"{label}, given one text,")[0] for i in range(size)]
    _check_same(scores, np.array(alone), f"{label} depends on the rest of the batch: alone, it")


def _scores(scorer: Scorer, batch: TextBatch, label: str) -> npt.NDArray[np.float64]:
    scores = score_part(scorer, batch)
    if scores.error is not None:
        culprits = ""
        if len(batch) > 1:
            alone = [score_part(scorer, batch.select(np.array([i]))).error for i in range(len(batch))]
            culprits = ", ".join(name for name, error in zip(TEXTS, alone, strict=False) if error is not None)
        where = f" for: {culprits}" if culprits else ""
        raise AssertionError(f"{label} fails{where}: {scores.error}") from scores.cause
    return scores.total


def _check_range(scores: npt.NDArray[np.float64], limits: tuple[float, float] | None, label: str) -> None:
    if limits is None:
        return
    low, high = limits
    for name, score in zip(TEXTS, scores.tolist(), strict=True):
        if score < low or score > high:
            raise AssertionError(f"{label} leaves its range [{low}, {high}] for the {name}: {score}")


def _check_same(expected: npt.NDArray[np.float64], got: npt.NDArray[np.float64], what: str) -> None:
    # Batched and single calls of a network differ in the last float32 digits.
    for name, first, second in zip(TEXTS, expected.tolist(), got.tolist(), strict=True):
        if not np.isclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise AssertionError(f"{what} gives the {name} {second} instead of {first}")


def _pickled(scorer: Scorer, label: str) -> Scorer:
    try:
        copied: Scorer = pickle.loads(pickle.dumps(scorer))
    except Exception as error:  # a reducer is user code and may raise anything
        raise AssertionError(f"{label} cannot be pickled: {error}") from error
    return copied


def _contents(batch: TextBatch) -> tuple[Any, ...]:
    arrays = (batch.ids, batch.lengths, batch.prompt_lengths, batch.done)
    texts = (batch.prompts, batch.completions, batch.completion_ids, batch.references, batch.metadata)
    return (*(array.tobytes() for array in arrays), *copy.deepcopy(texts))
