"""Puts the docstrings that stand under a dataclass's fields where ``help`` shows them."""

import ast
import dataclasses
import inspect
import textwrap
from itertools import pairwise
from typing import TypeVar

__all__ = ["documented_fields"]

Class = TypeVar("Class", bound=type)


def documented_fields(cls: Class) -> Class:
    """Append the docstring of each field of a dataclass, inherited ones included, to its own, under ``Fields:``.

    Python keeps no docstring of a field; it is read from the source, and where there is none nothing is appended.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= _field_docstrings(base)
    lines = []
    for field in dataclasses.fields(cls):
        if field.name in texts:
            default = "" if field.default is dataclasses.MISSING else f" (default: {field.default!r})"
            text = f"{field.name}: {texts[field.name]}{default}"
            lines.append(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="        "))
    if cls.__doc__ is not None and lines:
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__), "", "Fields:", *lines])
    return cls


def _field_docstrings(cls: type) -> dict[str, str]:
    """Return what stands under the fields that a class itself declares."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # no file, or written in C
        return {}
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(str(below.value.value).split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }
