"""From what a caller writes as ``constraints=`` to one constraint."""

from collections.abc import Callable, Sequence

from textgym.constraints.base import Constraint
from textgym.constraints.combine import AllOf
from textgym.constraints.repetition import NoRepeatNGram
from textgym.errors import unknown_name

__all__ = ["CONSTRAINTS", "as_constraint"]

CONSTRAINTS: dict[str, Callable[[], Constraint]] = {"no_repeat_ngram": NoRepeatNGram}
"""Constraints that need no argument, by name. Those that do are given as objects."""


def as_constraint(spec: Constraint | str | Sequence[Constraint | str]) -> Constraint:
    """Return the constraint that ``spec`` means.

    Args:
        spec: A constraint, the name of one (``"no_repeat_ngram"``: n = 3), or a sequence of these, which must all
            agree.

    Raises:
        ValueError: If no constraint has this name.
        TypeError: If ``spec`` is no constraint.

    >>> as_constraint(["no_repeat_ngram"]).constraints[0].n
    3
    """
    if isinstance(spec, str):
        if spec not in CONSTRAINTS:
            raise unknown_name("constraint", spec, CONSTRAINTS, also="Also accepted: an object with mask(batch).")
        return CONSTRAINTS[spec]()
    if isinstance(spec, type):
        raise TypeError(f"a constraint is an object, not the class {spec.__name__}: write {spec.__name__}(...)")
    if isinstance(spec, Constraint):
        return spec
    if isinstance(spec, Sequence):
        return AllOf(*map(as_constraint, spec))
    raise TypeError(f"a constraint has a method mask(batch) -> (B, V) bool, {type(spec).__name__} has none")
