"""A scorer that is called only on texts that it has not scored yet."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.prompts.base import Sample
from textgym.scorers.base import Scorer, Scores, observes
from textgym.scorers.combine.arguments import as_count
from textgym.scorers.combine.composite import Wrapper
from textgym.scorers.evaluation import score_part

__all__ = ["Cached"]

Entry = tuple[float, Mapping[str, float]]
"""The total and the components of one text."""


class Cached(Wrapper):
    """A scorer that remembers its scores, for one that costs much more than a look-up, such as a judge.

    A text is known by its prompt, completion, references and metadata. Texts that are not known are handed to the
    scorer in one batch, each once. What failed is not remembered. Of the ``max_size`` texts that are, the one that was
    not asked about for longest is forgotten first. A look-up costs a few microseconds, so caching a cheap scorer is a
    loss.

    Only for a scorer that always gives the same text the same score, and depends on nothing else: not on token ids, as
    a length in tokens does, nor on ``batch.done``. One that learns in ``observe``, such as
    :class:`textgym.scorers.RunningNormalization`, is refused: it belongs around a cache and not inside. :meth:`clear`
    forgets all, and so does ``set_progress`` where it changes a score. A text with metadata that cannot be compared,
    such as an object without a hash, is always scored anew.

    Formula, range, an empty completion: as the scorer. Not incremental. A pickled copy begins empty, so that sending
    one to a worker is cheap.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        max_size: The most texts that are remembered.

    Raises:
        ValueError: If ``max_size`` is not a positive whole number, or the class of the scorer, or of one inside it,
            overrides ``observe``.

    >>> scorer = Cached("sentiment")
    >>> scorer(TextBatch.from_texts(["a nice dog", "a nice dog", "a dog"]))
    array([0.4215, 0.4215, 0.    ])
    >>> scorer.hits, scorer.misses
    (1, 2)
    """

    def __init__(self, scorer: Any, max_size: int = 10_000) -> None:
        super().__init__(scorer)
        learning = _learning(self.scorer)
        if learning is not None:
            name = type(learning).__name__
            instead = f"put Cached inside it: {name}(Cached(...))" if learning.scorers else "leave it out of Cached"
            raise ValueError(f"{name} changes with the texts that it observes, which a cache would hide; {instead}")
        self.max_size = as_count(max_size, "max_size")
        self.clear()

    def clear(self) -> None:
        """Forget all texts, and count from 0 again."""
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.hits = 0
        """Texts whose score was known, or asked for in the same batch."""
        self.misses = 0
        """Texts that the scorer was asked about."""

    @property
    def hit_rate(self) -> float:
        """Hits among all texts, 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked > 0 else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_entries": OrderedDict(), "hits": 0, "misses": 0}

    def set_progress(self, progress: float) -> None:
        """Pass the share of training done on, and forget all texts where a scorer inside changes with it."""
        super().set_progress(progress)
        if _changes_with_progress(self):
            self._entries.clear()

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components, of known texts as they were."""
        keys = [_key(sample, text) for sample, text in zip(batch.samples, batch.completions, strict=True)]
        known = {key: self._entries[key] for key in keys if key in self._entries}
        for key in known:
            self._entries.move_to_end(key)
        missing: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            if key not in known:
                missing.setdefault(key, row)
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        if not missing:
            return self._assembled([known[key] for key in keys])
        rows = np.array(list(missing.values()), dtype=np.int64)
        part = score_part(self.scorer, batch if len(rows) == len(batch) else batch.select(rows))
        known |= zip(missing, self._new_entries(part), strict=True)
        scores = self._assembled([known[key] for key in keys])
        errors = {key: part.errors[i] for i, key in enumerate(missing) if i in part.errors}
        self._remember({key: known[key] for key in missing if key not in errors})
        by_row = {row: errors[key] for row, key in enumerate(keys) if key in errors}
        return Scores(scores.total, scores.components, by_row, part.cause)

    def _new_entries(self, part: Scores) -> list[Entry]:
        components = part.components or {self.name: part.total}
        rows = zip(*(values.tolist() for values in components.values()), strict=True)
        columns = [dict(zip(components, row, strict=True)) for row in rows]
        return list(zip(part.total.tolist(), columns, strict=True))

    def _assembled(self, entries: list[Entry]) -> Scores:
        total = np.array([score for score, _ in entries], dtype=np.float64)
        names = dict.fromkeys(name for _, components in entries for name in components)
        components = {
            name: np.array([values.get(name, np.nan) for _, values in entries], dtype=np.float64)
            for name in names or self.components
        }
        return Scores(total, components)

    def _remember(self, entries: Mapping[Hashable, Entry]) -> None:
        self._entries |= {key: entry for key, entry in entries.items() if not isinstance(key, _Incomparable)}
        while len(self._entries) > self.max_size:
            self._entries.popitem(last=False)


class _Incomparable:
    """The key of a text whose metadata cannot be compared: equal to nothing else."""


def _key(sample: Sample, completion: str) -> Hashable:
    try:
        key = (sample.prompt, completion, tuple(sample.references), _hashable(sample.metadata))
        hash(key)
    except TypeError:
        return _Incomparable()
    return key


def _hashable(value: Any) -> Hashable:
    """Return what equals another such key only where value and types are the same: 1, 1.0 and True are three."""
    if isinstance(value, Mapping):
        return type(value), tuple((_hashable(key), _hashable(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_hashable, value))
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, _hashable(value.tolist())
    return type(value), value


def _learning(scorer: Scorer) -> Scorer | None:
    """Return a scorer that learns in ``observe``, an inner one before its outer ones; None if none does."""
    if not observes(scorer):
        return None
    return next((_learning(inner) for inner in scorer.scorers if observes(inner)), scorer)


def _changes_with_progress(scorer: Scorer) -> bool:
    """Return whether anything in a scorer does more with progress than to pass it on."""
    if type(scorer).set_progress not in (Scorer.set_progress, Cached.set_progress):
        return True
    return any(map(_changes_with_progress, scorer.scorers))
