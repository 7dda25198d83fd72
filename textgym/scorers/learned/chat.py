"""Client of OpenAI-compatible chat completions, over httpx: concurrent requests, deadlines, retries, budgets.

anyio cancels whole requests: httpx limits the time of each read only, which a server that sends one byte at a time
never exceeds. Retries are written here because each counts against the budget.
"""

import json
import os
import random
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from textgym.errors import ScorerError
from textgym.scorers.extras import import_extra
from textgym.scorers.learned.judge_config import JudgeConfig

__all__ = ["ChatClient"]

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 120.0
_MOST_BYTES = 10_000_000
_MOST_BYTES_OF_AN_ERROR = 10_000
_SHORTEST_SECRET = 8
"""Least number of characters of a key that is redacted; shorter ones, as local servers are given, are no secrets."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _TemporaryError(Exception):
    """A failed request that may succeed when it is sent again."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _Limits:
    """Budgets of requests and tokens and the rate limit of a judge's configuration; thread-safe."""

    def __init__(self, config: JudgeConfig, clock: Callable[[], float]) -> None:
        self.requests = 0
        self.tokens = 0
        self._max_requests = config.max_requests
        self._max_total_tokens = config.max_total_tokens
        self._interval = 0.0 if config.requests_per_minute is None else 60.0 / config.requests_per_minute
        self._clock = clock
        self._next = float("-inf")
        self._lock = threading.Lock()

    def before_request(self) -> float:
        """Count a request and return the seconds to wait before it is sent.

        Raises:
            ScorerError: If the budget is spent.
        """
        with self._lock:
            if self._max_requests is not None and self.requests >= self._max_requests:
                raise ScorerError(f"the budget of max_requests={self._max_requests} is spent")
            if self._max_total_tokens is not None and self.tokens >= self._max_total_tokens:
                raise ScorerError(f"the budget of max_total_tokens={self._max_total_tokens} is spent: {self.tokens}")
            self.requests += 1
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._interval
        return start - now

    def after_reply(self, tokens: int | None) -> None:
        """Count the tokens that the server reports.

        Raises:
            ScorerError: If it reports none although there is a budget of tokens.
        """
        if tokens is None:
            if self._max_total_tokens is not None:
                raise ScorerError("the server reports no usage, so max_total_tokens cannot be kept; use max_requests")
            return
        with self._lock:
            self.tokens += tokens


