"""The contract of scorers: what a text is worth, and the one place where a scorer is called and its result checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from numbers import Real
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError, unknown_name

__all__ = [
    "CompositeScorer",
    "Scorer",
    "Scores",
    "as_number",
    "as_values",
    "evaluate",
    "part_names",
    "score_part",
    "scorer_name",
    "set_progress",
]

FloatArray = npt.NDArray[np.float64]


class Scorer(Protocol):
    """A callable object that says how good texts are.

    It should be picklable, and the score of an episode should not depend on the others of its batch. It may also say
    more about itself, and :func:`textgym.testing.check_scorer` holds it to what it says:

    - ``name: str``, its key in ``info["scores"]``;
    - ``score_range: tuple[float, float]``, the least and the greatest score;
    - ``deterministic: bool``, ``True`` by default: whether the same episode always has the same score;
    - ``prefers: Sequence[tuple[str, str]]``, pairs of completions, the first of which scores higher;
    - ``requires: tuple[str, ...]``, the packages that it needs, as pip calls them;
    - ``parts: Mapping[str, Any]``, of a scorer that is made of others, keyed as in ``info["scores"]``;
    - ``set_progress(progress: float)``, called with the share of training done, of one that changes with it.
    """

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, higher is better, NaN where the scorer does not apply to an episode.

        Anything that says the same is accepted: a list, integers, ``None`` for NaN.
        """
        ...


@dataclass(frozen=True)
class Scores:
    """What a scorer said about B episodes."""

    total: FloatArray
    """(B,) float64; NaN where the scorer failed, and, in a part of another scorer, where it does not apply."""
    components: Mapping[str, FloatArray]
    """(B,) float64 by name, before weights; a part of a part is ``"outer/inner"``; NaN where it failed or does not
    apply. Of a scorer without parts, :func:`evaluate` gives one component, itself, and :func:`score_part` none."""
    error: str | None = None
    """What went wrong first, ``None`` if nothing did."""
    failed: npt.NDArray[np.bool_] | None = None
    """(B,) bool, the episodes that ``error`` affects, ``None`` if there is no error."""
    cause: Exception | None = field(default=None, repr=False, compare=False)
    """The exception behind ``error``, where there was one."""


class CompositeScorer(Protocol):
    """A scorer that knows more than a total: its parts by name, or which of its episodes failed."""

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64 totals; raise where :meth:`score_components` reports an error."""
        ...

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components. Parts are called through :func:`score_part`, which reports and never raises."""
        ...


def evaluate(scorer: Scorer, batch: TextBatch, on_error: str | float = "raise") -> Scores:
    """Call ``scorer`` once and check what comes back: B numbers, none of them NaN or infinite.

    Args:
        scorer: What :func:`textgym.scorers.as_scorer` returned.
        batch: B episodes.
        on_error: ``"raise"``; or ``"invalid"``, NaN as the total of the episodes that failed; or a finite number,
            which becomes their total. Where a scorer raised, all B failed. Components stay as they are.

    Raises:
        ScorerError: If the policy is ``"raise"`` and the scorer raised, returned something that is not B finite
            numbers, or said of an episode that it does not apply, which leaves no score. Its ``completions`` are
            the texts that it leaves without one.
        ValueError: If there was an error, and ``on_error`` is none of these.

    >>> from textgym.scorers import LengthBand
    >>> evaluate(LengthBand(2, 4), TextBatch.from_texts(["a", "abc"])).components
    {'length_band': array([0.5, 1. ])}
    """
    scores = score_part(scorer, batch)
    total, error = scores.total, scores.error
    components = scores.components or {scorer_name(scorer): total}
    missing = np.isnan(total)
    if error is None and not missing.any():
        return Scores(total, components)
    error = error or _no_score(scorer, batch, missing)
    if on_error == "raise":
        unscored = [batch.completions[i] for i in missing.nonzero()[0].tolist()]
        raise ScorerError(error, unscored) from scores.cause
    return Scores(np.where(missing, _replacement(on_error), total), components, error, missing, scores.cause)


