"""Several constraints at once."""

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.constraints.base import Constraint, checked_mask

__all__ = ["AllOf"]


class AllOf:
    """A token is legal where every constraint says so; without constraints every token is.

    Args:
        constraints: The constraints.

    Raises:
        TypeError: If one has no ``mask`` method.
        ValueError: From ``mask``, if a constraint's mask is not (B, V) bool.

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
