"""Answers of a judge in a file, so that no question is paid twice."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from textgym.errors import ScorerError

__all__ = ["AnswerCache", "question_key"]

_KEYS_PER_QUERY = 500  # SQLite once allowed 999


def question_key(body: Mapping[str, Any]) -> str:
    """Return what names a request in the cache: a hash of model, messages and parameters."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """An SQLite file of answers by key, which several processes may use at once.

    Raises:
        ValueError: If the file cannot be opened or made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self._connection() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except ScorerError as error:
            raise ValueError(str(error)) from error.__cause__

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the answers that are there, by key.

        Raises:
            ScorerError: If the file cannot be read any more.
        """
        found: dict[str, str] = {}
        with self._connection() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                found.update(connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part))
        return found

    def put(self, key: str, answer: str) -> None:
        """Keep an answer, in place of an earlier one.

        Raises:
            ScorerError: If the file cannot be written.
        """
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise ScorerError(f"cannot use {str(self.path)!r} as a cache: {error}") from error
