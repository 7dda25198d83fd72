"""The page of a report: one static HTML file that shows every token, and requests nothing.

A JSON head, schema ``textgym.report/1``, describes columns that follow it as base64 of gzip. Each column is stored by
byte planes: the low bytes of all its numbers, then the next bytes. It is written from ``html/``, and the same report
gives the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.rendering import display_text, display_token
from textgym_agents.inspection.table import COLUMNS, Column

if TYPE_CHECKING:
    from textgym_agents.inspection.report import Report

__all__ = ["LARGE", "SCHEMA", "TOO_LARGE", "page", "save_page"]

SCHEMA = "textgym.report/1"
"""Name and version of the data in the page."""
LARGE = 25_000_000
"""Bytes above which alternatives are left out, and a warning is given if the page is larger still."""
TOO_LARGE = 100_000_000
"""Bytes above which a page is not written unless it is forced."""
NUM_WITH_ALTERNATIVES = 500
"""Episodes whose alternatives are kept where those of all would be too many."""

_INFOS = ("return", "score", "length", "update", "group", "policy", "pair", "end_reason", "prompt")
"""Keys of an episode's info that come first; other numbers and strings follow."""
_NOT_SHOWN = frozenset({"completion"})
"""Follows from the tokens."""


def save_page(
    report: Report, path: str | os.PathLike[str], *, alternatives: int | None = None, force: bool = False
) -> Path:
    """See ``Report.save``."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"the report needs the name of a file such as {path / 'report.html'}, got a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} does not exist: create the folder before the report is saved in it")
    data = page(report, alternatives=alternatives)
    if len(data) > TOO_LARGE and not force:
        raise ValueError(
            f"the report would have {len(data) / 1e6:.0f} MB, more than the {TOO_LARGE / 1e6:.0f} that browsers open "
            "with ease: inspect fewer episodes, save it with alternatives=0, or use force=True"
        )
    if len(data) > LARGE:
        warnings.warn(
            f"the report has {len(data) / 1e6:.0f} MB; above {LARGE / 1e6:.0f} MB browsers need some seconds",
            stacklevel=3,
        )
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def page(report: Report, *, alternatives: int | None = None) -> bytes:
    """Return the HTML file of a report.

    Args:
        report: Any report; what it does not hold is left out.
        alternatives: Number of episodes whose alternatives and other columns of several numbers a token are kept. By
            default all, or 500 if the file would be larger than 25 MB with all.

    Raises:
        TypeError: If ``alternatives`` is not an integer.
        ValueError: If ``alternatives`` is negative, or columns and infos do not fit the table.
    """
    if alternatives is not None and (isinstance(alternatives, bool) or not isinstance(alternatives, int)):
        raise TypeError(f"alternatives must be a number of episodes or None, got {alternatives!r}")
    if alternatives is not None and alternatives < 0:
        raise ValueError(f"alternatives must be at least 0, got {alternatives}")
    _check(report)
    total = len(report.infos)
    html = _html(report, None if alternatives is None or alternatives >= total else _chosen(report, alternatives))
    if alternatives is None and len(html) > LARGE and total > NUM_WITH_ALTERNATIVES:
        html = _html(report, _chosen(report, NUM_WITH_ALTERNATIVES))
    return html


def _check(report: Report) -> None:
    table = report.table
    if len(table.offsets) != len(report.infos) + 1:
        raise ValueError(f"the table holds {len(table.offsets) - 1} episodes, the report {len(report.infos)} infos")
    for name, values in table.columns.items():
        if len(values) != len(table):
            raise ValueError(f"column {name!r} holds {len(values)} rows, the table {len(table)} tokens")


def _html(report: Report, kept: npt.NDArray[np.int64] | None) -> bytes:
    """Return the file with the alternatives of the ``kept`` episodes, of all if None."""
    head, data = _encode(report, kept)
    files = resources.files(__package__) / "html"
    template, style, script = ((files / name).read_text("utf-8") for name in ("page.html", "style.css", "app.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "style": style,
        "script": script,
        "head": json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "data": base64.b64encode(data).decode("ascii"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template).encode("utf-8")


def _hash(source: str) -> str:
    """Return a source of a content security policy that allows this inline text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode('utf-8')).digest()).decode('ascii')}'"


