"""The contract of prompt sources, and the samples that they draw."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["IndexedPrompts", "PromptSource", "Sample", "as_sample"]


@dataclass(frozen=True)
class Sample:
    """A prompt with its references and metadata."""

    prompt: str
    """The text to be continued."""
    references: tuple[str, ...] = ()
    """Reference texts for scorers: translations, answers, summaries."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Further columns by name. Scorers with TRL's signature receive them as keywords."""


class PromptSource(ABC):
    """Draws the sample of each new episode. ``draw`` is the one method to fill in."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the sample of a new episode, with ``rng`` as the only source of randomness."""

    def observe(self, samples: Sequence[Sample], scores: npt.NDArray[np.float64]) -> None:  # noqa: B027 (a default)
        """Learn from K ended episodes; by default nothing.

        Args:
            samples: K samples of this source, or from ``reset(options=...)``.
            scores: (K,) final scores, NaN where the scorer failed.
        """

    def get_state(self) -> dict[str, Any] | None:
        """Return the learned state, JSON-serialisable; by default None, for sources that do not learn.

        The state is part of snapshots and checkpoints. A source that returns a state once must always do so.
        """
        return None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state from ``get_state``; only called if that does not return None.

        A clone of an environment sets it on a shallow copy of the source: replace attributes instead of changing their
        values in place.
        """
        raise NotImplementedError(f"{type(self).__name__} returns a state and has no set_state")


class IndexedPrompts(PromptSource):
    """A source of numbered samples, for ``reset(options={"index": i})``; an index always gives the same object."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def probabilities(self) -> npt.NDArray[np.float64] | None:
        """Return the (N,) probability of each sample; None, the default, where all are equally likely."""
        return None

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a sample, drawn by ``probabilities``."""
        probabilities = self.probabilities()
        if probabilities is None:
            return self[int(rng.integers(len(self)))]
        cumulative = probabilities.cumsum()
        return self[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


def as_sample(spec: Any, prompt_column: str = "prompt", references_column: str | None = None) -> Sample:
    """Return ``spec`` as a sample.

    Args:
        spec: A prompt, a ``Sample``, or a mapping of columns; columns other than the prompt and the references become
            metadata.
        prompt_column: Key of the prompt in a mapping.
        references_column: Key of the references, which are one text, several or None; by default ``"references"``, if
            there is such a key.

    >>> as_sample({"prompt": "2 + 3 =", "references": "5", "level": 1})
    Sample(prompt='2 + 3 =', references=('5',), metadata={'level': 1})
    """
    if isinstance(spec, Sample):
        return spec
    if isinstance(spec, str):
        return Sample(spec)
    if not isinstance(spec, Mapping):
        raise TypeError(f"expected a prompt as str, Sample or mapping of columns, got {type(spec).__name__}")
    for column in (prompt_column, references_column):
        if column is not None and column not in spec:
            raise ValueError(f"no column {column!r}; there are: {', '.join(map(str, spec)) or 'none'}")
    prompt = spec[prompt_column]
    if not isinstance(prompt, str):
        raise TypeError(
            f"the prompt in column {prompt_column!r} must be str, got {type(prompt).__name__}: {prompt!r:.60}"
        )
    references_column = "references" if references_column is None else references_column
    references = spec.get(references_column)
    if references is None:
        references = ()
    several = isinstance(references, Iterable) and not isinstance(references, str)
    references = tuple(references) if several else (references,)
    if not all(isinstance(text, str) for text in references):
        raise TypeError(f"the references in column {references_column!r} must be str, got {references!r:.60}")
    metadata = {name: value for name, value in spec.items() if name not in (prompt_column, references_column)}
    return Sample(prompt, references, metadata)
