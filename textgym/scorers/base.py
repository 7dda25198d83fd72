"""The contract of scorers: the base class :class:`Scorer` and the :class:`Scores` that one call gives."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError

__all__ = [
    "EpisodewiseScorer",
    "FloatArray",
    "Range",
    "Scorer",
    "Scores",
    "component_names",
    "get_states",
    "observes",
    "scorer_name",
    "set_states",
]

FloatArray = npt.NDArray[np.float64]
Range = tuple[float, float]
"""The least and the greatest score."""


@dataclass(frozen=True)
class Scores:
    """The scores of B episodes by one scorer."""

    total: FloatArray
    """(B,) float64; NaN where the scorer failed, was not called or does not apply."""
    components: Mapping[str, FloatArray]
    """(B,) float64 by name, before weights; a nested component is ``"outer/inner"``. Of a scorer without components,
    :func:`textgym.scorers.evaluate` gives one, the scorer itself, and :func:`textgym.scorers.score_part` none."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Index of each episode that failed -> its error message. The total of a failed episode is NaN."""
    cause: BaseException | None = field(default=None, repr=False, compare=False)
    """The exception behind the first error, where there was one."""
    inner: tuple["Scores", ...] = field(default=(), repr=False, compare=False)
    """The scores of the inner scorers (:attr:`Scorer.scorers`), in order, for :meth:`Scorer.observe`."""

    def without_replacements(self) -> "Scores":
        """Return these scores with NaN as the total of each episode that failed, whatever number the policy gave it."""
        return replace(self, total=np.where(self.failed, np.nan, self.total)) if self.errors else self

    @property
    def error(self) -> str | None:
        """The first error message, None if no episode failed."""
        return next(iter(self.errors.values()), None)

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """(B,) bool, the episodes that failed."""
        failed = np.zeros(len(self.total), dtype=np.bool_)
        failed[list(self.errors)] = True
        return failed

    def checked_total(self) -> FloatArray:
        """Return (B,) totals.

        Raises:
            ScorerError: If an episode failed.
        """
        if self.error is not None:
            raise ScorerError(self.error) from self.cause
        return self.total


class _DefaultName:
    """The class name in snake case, of objects only: a dataclass takes a class attribute for the default of a field."""

    def __get__(self, scorer: object, kind: type) -> str:
        if scorer is None:
            raise AttributeError("a scorer has its default name as an object, not as a class")
        return _snake_case(kind.__name__)


class Scorer(ABC):
    """Scores texts, higher is better. ``__call__`` is the one method to fill in; every other hook has a default.

    A scorer should be picklable, and the score of an episode should not depend on the others of its batch.
    :func:`textgym.testing.check_scorer` verifies what a class declares.

    >>> class Vowels(Scorer):
    ...     score_range = (0.0, 1.0)
    ...     def __call__(self, batch):
    ...         return [sum(map(text.count, "aeiou")) / max(len(text), 1) for text in batch.completions]
    >>> Vowels().name, Vowels()(TextBatch.from_texts(["idea", "cat!"]))
    ('vowels', [0.75, 0.25])
    """

    score_range: Range | None = None
    """The least and the greatest score; None where it is not known."""
    deterministic: bool = True
    """Whether the same episode always has the same score."""
    incremental: bool = False
    """Whether :meth:`begin`, :meth:`advance` and :meth:`value` follow a text token by token."""
    scorers: "tuple[Scorer, ...]" = ()
    """The inner scorers. Progress, observation and saved states reach them through it."""
    components: tuple[str, ...] = ()
    """Names of the components of :meth:`score_components`, a nested one as ``"outer/inner"``; none by default."""

    name: str = _DefaultName()  # type: ignore[assignment]
    """The key in ``info["scores"]``; by default the class name in snake case."""

    @abstractmethod
    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, NaN where the scorer does not apply to an episode.

        A list, integers and ``None`` for NaN are accepted too. Scoring must not change later scores: shaping, search
        and a step that is repeated after an exception ask as well. What is learned is learned in :meth:`observe`.
        """

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total, components and errors by episode; by default the result of ``__call__`` alone.

        Override it to report :attr:`components`, or the failure of some episodes. It must not raise for those: inner
        scorers are called through :func:`textgym.scorers.score_part`, which reports errors.
        """
        return Scores(self(batch), {})

    def observe(self, batch: TextBatch, scores: Scores) -> None:  # noqa: B027 (a default)
        """Learn from episodes that ended in the environment being trained.

        Called once for each, after their last step has succeeded; clones of an environment, and search in them, share
        the scorer and do not call it. By default nothing is learned. :func:`textgym.scorers.observe_episodes` calls it,
        for inner scorers first.

        Args:
            batch: B finished episodes.
            scores: What :meth:`score_components` returned for them. NaN in its total where this scorer failed, was not
                called or does not apply.
        """

    def inner_batch(self, batch: TextBatch) -> TextBatch:
        """Return the episodes as inner scorers observe them; by default as they are."""
        return batch

    def get_state(self) -> dict[str, Any] | None:
        """Return what was learned, as JSON can hold it, without that of inner scorers; None, the default, for nothing.

        A scorer that returns a state once always does.
        """
        return None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state of :meth:`get_state`; only called where that returns one."""
        raise NotImplementedError(f"{type(self).__name__} returns a state and has no set_state")

    def set_progress(self, progress: float) -> None:
        """Take note of the share of training that is done, 0 to 1; by default it is passed on to inner scorers."""
        for scorer in self.scorers:
            scorer.set_progress(progress)

    # Incremental scorers: the cost per token does not depend on the length of the text. A state is any picklable value
    # that is never changed in place, because snapshots of an environment share it. For whatever tokens a text is made
    # of, `value` of the states equals the score of the whole text, within rounding.

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B states, one for each text as it is now, of whatever length; only where :attr:`incremental`."""
        raise NotImplementedError(f"{type(self).__name__} is not incremental")

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B states of texts that have grown by one token since ``states``; only where :attr:`incremental`.

        ``batch.last_pieces`` is what that token added to each text, ``batch.last_ids`` its id.
        """
        raise NotImplementedError(f"{type(self).__name__} is not incremental")

    def value(self, states: Sequence[Any], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts at ``states``; only where :attr:`incremental`."""
        raise NotImplementedError(f"{type(self).__name__} is not incremental")


