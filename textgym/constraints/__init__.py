"""Which tokens are legal now: masks and their combinations."""

from textgym.constraints.base import Constraint, checked_mask
from textgym.constraints.combine import AllOf
from textgym.constraints.length import MinNewTokens
from textgym.constraints.lists import AllowTokens, BanTokens
from textgym.constraints.repetition import NoRepeatNGram
from textgym.constraints.resolve import CONSTRAINTS, as_constraint

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