class _Blob:
    """Columns of numbers, one after the other."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, values: npt.NDArray[Any], *, exact: bool = False) -> dict[str, Any]:
        """Append (M,) or (M, K) numbers and return where they are and how they are decoded; ``exact`` means f32."""
        dtype, factor, stored = ("f32", 1.0, values.astype("<f4")) if exact else _stored(values)
        length, width = values.shape[0], math.prod(values.shape[1:])
        planes = stored.reshape(length, width).T.reshape(width, length, 1).view(np.uint8)
        data = planes.transpose(0, 2, 1).tobytes()
        entry = {"dtype": dtype, "factor": factor, "width": width, "offset": self.size, "length": length}
        self.parts.append(data)
        self.size += len(data)
        return entry

    def compressed(self) -> bytes:
        """Return all columns, compressed, the same for the same columns."""
        return gzip.compress(b"".join(self.parts), mtime=0)


def _stored(values: npt.NDArray[Any]) -> tuple[str, float, npt.NDArray[Any]]:
    """Return the smallest of u16, u32 and f16 for some numbers, their unit, and the numbers in it.

    The largest integer stands for NaN. f16 keeps 11 bits of each number, relative to a power of two that fits.
    """
    array = np.ascontiguousarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    if _are_counts(array):
        is_missing = np.isnan(array)
        for dtype, name in ((np.dtype("<u2"), "u16"), (np.dtype("<u4"), "u32")):
            none = np.iinfo(dtype).max
            if not finite.size or finite.max() < none:
                return name, 1.0, np.where(is_missing, none, array).astype(dtype)
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    factor = 1.0 if 2**-6 <= largest <= 60_000 or largest == 0 else 2.0 ** math.floor(math.log2(largest))
    return "f16", factor, (array / factor).astype("<f2")


def _are_counts(array: npt.NDArray[np.float64]) -> bool:
    known = array[~np.isnan(array)]
    return bool(((known >= 0) & (known < 2**32 - 1) & (known == np.floor(known))).all())


def _encode(report: Report, kept: npt.NDArray[np.int64] | None) -> tuple[dict[str, Any], bytes]:
    """Return the head and the compressed columns."""
    table, blob = report.table, _Blob()
    ids = {int(i) for i in np.unique(table.ids)} | {int(a) for branch in report.branches for a in branch.actions}
    if "top_ids" in table.columns:
        ids |= {int(i) for i in np.unique(table.columns["top_ids"]) if np.isfinite(i) and i >= 0}
    vocabulary = sorted(ids)
    place = {token: index for index, token in enumerate(vocabulary)}
    rows = np.arange(len(table)) if kept is None else _rows(table.offsets, kept)

    columns = []
    for name, values in table.columns.items():
        array = np.asarray(values, dtype=np.float64)
        scale: Literal["sequential", "diverging"] = (
            "diverging" if array.min(initial=0) < 0 < array.max(initial=0) else "sequential"
        )
        column = COLUMNS.get(name, Column(name, name.replace("_", " "), "", "", scale))
        if name == "top_ids":
            array = _places(array, vocabulary)
        if array.ndim > 1:
            array = array[rows]
        columns.append({**column._asdict(), "is_wide": array.ndim > 1, **blob.add(array)})
    head = {
        "schema": SCHEMA,
        "about": _about(report.about),
        "notes": _notes(report, kept),
        "ids": vocabulary,
        "vocabulary": [display_token(table.texts.get(token, f"<{token}>")) for token in vocabulary],
        "tokens": blob.add(np.searchsorted(vocabulary, table.ids) if vocabulary else table.ids),
        "columns": columns,
        "episodes": _episodes(report, blob),
        "reasons": _strings(reasons, blob) if (reasons := getattr(report, "reasons", None)) else None,
        "kept": None if kept is None else kept.tolist(),
        "metrics": _metrics(report.metrics),
        "alarms": [{**_plain(asdict(alarm)), "episodes": report.alarmed(alarm)} for alarm in report.alarms],
        "branches": [
            {**_plain(asdict(branch)), "actions": [place[int(a)] for a in branch.actions]} for branch in report.branches
        ],
    }
    return _plain(head), blob.compressed()


def _places(ids: npt.NDArray[np.float64], vocabulary: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the index of each id among the vocabulary of the page, NaN for the -1 of none."""
    is_id = np.isfinite(ids) & (ids >= 0)
    return np.where(is_id, np.searchsorted(vocabulary, np.where(is_id, ids, 0)), np.nan)


