"""Calls of scorers: checked scores and handled errors, observation of episodes, saved states."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from textgym.scorers.base import FloatArray, Scorer, Scores

__all__ = [
    "as_number",
    "as_values",
    "episode_error",
    "evaluate",
    "get_states",
    "observe_episodes",
    "observes",
    "score_batch",
    "score_each",
    "set_states",
    "unscored",
]


def evaluate(scorer: Scorer, batch: TextBatch, on_error: str | float = "raise") -> Scores:
    """Score a batch; ``on_error`` decides about episodes without a finite score.

    The environment calls this one. The result always has components: those of the scorer, or its total under its name.

    Args:
        scorer: A scorer, as returned by ``textgym.scorers.as_scorer``.
        batch: B episodes.
        on_error: ``"raise"``; ``"invalid"``: the total of a failed episode is NaN; or a finite number, which becomes
            its total. If the scorer raised, all B episodes failed. Components are never replaced.

    Raises:
        ScorerError: If ``on_error`` is ``"raise"`` and the scorer raised, did not return B finite numbers, or does not
            apply to an episode. The attribute ``completions`` holds the texts without a score.
        ValueError: If an episode failed and ``on_error`` is none of these.

    >>> from textgym.scorers import LengthBand
    >>> evaluate(LengthBand(2, 4), TextBatch.from_texts(["a", "abc"])).components
    {'length_band': array([0.5, 1. ])}
    """
    scores = score_batch(scorer, batch)
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


def score_batch(scorer: Scorer, batch: TextBatch) -> Scores:
    """Score a batch and report errors by episode; NaN without an error means that the scorer does not apply.

    Scorers call this one on their inner scorers. The result has the components that the scorer reports, often none.

    Raises:
        ScorerError: If the scorer fails on an empty batch.
    """
    size = len(batch)
    try:
        scores = _checked(scorer.score_components(batch), size)
    except _interrupts():
        raise
    except BaseException as error:
        what = f" {error}" if isinstance(error, ScorerError) else f" raised {type(error).__name__}: {error}"
        message = f"scorer {scorer.name!r}{what}"
        if size == 0:
            raise ScorerError(message) from error
        return replace(unscored(scorer, size), errors=dict.fromkeys(range(size), message), cause=error)
    infinite = np.isinf(scores.total)
    return _without_infinities(scorer, batch, scores, infinite) if infinite.any() else scores


def unscored(scorer: Scorer, size: int) -> Scores:
    """Return the result for a scorer that was not called: NaN for all of its components."""
    components = {name: np.full(size, np.nan) for name in scorer.components}
    return Scores(np.full(size, np.nan), components, inner=tuple(unscored(inner, size) for inner in scorer.scorers))


# Results


def score_each(batch: TextBatch, function: Callable[[str, Sample], Any], name: str) -> Scores:
    """Return ``function(completion, sample)`` for each episode; where it raises, only that episode fails.

    Args:
        batch: B episodes.
        function: Returns a number, or ``None`` where it does not apply.
        name: Name of the scorer, for error messages.
    """
    values = np.full(len(batch), np.nan)
    errors: dict[int, str] = {}
    cause: BaseException | None = None
    for i, (completion, sample) in enumerate(zip(batch.completions, batch.samples, strict=True)):
        try:
            values[i] = as_number(function(completion, sample))
        except _interrupts():
            raise
        except BaseException as error:  # noqa: BLE001  as in score_batch
            what = "" if isinstance(error, ScorerError) else f"raised {type(error).__name__}: "
            errors[i] = episode_error(name, f"{what}{error}", completion)
            cause = cause or error
    return Scores(values, {}, errors, cause)


def episode_error(name: str, what: object, completion: str) -> str:
    """Return the message of one episode's failure; ``what`` continues a sentence that begins with the scorer."""
    return f"scorer {name!r} {what}, for the completion {completion[:80]!r}"


