"""LLM as a judge: scores that another language model gives over a chat API."""

import hashlib
import json
import sqlite3
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers.arguments import as_config
from textgym.scorers.base import EpisodewiseScorer, Scores
from textgym.scorers.evaluation import episode_error
from textgym.scorers.learned.chat import ChatClient
from textgym.scorers.learned.judge_config import JudgeConfig
from textgym.scorers.text import cleaned

__all__ = ["Judge", "JudgeUsage", "question_key"]


@dataclass(frozen=True)
class JudgeUsage:
    """Requests, tokens and cache hits of a judge so far."""

    requests: int = 0
    """Requests sent, including retries."""
    tokens: int = 0
    """Prompt and completion tokens reported by the server."""
    cache_hits: int = 0
    """Episodes whose answer was in the cache."""


class Judge(EpisodewiseScorer):
    """Score that a language model behind an OpenAI-compatible server gives a completion.

    Formula: ``(score - worst) / (best - worst)``, with the score parsed from the judge's answer. Range: [0, 1]; NaN if
    the template needs a reference and the sample has none. Empty completion: judged like any other. Deterministic with
    a cache, which keeps the first answer; without one, servers are not, even at temperature 0. Not incremental. Judges
    favour long and confident texts, and a completion may contain instructions to the judge.

    Equal questions of a batch are asked once, different ones concurrently. An episode alone fails if its request fails,
    its answer has no score, or the budget is spent. A cache that cannot be read fails the batch before any request; one
    that cannot be written is a warning. The key is read from the environment for each request and never stored, pickled
    or shown, even if the server repeats it. Budgets and rate limits are per object, not shared with copies.

    Source: Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023, https://arxiv.org/abs/2306.05685

    Args:
        model: The server's name of the model.
        base_url: The server's address up to the version: ``"http://localhost:8000/v1"``.
        config: A ``JudgeConfig``.
        clock: Returns seconds, as ``time.monotonic`` does; used by the rate limit.
        sleep: Coroutine function that waits for some seconds; used by retries and rate limit.

    Raises:
        ImportError: If the package httpx is missing.
        ValueError: If the address is not an HTTP URL, the key's environment variable is not set, or the cache cannot be
            opened.
        TypeError: If ``config`` is not a ``JudgeConfig``.

    >>> judge = Judge("my-model", "http://localhost:8000/v1", JudgeConfig(scale=(1, 5), max_requests=1_000))
    >>> judge.usage
    JudgeUsage(requests=0, tokens=0, cache_hits=0)
    """

    score_range = (0.0, 1.0)

    def __init__(
        self,
        model: str,
        base_url: str,
        config: JudgeConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self.model = model
        self.base_url = base_url
        self.config = config = as_config(config, JudgeConfig, "config")
        self._clock, self._sleep = clock, sleep
        self._cache_hits = 0
        self._warning: RuntimeWarning | None = None
        self._client = ChatClient(base_url, config, clock, sleep)
        self._cache = None if config.cache is None else _AnswerCache(config.cache)

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether there is a cache, which keeps the first answer."""
        return self._cache is not None

    @property
    def usage(self) -> JudgeUsage:
        """Requests, tokens and cache hits so far."""
        return JudgeUsage(self._client.limits.requests, self._client.limits.tokens, self._cache_hits)

    def score_components(self, batch: TextBatch) -> Scores:
        """Return the scores, and the errors by episode.

        Raises:
            RuntimeWarning: If warnings are errors and the cache could not be written in an earlier call.
        """
        if self._warning is not None:
            warning, self._warning = self._warning, None
            raise warning
        questions = self._questions(batch)
        bodies = {key: body for key, body in questions if body is not None}
        found = self._cached_scores(bodies, [key for key, body in questions if body is not None])
        found |= self._ask({key: body for key, body in bodies.items() if key not in found})
        total = np.full(len(batch), np.nan)
        errors: dict[int, str] = {}
        cause: ScorerError | None = None
        for i, (key, body) in enumerate(questions):
            outcome = found[key] if body is not None else np.nan
            if isinstance(outcome, ScorerError):
                errors[i] = episode_error(self.name, outcome, batch.completions[i])
                cause = cause or outcome
            else:
                total[i] = outcome
        return Scores(total, {}, errors, cause)

    def _questions(self, batch: TextBatch) -> list[tuple[str, dict[str, Any] | None]]:
        """Return B keys and requests; None where there is nothing to ask."""
        config = self.config
        questions: list[tuple[str, dict[str, Any] | None]] = []
        for sample, completion in zip(batch.samples, batch.completions, strict=True):
            reference = sample.references[0] if sample.references else None
            if reference is None and config.needs_reference:
                questions.append(("", None))
                continue
            texts = [cleaned(text, config.max_characters) for text in (sample.prompt, completion, reference or "")]
            body = {**config.parameters, "model": self.model, "messages": config.messages(*texts)}
            questions.append((question_key(body), body))
        return questions

    def _cached_scores(self, bodies: Mapping[str, Any], keys: list[str]) -> dict[str, float | ScorerError]:
        """Return the scores of the questions whose answer is in the cache."""
        found: dict[str, float | ScorerError] = {}
        if self._cache is None:
            return found
        for key, answer in self._cache.get(list(bodies)).items():
            score = self._score(answer)
            if not isinstance(score, ScorerError):  # else it was cached with another pattern
                found[key] = score
        self._cache_hits += sum(key in found for key in keys)
        return found

    def _ask(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, float | ScorerError]:
        """Ask the judge, and cache each answer with a score as soon as it arrives."""
        found: dict[str, float | ScorerError] = {}
        write_error: ScorerError | None = None

        def on_answer(key: str, answer: str | ScorerError) -> None:
            nonlocal write_error
            found[key] = score = answer if isinstance(answer, ScorerError) else self._score(answer)
            if self._cache is not None and not isinstance(score, ScorerError) and write_error is None:
                try:
                    self._cache.put(key, str(answer))
                except ScorerError as error:  # the score is valid all the same
                    write_error = error

        if bodies:
            self._client.complete(bodies, on_answer)
        if write_error is not None:
            try:
                warnings.warn(f"answers of the judge could not be cached: {write_error}", RuntimeWarning, stacklevel=2)
            except RuntimeWarning as warning:  # raised by the next call, so that the scores of this batch are returned
                self._warning = warning
        return found

    def _score(self, answer: str) -> float | ScorerError:
        try:
            return self.config.score(answer)
        except ScorerError as error:
            return error

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(Judge, self.model, self.base_url, self.config, clock=self._clock, sleep=self._sleep)
        return make, (), {"name": self.name}


_KEYS_PER_QUERY = 500  # SQLite once allowed 999


def question_key(body: Mapping[str, Any]) -> str:
    """Return the cache key of a request: a hash of model, messages and parameters."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class _AnswerCache:
    """An SQLite file of answers by key, which several processes may use at once.

    Raises:
        ValueError: If the file cannot be opened or created.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self._connection() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except ScorerError as error:
            raise ValueError(str(error)) from error.__cause__

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the cached answers by key.

        Raises:
            ScorerError: If the file cannot be read.
        """
        found: dict[str, str] = {}
        with self._connection() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                found.update(connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part))
        return found

    def put(self, key: str, answer: str) -> None:
        """Store an answer, replacing an earlier one.

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
