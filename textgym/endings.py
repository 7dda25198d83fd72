"""End conditions besides EOS and the token budget: stop strings, ends of sentences, functions."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch

__all__ = ["Ending", "SentenceEnd", "StopStrings", "StopWhen", "as_endings"]


_SENTENCE_END = re.compile(r"[.!?…][\"'»)\]\u201d\u2019]*\s*\Z")
_MOST_TOKENS_AT_AN_END = 8  # the mark, closing quotes and brackets and white space, in bytes if need be


class Ending(Protocol):
    """Terminates texts; called after each token."""

    @property
    def reason(self) -> str:
        """``info["end_reason"]`` of the episodes that it terminates."""
        ...

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B,) bool, True where the text is finished."""
        ...


class StopStrings:
    """Terminates a text once its completion contains one of the strings, which may span several tokens.

    A simulated user's replies are not searched. Only the end of the completion is decoded, so that the cost of a step
    does not depend on the length of the text.

    Args:
        strings: Non-empty strings. They stay part of the completion, as in Hugging Face's ``stop_strings``.

    Raises:
        ValueError: If there is no string, or an empty one.
    """

    reason = "stop_string"

    def __init__(self, *strings: str) -> None:
        if not strings or not all(strings):
            raise ValueError(f"stop strings must be non-empty, got {strings!r}")
        self.strings = strings
        # A token holds at least one byte; the slack covers tokens without text and characters cut in half.
        self.tail = max(len(string.encode("utf-8", "surrogatepass")) for string in strings) + 4

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B,) bool, True where a stop string occurs at the end of the completion."""
        starts = np.maximum(batch.turn_starts, batch.lengths - self.tail)
        tails = (
            batch.tokenizer.decode(row[start:end].tolist())
            for row, start, end in zip(batch.ids, starts.tolist(), batch.lengths.tolist(), strict=True)
        )
        return np.array([any(string in tail for string in self.strings) for tail in tails], dtype=np.bool_)


@dataclass(frozen=True)
class SentenceEnd:
    r"""Terminates a text at the first end of a sentence from its ``min_new_tokens``-th token on.

    A sentence ends with ``.``, ``!``, ``?`` or ``…`` and any closing quotes and brackets, as the last characters of the
    completion. An abbreviation with a full stop counts as an end, too. Closing quotes and white space are part of the
    text where they are part of the token of the mark, as in GPT-2's ``."`` and Llama 3's ``.\n\n``.

    Raises:
        ValueError: If ``min_new_tokens`` is less than 1.

    >>> SentenceEnd(min_new_tokens=2)(TextBatch.from_texts(["No.", "He said", 'He said, "Yes!"']))
    array([ True, False,  True])
    """

    min_new_tokens: int = 1
    """Least number of tokens of the completion or, with a simulated user, of the turn."""

    reason: ClassVar[str] = "sentence_end"

    def __post_init__(self) -> None:
        if self.min_new_tokens < 1:
            raise ValueError(f"min_new_tokens must be at least 1, got {self.min_new_tokens!r}")

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B,) bool, True where the completion is long enough and ends with the end of a sentence."""
        stops = batch.lengths - batch.turn_starts >= self.min_new_tokens
        for row in np.flatnonzero(stops):
            start = max(batch.turn_starts[row], batch.lengths[row] - _MOST_TOKENS_AT_AN_END)
            ids = batch.ids[row, start : batch.lengths[row]].tolist()
            is_end = _SENTENCE_END.search(batch.tokenizer.decode(ids)) is not None
            stops[row] = is_end and not batch.tokenizer.decode(ids[-1:]).isspace()
        return stops


class StopWhen:
    """Terminates a text when a function returns True.

    Args:
        function: ``f(completion: str) -> bool``, or ``f(batch: TextBatch) -> (B,) bool`` if its one required parameter
            is named ``batch``.

    Raises:
        TypeError: If the function does not take exactly one required positional argument.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        parameters = inspect.signature(function).parameters.values()
        required = [
            p.name
            for p in parameters
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if len(required) != 1:
            raise TypeError(
                f"a stop function takes one argument, the completion or the batch; {function!r} takes {required}"
            )
        self.function = function
        self.batched = required[0] == "batch"
        self.reason = str(getattr(function, "reason", getattr(function, "__name__", type(function).__name__)))

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B,) bool, the results of the function."""
        if not self.batched:
            return np.array([bool(self.function(text)) for text in batch.completions], dtype=np.bool_)
        stops = np.asarray(self.function(batch), dtype=np.bool_)
        if stops.shape != (len(batch),):
            raise ValueError(f"stop function {self.reason!r} returned shape {stops.shape} for {len(batch)} episodes")
        return stops


def as_endings(stop: str | Callable[[Any], Any] | Sequence[str | Callable[[Any], Any]]) -> tuple[Ending, ...]:
    """Return the end conditions of the ``stop`` keyword: one for all strings, then one per callable, in order.

    Raises:
        TypeError: If an entry is neither a string nor callable.
    """
    entries = list(stop) if isinstance(stop, Sequence) and not isinstance(stop, str) else [stop]
    for entry in entries:
        if not isinstance(entry, str) and not callable(entry):
            raise TypeError(f"stop takes strings and callables, got {entry!r}")
    strings = [entry for entry in entries if isinstance(entry, str)]
    endings: list[Ending] = [StopStrings(*strings)] if strings else []
    for entry in entries:
        if isinstance(entry, SentenceEnd | StopStrings | StopWhen):
            endings.append(entry)
        elif callable(entry):
            endings.append(StopWhen(entry))
    return tuple(endings)
