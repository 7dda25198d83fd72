"""The contract of prompt sources: where an episode starts."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PromptSource", "Sample", "as_sample"]


@dataclass(frozen=True)
class Sample:
    """One starting point: a prompt, and what a scorer may want to know about it."""

    prompt: str
    """The text that the completion continues."""
    references: tuple[str, ...] = ()
    """Texts that a completion may be compared with: translations, answers, summaries."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Further columns by name. TRL-signature scorers receive them as keywords."""


class PromptSource(ABC):
    """Gives each new episode its sample. ``draw`` is the one method to fill in.

    A source that also has ``__len__`` and ``__getitem__`` can be addressed by index, which is what
    ``reset(options={"index": i})`` does; see ``IndexedPrompts``.
    """

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the sample of a new episode, using no randomness but ``rng``."""

    def observe(self, samples: Sequence[Sample], scores: npt.NDArray[np.float64]) -> None:  # noqa: B027 (a default)
        """Take note of how K episodes ended; by default nothing happens.

        Args:
            samples: K samples of this source, or from ``reset(options=...)``.
            scores: (K,) final scores, NaN where the scorer failed.
        """

    def get_state(self) -> dict[str, Any] | None:
        """Return what was learned from episodes, as JSON can hold it; None, the default, for nothing.

        It is part of snapshots and checkpoints. A source that returns a state once always does.
        """
        return None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state of ``get_state``, only called where that returns one.

        A clone of an environment has a shallow copy of the source, which is then given the state: replace attributes,
        do not change their values in place.
        """
        raise NotImplementedError(f"{type(self).__name__} returns a state and has no set_state")


def as_sample(spec: Any, prompt_column: str = "prompt", references_column: str | None = None) -> Sample:
    """Return the sample that a text, a mapping or a sample means.

    Args:
        spec: A prompt, a ``Sample``, or a mapping of columns; those that are neither the prompt nor the references
            become metadata.
        prompt_column: The key of the prompt in a mapping.
        references_column: The key of the references, which are one text, several or None. ``"references"`` by
            default, where there is such a key.

    Raises:
        ValueError: If a mapping lacks one of the two columns.
        TypeError: If something that must be text is not.

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
