"""How much a client may ask of a server: a budget for all its life, and so many requests a minute."""

import threading
from collections.abc import Callable

from textgym.errors import ScorerError

__all__ = ["ChatLimits"]


class ChatLimits:
    """Counts requests and tokens, refuses what the budget does not cover, and keeps requests apart in time.

    Args:
        max_requests: Requests that may be sent, retries included; None for any number.
        max_total_tokens: Tokens, of questions and answers, after which no further request is sent. Requests that are
            under way by then are still paid.
        requests_per_minute: Requests are sent at least ``60 / requests_per_minute`` seconds apart.
        clock: Returns seconds, as ``time.monotonic`` does.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        max_requests: int | None,
        max_total_tokens: int | None,
        requests_per_minute: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self.requests = 0
        self.tokens = 0
        self._max_requests = max_requests
        self._max_total_tokens = max_total_tokens
        self._interval = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._clock = clock
        self._sleep = sleep
        self._next = float("-inf")
        self._lock = threading.Lock()

    def before_request(self) -> None:
        """Wait until the next request may be sent, and count it.

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
        if start > now:
            self._sleep(start - now)

    def after_reply(self, tokens: int | None) -> None:
        """Count the tokens that a server says it has used.

        Raises:
            ScorerError: If it does not say, and there is a budget of tokens.
        """
        if tokens is None:
            if self._max_total_tokens is not None:
                raise ScorerError("the server reports no usage, so max_total_tokens cannot be kept; use max_requests")
            return
        with self._lock:
            self.tokens += tokens
