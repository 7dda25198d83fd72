"""Changes to how a scorer is called: cached, with a time limit, on the agent's turns only."""

import contextvars
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.prompts.base import Sample
from textgym.scorers.arguments import as_count, as_finite
from textgym.scorers.base import Scorer, Scores
from textgym.scorers.combine.base import Wrapper
from textgym.scorers.evaluation import observes, score_batch, unscored

__all__ = ["AgentTurns", "Cached", "TimeLimit"]

Entry = tuple[float, Mapping[str, float]]
"""Total and components of one text."""


class Cached(Wrapper):
    """A cache of scores, for scorers that cost much more than a look-up, such as a judge.

    The key is prompt, completion, references and metadata; a text whose metadata have no hash is never cached. Uncached
    texts are passed to the scorer in one batch, each once. Failures are not cached. The least recently used text is
    dropped first. A look-up takes a few microseconds. Not incremental. Pickled copies start empty.

    Only for scorers whose score depends on the key alone: not on token ids, as a length in tokens does, nor on
    ``batch.done``. A scorer that learns in ``observe``, such as ``textgym.scorers.RunningNormalization``, is
    rejected: wrap it around the cache instead. ``set_progress`` empties the cache if it changes a score.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        max_size: Number of texts that are kept.

    Raises:
        ValueError: If ``max_size`` is not a positive integer, or the class of the scorer, or of one inside it,
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
            advice = f"put Cached inside it: {name}(Cached(...))" if learning.scorers else "do not cache it"
            raise ValueError(f"{name} changes with the texts that it observes, which a cache would hide; {advice}")
        self.max_size = as_count(max_size, "max_size")
        self.clear()

    def clear(self) -> None:
        """Empty the cache and reset the counts."""
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.hits = 0
        """Texts found in the cache, or repeated within a batch."""
        self.misses = 0
        """Texts passed to the scorer."""

    @property
    def hit_rate(self) -> float:
        """Hits as a fraction of all texts, 0 before the first."""
        total = self.hits + self.misses
        return self.hits / total if total > 0 else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_entries": OrderedDict(), "hits": 0, "misses": 0}

    def set_progress(self, progress: float) -> None:
        """Pass progress on, and empty the cache if a scorer inside depends on it."""
        super().set_progress(progress)
        if _depends_on_progress(self):
            self._entries.clear()

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components, from the cache where possible."""
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
        new = score_batch(self.scorer, batch if len(rows) == len(batch) else batch.select(rows))
        known |= zip(missing, self._new_entries(new), strict=True)
        scores = self._assembled([known[key] for key in keys])
        errors = {key: new.errors[i] for i, key in enumerate(missing) if i in new.errors}
        self._store({key: known[key] for key in missing if key not in errors})
        by_row = {row: errors[key] for row, key in enumerate(keys) if key in errors}
        return Scores(scores.total, scores.components, by_row, new.cause)

    def _new_entries(self, scores: Scores) -> list[Entry]:
        components = scores.components or {self.name: scores.total}
        rows = zip(*(values.tolist() for values in components.values()), strict=True)
        columns = [dict(zip(components, row, strict=True)) for row in rows]
        return list(zip(scores.total.tolist(), columns, strict=True))

    def _assembled(self, entries: list[Entry]) -> Scores:
        total = np.array([score for score, _ in entries], dtype=np.float64)
        names = dict.fromkeys(name for _, components in entries for name in components)
        components = {
            name: np.array([values.get(name, np.nan) for _, values in entries], dtype=np.float64)
            for name in names or self.components
        }
        return Scores(total, components)

    def _store(self, entries: Mapping[Hashable, Entry]) -> None:
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
    """Return a key that is equal only for equal values of equal types: 1, 1.0 and True differ."""
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


def _depends_on_progress(scorer: Scorer) -> bool:
    """Return whether a scorer, or one inside it, does more with progress than to pass it on."""
    if type(scorer).set_progress not in (Scorer.set_progress, Cached.set_progress):
        return True
    return any(map(_depends_on_progress, scorer.scorers))