def score_part(scorer: Scorer, batch: TextBatch) -> Scores:
    """Call ``scorer`` as a part of another: NaN may say that it does not apply, an error is reported and not raised."""
    try:
        if hasattr(scorer, "score_components"):
            scores = _checked_parts(scorer.score_components(batch), len(batch))
        else:
            scores = Scores(as_values(scorer(batch), len(batch)), {})
    except Exception as error:  # noqa: BLE001  a scorer is user code; what it raises is reported by the error policy
        said = f" {error}" if isinstance(error, ScorerError) else f" raised {type(error).__name__}: {error}"
        nothing, all_failed = np.full(len(batch), np.nan), np.ones(len(batch), dtype=np.bool_)
        return Scores(nothing, {}, f"scorer {scorer_name(scorer)!r}{said}", all_failed, error)
    infinite = np.isinf(scores.total)
    return _without_infinities(scorer, batch, scores, infinite) if infinite.any() else scores


def _checked_parts(scores: Any, size: int) -> Scores:
    if not isinstance(scores, Scores):
        raise ScorerError(f"returned {_shown(scores)} from score_components, expected Scores")
    components = {name: as_values(values, size) for name, values in scores.components.items()}
    total = as_values(scores.total, size)
    if scores.failed is not None:
        total[scores.failed] = np.nan
    return Scores(total, components, scores.error, scores.failed, scores.cause)


def _without_infinities(scorer: Scorer, batch: TextBatch, scores: Scores, infinite: npt.NDArray[np.bool_]) -> Scores:
    value = scores.total[infinite.argmax()]
    error = scores.error or f"scorer {scorer_name(scorer)!r} gave {value} for {_at(batch, infinite)}"
    failed = infinite if scores.failed is None else scores.failed | infinite
    return Scores(np.where(failed, np.nan, scores.total), scores.components, error, failed, scores.cause)


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


def scorer_name(scorer: object) -> str:
    """Return the key of a scorer in ``info["scores"]``.

    It is the attribute ``name``, else a function's own name, else the class name in snake case.

    >>> from textgym.scorers import LengthBand
    >>> scorer_name(LengthBand()), scorer_name(len)
    ('length_band', 'len')
    """
    name = getattr(scorer, "name", None)
    if not isinstance(name, str):
        name = getattr(scorer, "__name__", None)
    if isinstance(name, str):
        return "lambda" if name == "<lambda>" else name
    function = getattr(scorer, "func", None)  # functools.partial
    return _snake_case(type(scorer).__name__) if function is None else scorer_name(function)


def part_names(scorer: object) -> tuple[str, ...]:
    """Return the names of the components at the top level: of the parts, or of the scorer where it has none.

    >>> from textgym.scorers import as_scorer
    >>> part_names(as_scorer({"length_band": 1.0, "repetition": -0.5}))
    ('length_band', 'repetition')
    """
    parts = getattr(scorer, "parts", None)
    return tuple(parts) if isinstance(parts, Mapping) else (scorer_name(scorer),)


def set_progress(scorer: object, progress: float) -> None:
    """Tell a scorer which share of training, 0 to 1, is done; one that does not change with it is left alone."""
    method = getattr(scorer, "set_progress", None)
    if callable(method):
        method(progress)


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _replacement(on_error: str | float) -> float:
    if on_error == "invalid":
        return np.nan
    if isinstance(on_error, str):
        raise unknown_name("on_error", on_error, ["invalid", "raise"], also="A finite number is accepted too.")
    if not isinstance(on_error, Real) or isinstance(on_error, bool) or not isfinite(on_error):
        raise ValueError(f"on_error must be 'raise', 'invalid' or a finite number, got {on_error!r}")
    return float(on_error)


def _no_score(scorer: Scorer, batch: TextBatch, missing: npt.NDArray[np.bool_]) -> str:
    sample = batch.samples[int(missing.argmax())]
    columns = ", ".join(map(repr, sample.metadata)) or "none"
    return (
        f"scorer {scorer_name(scorer)!r} gave no score (None or NaN) for {_at(batch, missing)}. If it needs references "
        f"or columns of the prompts: this sample has {len(sample.references)} references (column 'references'), and "
        f"the further columns are: {columns}"
    )


def _at(batch: TextBatch, wrong: npt.NDArray[np.bool_]) -> str:
    index = int(wrong.argmax())
    return f"episode {index} of the {len(batch)} scored, whose completion is {_shown(batch.completions[index])}"


def _shown(value: object) -> str:
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
