"""Interface of the KV-cache backends."""

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
    """Token sequences of the n active slots, and the part of each that is cached."""

    ids: Integers
    """(n, L) token ids; arbitrary past the end of a sequence, and possibly invalid there."""
    lengths: Integers
    """(n,) tokens, at least 1."""
    start: Integers
    """(n,) first column to feed, at most `lengths - 1`: the newest token is always fed, since its logits are needed."""
    slots: Integers
    """(n,) distinct slots, ascending."""

    def halves(self) -> Iterator[Step]:
        """Yield the first half of the slots and the second."""
        middle = len(self.slots) // 2
        for part in (slice(0, middle), slice(middle, None)):
            yield Step(self.ids[part], self.lengths[part], self.start[part], self.slots[part])


class KVCacheBackend(Protocol):
    """Incremental forward of one model that stores keys and values per slot."""

    name: str

    def __call__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed a step; return logits (n, V) and hidden states (n, H) of each sequence's newest token."""
        ...

    def clear(self) -> None:
        """Reset the cache: later results do not depend on earlier steps."""
        ...