class ChatClient:
    """Sends chat completions to a server, several at once.

    Connection errors, timeouts and the statuses 408, 409, 425, 429, 500, 502, 503, 504 and 529 are retried after the
    ``Retry-After`` of the reply, else with exponential backoff: 0.5 s, doubled up to 60 s, minus up to half at random.

    Args:
        base_url: The address up to and including the version: ``"http://localhost:8000/v1"``.
        config: The judge's configuration. The key in ``api_key_env`` is read for each request and never stored.
        clock: Returns seconds, as ``time.monotonic`` does.
        sleep: Coroutine function that waits for some seconds, ``anyio.sleep`` by default.

    Raises:
        ImportError: If the package httpx is missing.
        ValueError: If the address is not an HTTP URL, or the key's environment variable is not set or invalid.
    """

    def __init__(
        self,
        base_url: str,
        config: JudgeConfig,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self._httpx, self._anyio = import_extra("httpx", "judge"), import_extra("anyio", "judge")
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query:
            shown = repr(base_url) if "@" not in base_url and not url.query else f"one of {url.hostname!r}"
            raise ValueError(f"expected base_url as 'http://host:port/v1' without a user or a query, got {shown}")
        self.url = base_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.limits = _Limits(config, clock)
        self._config = config
        self._key()
        self._sleep = sleep or self._anyio.sleep
        self._jitter = random.Random()
        self._options = {
            "trust_env": url.hostname not in _LOOPBACK,  # no proxy for local servers
            "verify": self._httpx.create_ssl_context() if url.scheme == "https" else False,
            "timeout": None,
            "limits": self._httpx.Limits(),
        }

    def complete(self, bodies: Mapping[str, Any], on_answer: Callable[[str, str | ScorerError], None]) -> None:
        """Ask all questions; an interrupt cancels the pending ones.

        Args:
            bodies: Requests by key.
            on_answer: Called with the key and the text of each answer, or its error, as it arrives: one at a time, in
                another thread.
        """
        with import_extra("anyio.from_thread", "judge", "anyio").start_blocking_portal() as portal:
            portal.call(self._complete_all, bodies, on_answer)

    async def _complete_all(
        self, bodies: Mapping[str, Any], on_answer: Callable[[str, str | ScorerError], None]
    ) -> None:
        capacity, one_answer = self._anyio.CapacityLimiter(self._config.concurrency), self._anyio.CapacityLimiter(1)

        async def ask(key: str, body: Any) -> None:
            async with capacity:
                answer = await self._complete(client, body)
            await self._anyio.to_thread.run_sync(on_answer, key, answer, limiter=one_answer)

        async with self._httpx.AsyncClient(**self._options) as client, self._anyio.create_task_group() as group:
            for key, body in bodies.items():
                group.start_soon(ask, key, body)

    async def _complete(self, client: Any, body: Any) -> str | ScorerError:
        """Return the text that answers a request, or its error, which must not affect the other requests."""
        secret = ""
        try:
            secret = self._key()
            return await self._answer(client, body, secret)
        except Exception as error:  # noqa: BLE001  the other answers are kept
            known = isinstance(error, ScorerError | _TemporaryError | ValueError)
            message = str(error) if known else f"asking {self.url} raised {type(error).__name__}: {error}"
        return ScorerError(_redacted(secret, message))  # without a cause, which may show the key

    async def _answer(self, client: Any, body: Any, secret: str) -> str:
        for attempt in range(self._config.retries + 1):
            if (wait := self.limits.before_request()) > 0:
                await self._sleep(wait)
            try:
                return self._text_in(await self._post(client, body, secret), secret)
            except _TemporaryError as error:
                if attempt == self._config.retries:
                    raise ScorerError(f"{error} (asked {attempt + 1} times)") from error
                backoff = min(60.0, 0.5 * 2.0**attempt) * self._jitter.uniform(0.5, 1.0)
                wait = backoff if error.wait is None else error.wait
                if wait > _LONGEST_WAIT:
                    raise ScorerError(f"{error}; it asks to wait {wait:.0f} s, which is too long") from error
                await self._sleep(wait)
        raise AssertionError("unreachable")

    async def _post(self, client: Any, body: Any, secret: str) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        headers |= {"User-Agent": "textgym"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
        response, received, problem = None, bytearray(), None
        try:
            with self._anyio.fail_after(self._config.request_timeout):
                async with client.stream("POST", self.url, content=json.dumps(body), headers=headers) as response:
                    most = _MOST_BYTES if response.is_success else _MOST_BYTES_OF_AN_ERROR
                    async for piece in response.aiter_raw():  # without decompression, whose size has no limit
                        received += piece
                        if len(received) > most:
                            break
        except TimeoutError:
            problem = f"the answer took longer than {self._config.request_timeout:g} s"
        except (OSError, self._httpx.HTTPError) as error:
            problem = f"{type(error).__name__}: {error}"
        if response is not None and not response.is_success:
            reply = "(nothing)" if problem else received.decode("utf-8", "replace").strip()
            reply = _redacted(secret, f"{response.status_code} {response.reason_phrase}: {reply}")[:500]
            if response.status_code in _RETRIED:
                raise _TemporaryError(f"{self.url} answered {reply}", _seconds(response.headers.get("Retry-After")))
            raise ScorerError(f"{self.url} answered {reply}")
        if problem:
            raise _TemporaryError(f"{self.url} did not answer: {problem}")
        if len(received) > _MOST_BYTES:
            raise ScorerError(f"{self.url} answered more than {_MOST_BYTES} bytes")
        return bytes(received)

    def _text_in(self, received: bytes, secret: str) -> str:
        reply = text = tokens = None
        with suppress(ValueError, RecursionError):
            reply = json.loads(received)
        with suppress(LookupError, TypeError):
            text = reply["choices"][0]["message"]["content"]  # type: ignore[index]
        with suppress(LookupError, TypeError):
            tokens = reply["usage"]["total_tokens"]  # type: ignore[index]
        tokens = tokens if isinstance(tokens, int) and tokens >= 0 else None
        if not isinstance(text, str):
            if tokens is not None:  # as for reasoning that left no tokens for an answer
                self.limits.after_reply(tokens)
            shown = _redacted(secret, received.decode("utf-8", "replace"))[:200]
            raise ScorerError(f"{self.url} answered something that is not a chat completion: {shown!r}")
        self.limits.after_reply(tokens)
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate could not be stored
        return _redacted(secret, text)

    def _key(self) -> str:
        """Return the stripped key, or "" if none is configured."""
        name = self._config.api_key_env
        if name is None:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise ValueError(f"api_key_env is {name!r}, but that environment variable is not set or is blank")
        if not (key.isascii() and key.isprintable()):  # httpx would reject it in an error that shows it
            raise ValueError(f"the environment variable {name!r} does not contain a key: expected printable ASCII")
        return key


def _redacted(secret: str, text: str) -> str:
    """Return a server's text without the key, which it may repeat as it was sent, or escaped in JSON or a URL."""
    if len(secret) < _SHORTEST_SECRET:
        return text
    escaped = json.dumps(secret)[1:-1]
    forms = {secret, escaped, escaped.replace("/", r"\/"), quote(secret), quote(secret, safe=""), quote_plus(secret)}
    longest_first = sorted(forms, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), "***", text, flags=re.IGNORECASE)


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a ``Retry-After``, a number or a date; None if it is neither."""
    if retry_after is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(retry_after))
    with suppress(ValueError, TypeError, LookupError, ArithmeticError):
        date = parsedate_to_datetime(retry_after)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
    return None