def as_values(result: Any, size: int) -> FloatArray:
    """Return the result of a scorer as a new (size,) float64 array, with NaN for ``None``.

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
    return np.array(result, dtype=np.float64)  # a copy: the scorer may reuse its buffer


def as_number(value: Any) -> float:
    """Return one score as a float, NaN for ``None``.

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


def _interrupts() -> tuple[type[BaseException], ...]:
    """Return the exceptions that are not failures of the scorer they pass through."""
    from asyncio import CancelledError  # slow to import, needed only after an exception

    return KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError


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
        f"scorer {scorer.name!r} gave no score (None or NaN) for {_at(batch, index)}. It may need references or other "
        f"columns of the prompts: this sample has {len(sample.references)} references (column 'references'); "
        f"other columns: {columns}"
    )


def _at(batch: TextBatch, index: int) -> str:
    return f"episode {index} of {len(batch)}, completion {_shown(batch.completions[index])}"


def _shown(value: object) -> str:
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Observation and learned state, of a scorer and all scorers inside it


def observes(scorer: Scorer) -> bool:
    """Return whether a scorer, or one inside it, overrides ``Scorer.observe``."""
    return type(scorer).observe is not Scorer.observe or any(map(observes, scorer.scorers))


def observe_episodes(
    scorer: Scorer, batch: TextBatch, scores: Scores | None = None, seen: set[int] | None = None
) -> None:
    """Call ``observe`` of a scorer and of all scorers inside it, inner ones first and each object once.

    An object that occurs several times observes at its first place in the order of ``scorers``. Scorers without an
    ``observe`` of their own are skipped.

    Args:
        scorer: The scorer.
        batch: B finished episodes.
        scores: Their result of ``score_components``. Missing scores, also of an inner scorer, are computed; if that
            fails, the episodes count as failed.
        seen: ``id`` of scorers that have observed these episodes already; extended in place.

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
    scores = score_batch(scorer, batch) if scores is None else scores
    inner_batch = scorer.inner_batch(batch)
    for inner, inner_scores in zip_longest(scorer.scorers, scores.inner[: len(scorer.scorers)]):
        observe_episodes(inner, inner_batch, inner_scores, seen)
    scorer.observe(batch, scores)


def get_states(scorer: Scorer) -> list[dict[str, Any] | None]:
    """Return the states of a scorer and all scorers inside it, outermost first, as JSON values.

    >>> from textgym.scorers import RunningNormalization
    >>> get_states(RunningNormalization("length_band"))
    [{'count': 0, 'mean': 0.0, 'sum_of_squares': 0.0}, None]
    """
    return [one.get_state() for one in _with_inner(scorer)]


def set_states(scorer: Scorer, states: Sequence[Mapping[str, Any] | None]) -> None:
    """Restore states returned by ``get_states`` of an equally built scorer; an exception changes nothing.

    Raises:
        ValueError: If the states belong to a scorer that is built differently.
    """
    scorers, before = list(_with_inner(scorer)), get_states(scorer)
    if len(scorers) != len(states):
        raise ValueError(
            f"the saved states belong to another scorer: they are of {len(states)} scorers, but {scorer.name!r} "
            f"consists of {len(scorers)}"
        )
    for one, own, state in zip(scorers, before, states, strict=True):
        if (own is None) != (state is None):
            saved, has = ("a state", "none") if own is None else ("no state", "one")
            raise ValueError(
                f"the saved states belong to another scorer: they contain {saved} for {one.name!r}, which has {has}"
            )
    try:
        _set_each(scorers, states)
    except BaseException:
        _set_each(scorers, before)
        raise


def _set_each(scorers: Sequence[Scorer], states: Sequence[Mapping[str, Any] | None]) -> None:
    for scorer, state in zip(scorers, states, strict=True):
        if state is not None:
            scorer.set_state(state)


def _with_inner(scorer: Scorer) -> Iterator[Scorer]:
    yield scorer
    for inner in scorer.scorers:
        yield from _with_inner(inner)
