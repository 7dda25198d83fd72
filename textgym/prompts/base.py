"""The contract of prompt sources: where an episode starts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

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


@runtime_checkable
class PromptSource(Protocol):
    """Deals one sample to each new episode.

    A source that also has ``__len__`` and ``__getitem__`` can be addressed by index, which is what
    ``reset(options={"index": i})`` does.
    """

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the sample of a new episode, using no randomness but ``rng``."""
        ...


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
