"""Puts the docstrings that stand under a dataclass's fields where ``help`` shows them."""

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TypeVar

__all__ = ["documented_fields"]

Class = TypeVar("Class", bound=type)


def documented_fields(cls: Class) -> Class:
    """Append each field's docstring to the class's own, under ``Fields:``.

    Python keeps no docstring of a field; it is read from the source, and where there is none nothing is appended.
    """
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:
        return cls
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    lines = []
    for field, below in pairwise(body):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if is_field and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            default = "" if field.value is None else f" (default: {ast.unparse(field.value)})"
            text = f"{field.target.id}: {' '.join(str(below.value.value).split())}{default}"
            lines.append(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="        "))
    if cls.__doc__ is not None and lines:
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__), "", "Fields:", *lines])
    return cls
