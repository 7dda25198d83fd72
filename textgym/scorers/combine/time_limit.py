"""A wrapper that fails the calls of a scorer that take too long."""

import contextvars
from dataclasses import replace
from threading import Thread
from typing import Any

from textgym.batch import TextBatch
from textgym.scorers.base import Scores
from textgym.scorers.combine.arguments import as_finite
from textgym.scorers.combine.composite import Wrapper
from textgym.scorers.evaluation import unscored

__all__ = ["TimeLimit"]


class TimeLimit(Wrapper):
    """A scorer whose call fails for all its texts if it takes too long.

    The failure is a ``TimeoutError`` in :attr:`textgym.scorers.Scores.cause`, and falls under the environment's policy
    as any other does. Formula, range, an empty completion: as the scorer. Deterministic if the scorer is, except
    for calls near the limit. Not incremental.

    The scorer runs in a thread of its own, one for each call. **A thread cannot be killed**:
    after the limit it goes on, until the scorer returns or the process ends, which it does not hold up. What it returns
    then is dropped. The next call starts a new thread, so that a scorer which hangs may be running several times at
    once: it should bear that, and one that hangs for ever costs a thread at each call. Code that never releases the
    interpreter's lock, such as a regular expression that backtracks, holds up the process beyond any limit. A scorer
    that works in the main thread only, such as one that sets an alarm signal, fails here.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        seconds: The most that one call may take, whatever the size of its batch.

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
            except BaseException as error:  # noqa: BLE001  such as SystemExit, which goes on in the caller's thread
                escaped.append(error)

        context = contextvars.copy_context()  # NumPy's error state, for one
        thread = Thread(target=context.run, args=(call,), name=f"scorer {self.name}", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if escaped:
            raise escaped[0]
        return results[0] if results else self._too_late(batch)

    def _too_late(self, batch: TextBatch) -> Scores:
        size = len(batch)
        cause = TimeoutError(f"no scores for {size} texts within {self.seconds:g} seconds")
        error = f"scorer {self.name!r} raised TimeoutError: {cause}"
        return replace(unscored(self, size), errors=dict.fromkeys(range(size), error), cause=cause)
