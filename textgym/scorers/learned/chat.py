"""A client of chat completions as OpenAI's API has them, which many servers speak, on the standard library."""

import contextlib
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from textgym.errors import ScorerError
from textgym.scorers.learned.chat_limits import ChatLimits

__all__ = ["ChatClient"]

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 120.0
_MOST_BYTES = 10_000_000
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _TemporaryError(Exception):
    """What may succeed if it is tried again."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ChatClient:
    """Asks a server, patiently.

    Connection errors, timeouts and the statuses 408, 409, 425, 429, 500, 502, 503, 504 and 529 are tried again, after
    what ``Retry-After`` says, or half a second, doubled each time up to a minute, less up to half of it by chance.

    Args:
        base_url: The address up to and including the version: ``"http://localhost:8000/v1"``.
        api_key_env: The environment variable that holds the key, read with each request and kept nowhere.
        request_timeout: Seconds of one request.
        retries: How often one question is asked again.
        limits: What may be asked at all.
        clock: Returns seconds, as ``time.monotonic`` does.
        sleep: Waits for some seconds.

    Raises:
        ValueError: If the address is none of HTTP, or the environment variable is not set or holds no key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str | None,
        request_timeout: float,
        retries: int,
        limits: ChatLimits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"expected base_url as 'http://host:port/v1' without a user, got {base_url!r}")
        self.url = base_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.limits = limits
        self._api_key_env = api_key_env
        self._key()
        self._request_timeout = request_timeout
        self._retries = retries
        self._clock = clock
        self._sleep = sleep
        self._jitter = random.Random()
        proxies = [urllib.request.ProxyHandler({})] if parts.hostname in _LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def complete(self, body: Mapping[str, Any]) -> str:
        """Return the text that answers a request.

        Raises:
            ScorerError: If the budget is spent, the server refuses, or it fails as often as it may.
        """
        try:
            key = self._key()
        except ValueError as error:  # it has gone since this was made
            raise ScorerError(str(error)) from error
        for attempt in range(self._retries + 1):
            self.limits.before_request()
            try:
                return self._answer_in(self._post(body, key), key)
            except _TemporaryError as error:
                if attempt == self._retries:
                    raise ScorerError(f"{error} (asked {attempt + 1} times)") from error
                backoff = min(60.0, 0.5 * 2.0**attempt) * self._jitter.uniform(0.5, 1.0)
                wait = backoff if error.wait is None else error.wait
                if wait > _LONGEST_WAIT:
                    raise ScorerError(f"{error}; it asks to wait {wait:.0f} s, which is too long") from error
                self._sleep(wait)
        raise AssertionError("unreachable")

    def _post(self, body: Mapping[str, Any], key: str) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "textgym"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers, method="POST")
        deadline = self._clock() + self._request_timeout
        try:
            with self._opener.open(request, timeout=self._request_timeout) as response:
                return self._read(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                said = _beginning(error)
                wait = _seconds(error.headers.get("Retry-After"))
            message = f"{self.url} answered {error.code} {_without(key, f'{error.reason}: {said}')[:500]}"
            if error.code in _RETRIED:
                raise _TemporaryError(message, wait) from error
            raise ScorerError(message) from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            raise _TemporaryError(f"{self.url} did not answer: {type(error).__name__}: {error}") from error

    def _read(self, response: Any, deadline: float) -> bytes:
        """Read the whole answer; a socket's own time limit starts again with each piece."""
        received = bytearray()
        while piece := response.read1(65_536):
            received += piece
            if self._clock() > deadline:
                raise TimeoutError(f"the answer took longer than {self._request_timeout:g} s")
            if len(received) > _MOST_BYTES:
                raise ScorerError(f"{self.url} answered more than {_MOST_BYTES} bytes")
        if response.length:  # read1 does not mind an answer that ends too soon
            raise http.client.IncompleteRead(bytes(received), response.length)
        return bytes(received)

    def _answer_in(self, received: bytes, key: str) -> str:
        text = tokens = None
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            reply = json.loads(received)
            tokens = (reply.get("usage") or {}).get("total_tokens")
            text = reply["choices"][0]["message"]["content"]
        tokens = tokens if isinstance(tokens, int) and tokens >= 0 else None
        if not isinstance(text, str):
            if tokens is not None:  # such as those of a thought that was too long to be followed by an answer
                self.limits.after_reply(tokens)
            shown = _without(key, received.decode("utf-8", "replace"))[:200]
            raise ScorerError(f"{self.url} answered something that is no chat completion: {shown!r}")
        self.limits.after_reply(tokens)
        return text

    def _key(self) -> str:
        """Return the key, without white space around it, or an empty string where none is wanted."""
        if self._api_key_env is None:
            return ""
        key = os.environ.get(self._api_key_env, "").strip()
        if not key:
            raise ValueError(f"api_key_env is {self._api_key_env!r}, but there is no such environment variable")
        if not (key.isascii() and key.isprintable()):  # http.client would refuse it, and show it
            raise ValueError(f"the environment variable {self._api_key_env!r} holds no key: expected printable ASCII")
        return key


def _beginning(error: urllib.error.HTTPError) -> str:
    """Return what a server says of an error, as far as it gets."""
    try:
        return error.read(10_000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return "(nothing)"


def _without(key: str, said: str) -> str:
    """Return what a server said, which may repeat what it was sent."""
    return said.replace(key, "***") if key else said


def _seconds(retry_after: str | None) -> float | None:
    """Return what ``Retry-After`` says, in seconds: a number, or the date that it may be."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
