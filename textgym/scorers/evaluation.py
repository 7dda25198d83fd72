"""Calls of scorers: results are checked, exceptions fall under the error policy, and ended episodes are observed."""

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError, unknown_name
from textgym.prompts.base import Sample
from textgym.scorers.base import FloatArray, Scorer, Scores, observes

__all__ = [
    "as_number",
    "as_values",
    "episode_error",
    "evaluate",
    "observe_episodes",
    "score_each",
    "score_part",
    "unscored",
]


def evaluate(scorer: Scorer, batch: TextBatch, on_error: str | float = "raise") -> Scores:
    """Call ``scorer`` once and check what comes back: B numbers, none of them NaN or infinite.

    Args:
        scorer: What :func:`textgym.scorers.as_scorer` returned.
        batch: B episodes.
        on_error: ``"raise"``; or ``"invalid"``, NaN as the total of the episodes that failed; or a finite number,
            which becomes their total. Where a scorer raised, all B failed. Components stay as they are.

    Raises:
        ScorerError: If the policy is ``"raise"`` and the scorer raised, returned something that is not B finite
            numbers, or does not apply to an episode, which leaves no score. Its ``completions`` are the texts that it
            leaves without one.
        ValueError: If there was an error, and ``on_error`` is none of these.

    >>> from textgym.scorers import LengthBand
    >>> evaluate(LengthBand(2, 4), TextBatch.from_texts(["a", "abc"])).components
    {'length_band': array([0.5, 1. ])}
    """
    scores = score_part(scorer, batch)
    components = scores.components or {scorer.name: scores.total}
    missing = np.isnan(scores.total)
    if not missing.any():
        return replace(scores, components=components)
    rows = missing.nonzero()[0].tolist()
    errors = {**scores.errors, **{i: _no_score(scorer, batch, i) for i in rows if i not in scores.errors}}
    if on_error == "raise":
        raise ScorerError(next(iter(errors.values())), [batch.completions[i] for i in rows]) from scores.cause
    total = np.where(missing, _replacement(on_error), scores.total)
    return replace(scores, total=total, components=components, errors=errors)


def score_part(scorer: Scorer, batch: TextBatch) -> Scores:
    """Call ``scorer`` as a part of another: NaN may say that it does not apply, errors are reported by episode.

    Raises:
        ScorerError: If the scorer fails for a batch of no episodes.
    """
    size = len(batch)
    try:
        scores = _checked(scorer.score_components(batch), size)
    except _interrupts():
        raise
    except BaseException as error:
        said = f" {error}" if isinstance(error, ScorerError) else f" raised {type(error).__name__}: {error}"
        message = f"scorer {scorer.name!r}{said}"
        if size == 0:
            raise ScorerError(message) from error
        return replace(unscored(scorer, size), errors=dict.fromkeys(range(size), message), cause=error)
    infinite = np.isinf(scores.total)
    return _without_infinities(scorer, batch, scores, infinite) if infinite.any() else scores


def unscored(scorer: Scorer, size: int) -> Scores:
    """Return the scores of a scorer that was not called: NaN under the names that it would have used."""
    components = {name: np.full(size, np.nan) for name in scorer.components}
    return Scores(np.full(size, np.nan), components, inner=tuple(unscored(inner, size) for inner in scorer.scorers))


def observe_episodes(
    scorer: Scorer, batch: TextBatch, scores: Scores | None = None, seen: set[int] | None = None
) -> None:
    """Let a scorer and those inside it observe episodes that ended, inner ones first and each object once.

    An object that stands in several places observes in the first, in the order of ``scorers``. Only scorers that learn
    are called.

    Args:
        scorer: The scorer.
        batch: B finished episodes.
        scores: What its ``score_components`` returned for them; where they, or those of an inner scorer, are missing,
            the episodes are scored for it, and count as failed where that fails.
        seen: ``id`` of the scorers that have observed these episodes; those that do now are added.

    >>> from textgym.scorers import RunningNormalization, as_scorer
    >>> normalised = RunningNormalization(len)
    >>> observe_episodes(as_scorer({"length": (normalised, 1.0)}), TextBatch.from_texts(["a", "abc"]))
    >>> normalised.mean
    2.0
    """
    seen = set() if seen is None else seen
    if id(scorer) in seen or not observes(scorer):
        return
    seen.add(id(scorer))
    scores = score_part(scorer, batch) if scores is None else scores
    inner_batch = scorer.inner_batch(batch)
    for inner, inner_scores in zip_longest(scorer.scorers, scores.inner[: len(scorer.scorers)]):
        observe_episodes(inner, inner_batch, inner_scores, seen)
    scorer.observe(batch, scores)


