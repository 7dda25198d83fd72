"""The contract of scorers: the base class ``Scorer`` and its result ``Scores``."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import ScorerError

__all__ = ["EpisodewiseScorer", "FloatArray", "Range", "Scorer", "Scores", "component_names", "scorer_name"]

FloatArray = npt.NDArray[np.float64]
Range = tuple[float, float]
"""Lowest and highest score."""


@dataclass(frozen=True)
class Scores:
    """The scores that one scorer gives to B episodes."""

    total: FloatArray
    """(B,) float64; NaN where the scorer failed (unless ``on_scorer_error`` replaces it), was not called or does not
    apply."""
    components: Mapping[str, FloatArray]
    """(B,) float64 by name, unweighted; nested names are ``"outer/inner"``. Empty for a scorer without components, for
    which ``textgym.scorers.evaluate`` adds one, the scorer itself."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Index of each failed episode -> its error message."""
    cause: BaseException | None = field(default=None, repr=False, compare=False)
    """The exception behind the first error, if there was one."""
    inner: tuple["Scores", ...] = field(default=(), repr=False, compare=False)
    """The scores of the inner scorers (``Scorer.scorers``), in order, for ``Scorer.observe``."""

    @property
    def error(self) -> str | None:
        """The first error message, None if no episode failed."""
        return next(iter(self.errors.values()), None)

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """(B,) bool, True for failed episodes."""
        failed = np.zeros(len(self.total), dtype=np.bool_)
        failed[list(self.errors)] = True
        return failed

    def without_replacements(self) -> "Scores":
        """Return a copy in which the total of each failed episode is NaN, undoing ``on_scorer_error=<number>``."""
        return replace(self, total=np.where(self.failed, np.nan, self.total)) if self.errors else self

    def checked_total(self) -> FloatArray:
        """Return ``total``.

        Raises:
            ScorerError: If an episode failed.
        """
        if self.error is not None:
            raise ScorerError(self.error) from self.cause
        return self.total


class _DefaultName:
    """The class name in snake case; instances only, because a dataclass takes a class attribute as a field default."""

    def __get__(self, scorer: object, kind: type) -> str:
        if scorer is None:
            raise AttributeError("the default name exists on instances only")
        return _snake_case(kind.__name__)


class Scorer(ABC):
    """Base class of scorers; higher scores are better. ``__call__`` is the only method that must be implemented.

    A scorer should be picklable, and the score of an episode should not depend on the rest of its batch.
    ``textgym.testing.check_scorer`` verifies the contract and the declared attributes.

    An incremental scorer also scores a text token by token: ``begin`` returns a state for each text, ``advance`` the
    states after one more token, ``value`` the scores at the states. It sets ``incremental = True`` and guarantees:

    * ``value`` equals the score of the whole text within rounding, whatever the tokens are.
    * The cost of ``advance`` and ``value`` does not depend on the length of the text.
    * A state is a picklable value that is never modified in place, because snapshots of an environment share it.

    >>> class Vowels(Scorer):
    ...     score_range = (0.0, 1.0)
    ...     def __call__(self, batch):
    ...         return [sum(map(text.count, "aeiou")) / max(len(text), 1) for text in batch.completions]
    >>> Vowels().name, Vowels()(TextBatch.from_texts(["idea", "cat!"]))
    ('vowels', [0.75, 0.25])
    """

    score_range: Range | None = None
    """Lowest and highest score; None if unknown."""
    deterministic: bool = True
    """Whether equal episodes always get equal scores."""
    incremental: bool = False
    """Whether ``begin``, ``advance`` and ``value`` are implemented, which score a text token by token."""
    scorers: "tuple[Scorer, ...]" = ()
    """Inner scorers. Training progress, observed episodes and saved states reach them through this attribute."""
    components: tuple[str, ...] = ()
    """Names of the components that ``score_components`` reports; nested names are ``"outer/inner"``."""

    name: str = _DefaultName()  # type: ignore[assignment]
    """Key in ``info["scores"]``; by default the class name in snake case."""

    @abstractmethod
    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64, NaN where the scorer does not apply to an episode.

        Lists, integers and ``None`` instead of NaN are accepted too. Scoring must not change later scores, because
        reward shaping, search and repeated steps score as well; learning belongs in ``observe``.
        """

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total, components and errors by episode; by default only the result of ``__call__``.

        Override it to report ``components`` or errors of single episodes. Those must be returned, not raised: call
        inner scorers with ``textgym.scorers.score_batch``, which does so.
        """
        return Scores(self(batch), {})

    def observe(self, batch: TextBatch, scores: Scores) -> None:  # noqa: B027 (a default)
        """Learn from episodes that ended in the training environment; by default do nothing.

        Called once per episode, after its last step has succeeded; clones of an environment, and search in them, share
        the scorer but do not call it. ``textgym.scorers.observe_episodes`` calls it, for inner scorers first.

        Args:
            batch: B finished episodes.
            scores: Their result of ``score_components``. The total is NaN where this scorer failed, was not called
                or does not apply.
        """

    def inner_batch(self, batch: TextBatch) -> TextBatch:
        """Return the batch that inner scorers observe; by default ``batch`` itself."""
        return batch

    def get_state(self) -> dict[str, Any] | None:
        """Return the learned state as JSON values, without that of inner scorers; None, the default, if stateless.

        A scorer returns a state either always or never.
        """
        return None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by ``get_state``; required if that returns one."""
        raise NotImplementedError(f"{type(self).__name__} returns a state but does not implement set_state")

    def set_progress(self, progress: float) -> None:
        """Receive the fraction of training done, 0 to 1; by default it is passed on to inner scorers."""
        for scorer in self.scorers:
            scorer.set_progress(progress)

    # Incremental scoring ------------------------------------------------------------------------------------------

    def begin(self, batch: TextBatch) -> list[Any]:
        """Return B states for texts of any length; only called if ``incremental``."""
        raise NotImplementedError(f"{type(self).__name__} is not incremental")

    def advance(self, states: Sequence[Any], batch: TextBatch) -> list[Any]:
        """Return B states for texts that are one token longer than at ``states``; only called if ``incremental``.

        ``batch.last_pieces`` holds the text that the token added, ``batch.last_ids`` its id.
        """
        raise NotImplementedError(f"{type(self).__name__} is not incremental")

    def value(self, states: Sequence[Any], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores of the texts at ``states``; only called if ``incremental``."""
        raise NotImplementedError(f"{type(self).__name__} is not incremental")


class EpisodewiseScorer(Scorer):
    """Base class of scorers with components or per-episode errors: implement ``score_components``, not ``__call__``."""

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
    """Return the key of a scorer or function in ``info["scores"]``.

    This is the attribute ``name``, else a function's own name, else the class name in snake case.

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


def component_names(scorer: Scorer) -> tuple[str, ...]:
    """Return the names of the top-level components, or the scorer's own name if it has none.

    >>> from textgym.scorers import as_scorer
    >>> component_names(as_scorer({"length_band": 1.0, "repetition": -0.5}))
    ('length_band', 'repetition')
    """
    return tuple(name for name in scorer.components if "/" not in name) or (scorer.name,)


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