def _rows(offsets: npt.NDArray[np.int64], episodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rows of the tokens of some episodes."""
    parts = [np.arange(offsets[episode], offsets[episode + 1]) for episode in episodes]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _episodes(report: Report, blob: _Blob) -> dict[str, Any]:
    """Return the fields of the episodes: numbers in the blob, strings by their number in a list."""
    infos = [_flat(info) for info in report.infos]
    if "reward" in report.table.columns:
        rewards = np.nan_to_num(np.asarray(report.table.columns["reward"], dtype=np.float64))
        sums = np.concatenate([[0.0], np.cumsum(rewards)])
        for info, total in zip(infos, sums[report.table.offsets[1:]] - sums[report.table.offsets[:-1]], strict=True):
            info.setdefault("return", float(total))
    present = dict.fromkeys(name for info in infos for name in info)
    names = [*(n for n in _INFOS if n in present), *(n for n in present if n not in _INFOS)]
    fields: list[dict[str, Any]] = []
    for name in names:
        values = [info.get(name) for info in infos]
        if all(value is None or isinstance(value, int | float) for value in values):
            numbers = np.array([math.nan if value is None else float(value) for value in values])
            fields.append({"name": name, **blob.add(numbers, exact=not _are_counts(numbers))})
        else:
            fields.append({"name": name, **_strings(values, blob)})
    return {"count": len(infos), "sizes": blob.add(np.diff(report.table.offsets)), "fields": fields}


def _strings(values: Sequence[Any], blob: _Blob) -> dict[str, Any]:
    """Return the different strings and, in the blob, the number of each one."""
    texts = ["" if value is None else display_text(str(value)) for value in values]
    places = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return {"values": list(places), **blob.add(np.array([places[text] for text in texts]))}


def _flat(info: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Return the numbers and strings of an info; of each component of the score, ``score/name``."""
    components = info.get("scores")
    both = {**info, **({f"score/{k}": v for k, v in components.items()} if isinstance(components, Mapping) else {})}
    flat = {}
    for name, value in both.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, int | float | str) and name not in _NOT_SHOWN:
            flat[display_text(str(name), one_line=True)] = int(plain) if isinstance(plain, bool) else plain
    return flat


def _metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Return each metric as a list over the updates."""
    names = dict.fromkeys(name for row in metrics for name in row)
    return {name: [_number(row.get(name, math.nan)) for row in metrics] for name in names}


def _number(value: Any) -> float | None:
    """Return a number with six digits, None for NaN and infinities, which JSON does not have."""
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _plain(value: Any) -> Any:
    """Return nested data as JSON has it, with all strings in their display form."""
    if isinstance(value, str):
        return display_text(value)
    if isinstance(value, Mapping):
        return {display_text(str(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    return _number(value) if isinstance(value, float) else display_text(str(value))


def _about(about: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings without nesting: ``{"env": {"id": 1}}`` as ``{"env id": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in about.items():
        if isinstance(value, Mapping) and value:
            flat |= _about(value, f"{prefix}{key} ")
        else:
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else _plain(value)
    return flat


def _notes(report: Report, kept: npt.NDArray[np.int64] | None) -> list[str]:
    """Return what was left out of the page."""
    wide = [name for name, values in report.table.columns.items() if values.ndim > 1]
    if kept is None or not wide:
        return []
    rule = "of each update the best, the worst and some others, and every episode with an alarm or branches"
    return [
        f"To keep this file small, {', '.join(COLUMNS[n].label if n in COLUMNS else n for n in wide)} are left out for "
        f"{len(report.infos) - len(kept):,} of {len(report.infos):,} episodes. They are kept for {len(kept):,}: {rule}."
    ]


def _chosen(report: Report, size: int) -> npt.NDArray[np.int64]:
    """Return the episodes whose alternatives are kept, rising.

    These are those of alarms and branches, then of each update in turn the best, the worst and others at random.
    """
    first = dict.fromkeys(
        [*(e for alarm in report.alarms for e in report.alarmed(alarm)), *(b.episode for b in report.branches)]
    )
    rng = np.random.default_rng(0)
    updates: dict[Any, list[int]] = {}
    for number, info in enumerate(report.infos):
        updates.setdefault(info.get("update"), []).append(number)
    queues = []
    for numbers in updates.values():
        ranked = sorted(numbers, key=lambda n: float(report.infos[n].get("return", 0.0)))
        queues.append([*dict.fromkeys([ranked[-1], ranked[0], *rng.permutation(numbers).tolist()])])
    for turn in range(max(map(len, queues), default=0)):
        if len(first) >= size:
            break
        first |= dict.fromkeys(queue[turn] for queue in queues if turn < len(queue))
    return np.array(sorted([n for n in first if 0 <= n < len(report.infos)][:size]), dtype=np.int64)
