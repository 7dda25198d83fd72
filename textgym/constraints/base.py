"""The contract of constraints: which tokens are legal now."""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch

__all__ = ["Constraint", "checked_mask"]


@runtime_checkable
class Constraint(Protocol):
    """Says for B unfinished episodes which tokens may come next.

    Constraints are small picklable objects. They keep nothing about an episode: the batch holds all its tokens.
    """

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, True where the token is legal; V is ``batch.tokenizer.vocab_size``.

        The result may be a read-only view of fewer bytes; copy it before writing to it.
        """
        ...


def checked_mask(constraint: Constraint, batch: TextBatch) -> npt.NDArray[np.bool_]:
    """Return ``constraint.mask(batch)``.

    Raises:
        ValueError: If it is not (B, V) or not bool.
    """
    mask = constraint.mask(batch)
    shape = (len(batch), batch.tokenizer.vocab_size)
    found = (getattr(mask, "shape", None), getattr(mask, "dtype", type(mask)))
    if found != (shape, np.bool_):
        name = type(constraint).__name__
        raise ValueError(f"the mask of {name} must have shape {shape} and dtype bool, got {found[0]} and {found[1]}")
    return mask
