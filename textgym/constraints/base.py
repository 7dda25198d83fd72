"""The contract of constraints, which mask invalid tokens, and their conjunction."""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch

__all__ = ["AllOf", "Constraint", "checked_mask"]


@runtime_checkable
class Constraint(Protocol):
    """Masks the next tokens of unfinished episodes.

    Constraints are picklable and keep no state of an episode: the batch holds all its tokens.
    """

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, True where the token is valid, with V = ``batch.tokenizer.vocab_size``.

        The result may be a read-only broadcast view; copy it before writing to it.
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


class AllOf:
    """Conjunction: a token is valid if all constraints allow it. Without constraints, every token is.

    Args:
        constraints: The constraints.

    >>> from textgym.constraints import AllowTokens, MinNewTokens
    >>> AllOf(AllowTokens(["a"]), MinNewTokens(1)).mask(TextBatch.from_texts([""])).nonzero()[1]
    array([97])
    """

    def __init__(self, *constraints: Constraint) -> None:
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise TypeError(f"{type(constraint).__name__} is not a constraint: it has no mask(batch)")
        self.constraints = constraints

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        for constraint in self.constraints:
            mask &= checked_mask(constraint, batch)
        return mask
