"""What a way to keep the cache gets and gives back. `packed`, `batched` and `uncached` hold one each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]


@dataclass(slots=True)
class Step:
    """The texts of n slots, and how much of each is cached."""

    ids: Integers
    """(n, L) token ids; what lies past a text's end means nothing and may be no token."""
    lengths: Integers
    """(n,) tokens, at least 1."""
    start: Integers
    """(n,) first column to feed, at most `lengths - 1`: the newest token is always fed, to have its logits."""
    slots: Integers
    """(n,) different slots, ascending."""

    def halves(self) -> Iterator[Step]:
        """Yield the first half of the slots and the second."""
        middle = len(self.slots) // 2
        for part in (slice(0, middle), slice(middle, None)):
            yield Step(self.ids[part], self.lengths[part], self.start[part], self.slots[part])


class Way(Protocol):
    """One way to keep, or not to keep, what a model computed for the tokens it was fed."""

    caching: str

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, V) and hidden states (n, H) of each text's newest token."""
        ...

    def clear(self) -> None:
        """Forget what depends on the weights."""
        ...