def episode_error(name: str, said: object, completion: str) -> str:
    """Return the message of one episode's failure; ``said`` is the end of a sentence that begins with the scorer."""
    return f"scorer {name!r} {said}, for the completion {completion[:80]!r}"


def _interrupts() -> tuple[type[BaseException], ...]:
    """Return the exceptions that are not failures of the scorer that they pass through."""
    from asyncio import CancelledError  # not needed before something is raised, and slow to import

    return KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError


def score_each(batch: TextBatch, function: Callable[[str, Sample], Any], name: str) -> Scores:
    """Return ``function(completion, sample)`` of each episode; one for which it raises fails alone.

    Args:
        batch: B episodes.
        function: Gives a number, or ``None`` where it does not apply.
        name: The scorer's, for the message.
    """
    values = np.full(len(batch), np.nan)
    errors: dict[int, str] = {}
    cause: BaseException | None = None
    for i, (completion, sample) in enumerate(zip(batch.completions, batch.samples, strict=True)):
        try:
            values[i] = as_number(function(completion, sample))
        except _interrupts():
            raise
        except BaseException as error:  # noqa: BLE001  as in score_part
            said = "" if isinstance(error, ScorerError) else f"raised {type(error).__name__}: "
            errors[i] = episode_error(name, f"{said}{error}", completion)
            cause = cause or error
    return Scores(values, {}, errors, cause)


def as_values(result: Any, size: int) -> FloatArray:
    """Return what a scorer gave as a new (size,) float64 array, ``None`` as NaN.

    Raises:
        ScorerError: If it is not ``size`` numbers.
    """
    if type(result) is not np.ndarray or result.dtype != np.float64:
        try:
            result = np.asarray(result)
            if result.dtype.kind == "O":
                result = np.array([as_number(value) for value in result], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ScorerError(f"returned {_shown(result)}, expected {size} numbers") from error
    if result.shape != (size,):
        got = f"{len(result)} scores" if result.ndim == 1 else f"an array of shape {result.shape}"
        raise ScorerError(f"returned {got} for {size} episodes")
    if result.dtype.kind not in "biuf" and size > 0:
        raise ScorerError(f"returned {_shown(result.tolist())}, expected {size} numbers")
    return np.array(result, dtype=np.float64)  # a copy: a scorer may use its buffer again


def as_number(value: Any) -> float:
    """Return one score as a float, ``None`` as NaN.

    Raises:
        ScorerError: If it is not a number.
    """
    if value is None:
        return np.nan
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ScorerError(f"returned {_shown(value)}, expected a number")


def _checked(scores: Any, size: int) -> Scores:
    if not isinstance(scores, Scores):
        raise ScorerError(f"returned {_shown(scores)} from score_components, expected Scores")
    components = {name: as_values(values, size) for name, values in scores.components.items()}
    total = as_values(scores.total, size)
    total[list(scores.errors)] = np.nan
    return replace(scores, total=total, components=components)


def _without_infinities(scorer: Scorer, batch: TextBatch, scores: Scores, infinite: npt.NDArray[np.bool_]) -> Scores:
    found = {i: scores.total[i] for i in infinite.nonzero()[0].tolist()}
    errors = {i: f"scorer {scorer.name!r} gave {value} for {_at(batch, i)}" for i, value in found.items()}
    return replace(scores, total=np.where(infinite, np.nan, scores.total), errors={**scores.errors, **errors})


def _replacement(on_error: str | float) -> float:
    if on_error == "invalid":
        return np.nan
    if isinstance(on_error, str):
        raise unknown_name("on_error", on_error, ["invalid", "raise"], also="A finite number is accepted too.")
    if not isinstance(on_error, Real) or isinstance(on_error, bool) or not isfinite(on_error):
        raise ValueError(f"on_error must be 'raise', 'invalid' or a finite number, got {on_error!r}")
    return float(on_error)


def _no_score(scorer: Scorer, batch: TextBatch, index: int) -> str:
    sample = batch.samples[index]
    columns = ", ".join(map(repr, sample.metadata)) or "none"
    return (
        f"scorer {scorer.name!r} gave no score (None or NaN) for {_at(batch, index)}. If it needs references "
        f"or columns of the prompts: this sample has {len(sample.references)} references (column 'references'), and "
        f"the further columns are: {columns}"
    )


def _at(batch: TextBatch, index: int) -> str:
    return f"episode {index} of the {len(batch)} scored, whose completion is {_shown(batch.completions[index])}"


def _shown(value: object) -> str:
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