class EpisodewiseScorer(Scorer):
    """A scorer that reports components, or errors by episode: :meth:`score_components` is the method to fill in."""

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64.

        Raises:
            ScorerError: If an episode failed.
        """
        return self.score_components(batch).checked_total()

    @abstractmethod
    def score_components(self, batch: TextBatch) -> Scores:
        """Return total, components and errors by episode."""


def scorer_name(scorer: object) -> str:
    """Return the key of a scorer, or of a function, in ``info["scores"]``.

    It is the attribute ``name``, else a function's own name, else the class name in snake case.

    >>> from textgym.scorers.lexical.format import LengthBand
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


def component_names(scorer: Scorer) -> tuple[str, ...]:
    """Return the names of the components at the top level: the scorer's own name where it has none.

    >>> from textgym.scorers import as_scorer
    >>> component_names(as_scorer({"length_band": 1.0, "repetition": -0.5}))
    ('length_band', 'repetition')
    """
    return tuple(name for name in scorer.components if "/" not in name) or (scorer.name,)


def observes(scorer: Scorer) -> bool:
    """Return whether a scorer, or one inside it, learns from the episodes that it observes."""
    return type(scorer).observe is not Scorer.observe or any(map(observes, scorer.scorers))


def get_states(scorer: Scorer) -> list[dict[str, Any] | None]:
    """Return the state of a scorer and of all inside it, outermost first, as JSON can hold it.

    >>> from textgym.scorers import RunningNormalization
    >>> get_states(RunningNormalization("length_band"))
    [{'count': 0, 'mean': 0.0, 'sum_of_squares': 0.0}, None]
    """
    return [one.get_state() for one in _with_inner(scorer)]


def set_states(scorer: Scorer, states: Sequence[Mapping[str, Any] | None]) -> None:
    """Take over what :func:`get_states` returned for an equally built scorer; after an exception nothing has changed.

    Raises:
        ValueError: If the states are those of a differently built one.
    """
    every, before = list(_with_inner(scorer)), get_states(scorer)
    if len(every) != len(states):
        raise ValueError(
            f"the saved states are of another scorer: of {len(states)} scorers, while {scorer.name!r} is made of "
            f"{len(every)}"
        )
    for one, own, state in zip(every, before, states, strict=True):
        if (own is None) != (state is None):
            held, has = ("a state", "none") if own is None else ("no state", "one")
            raise ValueError(
                f"the saved states are of another scorer: they hold {held} for {one.name!r}, which has {has}"
            )
    try:
        _set_each(every, states)
    except BaseException:
        _set_each(every, before)
        raise


def _set_each(scorers: Sequence[Scorer], states: Sequence[Mapping[str, Any] | None]) -> None:
    for scorer, state in zip(scorers, states, strict=True):
        if state is not None:
            scorer.set_state(state)


def _with_inner(scorer: Scorer) -> Iterator[Scorer]:
    yield scorer
    for inner in scorer.scorers:
        yield from _with_inner(inner)


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
