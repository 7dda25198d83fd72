"""Validity of JSON, alone or against a schema."""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.extras import import_extra

__all__ = ["JSONSchema", "ValidJSON"]

Where = Literal["whole", "first"]

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"[{\[]")
_MOST_TRIES = 32
_DEEP = 50
"""Brackets of a text that may be nested too deeply for jsonschema, which takes several stack frames per level."""
_WHERE = ("first", "whole")
_KINDS: dict[str, type] = {"any": object, "array": list, "object": dict}


class _NotJSONError(ValueError):
    """The text has no JSON value."""


@dataclass(frozen=True)
class ValidJSON(Scorer):
    """1 where the completion is JSON, else 0.

    Formula: strict RFC 8259: white space around the value is allowed, ``NaN`` and ``Infinity`` are not. Range: {0, 1}.
    Empty completion: 0. Deterministic. Not incremental. Values nested deeper than the interpreter's stack allows, about
    a thousand levels, score 0. ``0`` and ``{}`` are JSON: choose a ``kind``, or use ``JSONSchema``.

    Raises:
        ValueError: If ``where`` or ``kind`` is unknown.

    >>> ValidJSON()(TextBatch.from_texts(['{"a": [1, 2]}', "{'a': 1}", '{"a": 1', ""]))
    array([1., 0., 0., 0.])
    >>> ValidJSON("first", kind="object")(TextBatch.from_texts(['Here it is: {"a": 1}!', "It is [1]."]))
    array([1., 0.])
    """

    where: Where = "whole"
    """``"whole"``: the text is the value. ``"first"``: the value is the first fenced block of the text or, without one,
    the first object or array that can be parsed, among the first 32 brackets."""
    kind: Literal["any", "array", "object"] = "any"
    """Required type of the value."""

    score_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check_where(self.where)
        if self.kind not in _KINDS:
            raise unknown_name("kind", self.kind, _KINDS)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array([self._score(text) for text in batch.completions], dtype=np.float64)

    def _score(self, text: str) -> float:
        try:
            return float(isinstance(_value(text, self.where), _KINDS[self.kind]))
        except _NotJSONError:
            return 0.0


class JSONSchema(Scorer):
    """1 where the completion is JSON that conforms to a schema, else 0.

    Formula: 1 if the value is valid, else 0; with ``partial``, ``1 / (1 + errors)`` for JSON with that many violations.
    Range: [0, 1]. Empty completion: 0. Deterministic. Not incremental. A ``$ref`` to another document is not fetched:
    the scorer fails. Values nested too deeply to compare, from about a hundred levels on, or with a number too large
    for ``multipleOf``, score 0. ``pattern`` and ``uniqueItems`` can take minutes for an adversarial text, which
    ``Checker`` limits.

    Source: https://json-schema.org, https://github.com/python-jsonschema/jsonschema

    Args:
        schema: A JSON schema, of the draft named by its ``$schema``, 2020-12 by default.
        where: As in ``ValidJSON``.
        partial: Whether JSON that violates the schema scores more than 0.

    Raises:
        ImportError: If the package jsonschema is missing.
        TypeError: If the schema is not a mapping.
        ValueError: If it is not a valid schema, or ``where`` is unknown.

    >>> schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["name", "age"]}
    >>> texts = ['{"name": "Ann", "age": 3}', '{"age": "3"}', "Ann is 3."]
    >>> JSONSchema(schema)(TextBatch.from_texts(texts))
    array([1., 0., 0.])
    >>> JSONSchema(schema, partial=True)(TextBatch.from_texts(texts)).round(2)
    array([1.  , 0.33, 0.  ])
    """

    score_range = (0.0, 1.0)

    def __init__(self, schema: Mapping[str, Any], where: Where = "whole", partial: bool = False) -> None:
        if not isinstance(schema, Mapping):
            raise TypeError(f"schema is {schema!r} of type {type(schema).__name__}, expected a mapping")
        _check_where(where)
        self.schema = copy.deepcopy(dict(schema))
        self.where = where
        self.partial = partial
        self._validator = _validator(self.schema)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return np.array([self._score(text) for text in batch.completions], dtype=np.float64)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_validator"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._validator = _validator(self.schema)

    def _score(self, text: str) -> float:
        try:
            value = _value(text, self.where)
        except _NotJSONError:
            return 0.0
        try:
            if not self.partial:
                return float(self._validator.is_valid(value))
            return 1.0 / (1 + sum(1 for _ in self._validator.iter_errors(value)))
        except OverflowError:
            return 0.0
        except RecursionError:
            if text.count("[") + text.count("{") < _DEEP:  # then the schema is infinitely recursive
                raise
            return 0.0


@cache
def _jsonschema() -> Any:
    return import_extra("jsonschema", "json_schema")


def _validator(schema: dict[str, Any]) -> Any:
    jsonschema = _jsonschema()
    known = import_extra("jsonschema_specifications", "json_schema", "jsonschema").REGISTRY
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"schema is not a valid JSON schema: {error.message}") from error
    return kind(schema, registry=known)  # without a registry, jsonschema fetches the target of a $ref


def _check_where(where: str) -> None:
    if where not in _WHERE:
        raise unknown_name("where", where, _WHERE)


def _value(text: str, where: Where) -> Any:
    """Return the JSON value in ``text``, or raise ``_NotJSONError``."""
    if where == "whole":
        return _decoded(text.strip(" \t\r\n"), whole=True)
    fenced = _FENCED.search(text)
    if fenced is not None:
        return _decoded(fenced[1].strip(" \t\r\n"), whole=True)
    for _, opening in zip(range(_MOST_TRIES), _OPENING.finditer(text), strict=False):
        try:
            return _decoded(text[opening.start() :], whole=False)
        except _NotJSONError:
            continue
    raise _NotJSONError("no value")


def _decoded(text: str, whole: bool) -> Any:
    try:
        value, end = _decoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise _NotJSONError("no value") from error
    if whole and end != len(text):
        raise _NotJSONError("something follows the value")
    return value


@cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_reject, parse_int=_as_integer)


def _reject(name: str) -> None:
    raise _NotJSONError(f"{name} is not JSON")


def _as_integer(digits: str) -> int | float:
    # Python does not parse integers of more than 4,300 digits.
    return int(digits) if len(digits) <= 4_000 else float(digits)