class TimeLimit(Wrapper):
    """A time limit for each call of a scorer; a call that exceeds it fails for all its texts.

    The failure is a ``TimeoutError`` in ``textgym.scorers.Scores.cause``, and is subject to the environment's
    ``on_scorer_error``. Deterministic except for calls near the limit. Not incremental.

    Each call runs in a new daemon thread. **A thread cannot be killed**: after the limit it continues until the scorer
    returns or the process exits, so a scorer that hangs may run several times at once. Code that never releases the
    interpreter lock, such as a backtracking regular expression, blocks the process beyond any limit. Scorers that only
    work in the main thread, such as those that set an alarm signal, fail.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        seconds: Limit for one call, whatever the size of its batch.

    Raises:
        ValueError: If ``seconds`` is not positive and finite.
        TypeError: If it is not a number.

    >>> TimeLimit("sentiment", seconds=60)(TextBatch.from_texts(["a nice dog"]))
    array([0.4215])
    """

    def __init__(self, scorer: Any, seconds: float) -> None:
        super().__init__(scorer)
        self.seconds = as_finite(seconds, "seconds")
        if self.seconds <= 0:
            raise ValueError(f"seconds is {seconds!r}, expected a positive number")

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components, or the failure of all episodes."""
        results: list[Scores] = []
        escaped: list[BaseException] = []

        def call() -> None:
            try:
                results.append(Wrapper.score_components(self, batch))
            except BaseException as error:  # noqa: BLE001  such as SystemExit, raised again in the caller's thread
                escaped.append(error)

        context = contextvars.copy_context()  # NumPy's error state, for one
        thread = Thread(target=context.run, args=(call,), name=f"scorer {self.name}", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if escaped:
            raise escaped[0]
        return results[0] if results else self._timed_out(batch)

    def _timed_out(self, batch: TextBatch) -> Scores:
        size = len(batch)
        cause = TimeoutError(f"no scores for {size} texts within {self.seconds:g} seconds")
        error = f"scorer {self.name!r} raised TimeoutError: {cause}"
        return replace(unscored(self, size), errors=dict.fromkeys(range(size), error), cause=cause)


class AgentTurns(Wrapper):
    r"""Scores only the agent's turns of a dialogue.

    The text is that of the agent's turns with ``join`` between them. The token ids are those that the agent chose,
    including the EOS that ended each turn, without any for ``join``. Without a user, the score is the scorer's own. Not
    incremental. Wrap a whole composite once rather than its inner scorers one by one.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        join: Separator between two turns.

    Raises:
        TypeError: If ``join`` is not a string.

    >>> import numpy as np
    >>> from textgym.prompts import Sample
    >>> from textgym.tokenizers import ByteTokenizer
    >>> batch = TextBatch.from_ids(ByteTokenizer(), [[]], [[72, 105, 256, 45, 66, 121, 101]], [Sample("")])
    >>> batch.is_action, batch.replies = np.array([[True] * 3 + [False] + [True] * 3]), [["-"]]
    >>> batch.completions, AgentTurns(len)(batch)
    (['Hi-Bye'], array([6.]))
    """

    def __init__(self, scorer: Any, join: str = "\n") -> None:
        super().__init__(scorer)
        if not isinstance(join, str):
            raise TypeError(f"join is {join!r}, expected a string")
        self.join = join

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components of the agent's turns."""
        return super().score_components(self.inner_batch(batch))

    def inner_batch(self, batch: TextBatch) -> TextBatch:
        """Return the episodes without the user's turns."""
        if batch.is_action is None:
            return batch
        starts = batch.prompt_lengths.tolist()
        prompts = [row[:end].tolist() for row, end in zip(batch.ids, starts, strict=True)]
        chosen = [row[mask].tolist() for row, mask in zip(batch.ids, batch.is_action, strict=True)]
        turns = TextBatch.from_ids(batch.tokenizer, prompts, chosen, batch.samples)
        turns.done = batch.done
        turns.slots = batch.slots
        turns.completions = [self.join.join(texts) for texts in batch.agent_turns]
        return turns
