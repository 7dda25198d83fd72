"""Constraints: masks of the valid tokens, and their conjunction."""

from textgym.constraints.base import AllOf, Constraint, checked_mask
from textgym.constraints.builtin import (
    CONSTRAINTS,
    AllowTokens,
    BanTokens,
    MinNewTokens,
    NoRepeatNGram,
    as_constraint,
)

__all__ = [
    "CONSTRAINTS",
    "AllOf",
    "AllowTokens",
    "BanTokens",
    "Constraint",
    "MinNewTokens",
    "NoRepeatNGram",
    "as_constraint",
    "checked_mask",
]
