"""Script that a ``Worker`` runs in another process: loads one function, then answers calls of it.

It is run by path and needs only the standard library, so that no user program is imported twice and no thread or lock
is inherited. Requests are pickles on standard input. Replies are lines on the original standard output: the token that
the parent sent first, the number of the reply, JSON.
"""

import contextlib
import faulthandler
import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from json import dumps  # bound now: the function may put something else in its place
from sys import _current_frames
from typing import IO, Any

ORPHAN_SECONDS = 30.0
"""Seconds that the process outlives a parent killed in the middle of a batch, beyond the time of the batch."""


class Replies:
    """Channel of the replies, on which only the process that opened it may write.

    A process that the function forks has a copy of the descriptor and would answer calls too.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.token = ""
        self._stream = stream
        self._number = 0
        self._pid = os.getpid()

    def send(self, reply: dict[str, Any]) -> None:
        """Write the next reply; end the process if it may not or cannot."""
        self._number += 1
        if os.getpid() != self._pid:
            os._exit(1)
        try:
            self._stream.write(f"{self.token} {self._number} {dumps(reply)}\n".encode())
            self._stream.flush()
        except OSError:  # the function has closed it
            os._exit(1)


def main() -> None:
    """Load the function, then answer batch after batch until standard input ends."""
    requests, stream = _private_streams()
    replies = Replies(stream)
    replies.token, sys.path[:], memory_limit, blob = pickle.load(requests)
    function = _loaded(replies, partial(pickle.loads, blob))
    if memory_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    while True:
        try:
            blob, seconds = pickle.load(requests)
        except (EOFError, OSError):  # the parent, or the function, has closed it
            return
        calls = _loaded(replies, partial(pickle.loads, blob))
        faulthandler.dump_traceback_later(seconds + ORPHAN_SECONDS, exit=True, file=_nowhere())
        for arguments in calls:
            num_threads = len(_current_frames())
            outcome = _outcome(function, arguments)
            if len(_current_frames()) > num_threads:  # a thread that is left could disturb a later call
                replies.send(outcome | {"last": True})
                os._exit(0)
            replies.send(outcome)
        faulthandler.cancel_dump_traceback_later()


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return standard input and output, hidden from the function, whose prints go to standard error."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=requests.close)
        os.register_at_fork(after_in_child=replies.close)
    return requests, replies


def _nowhere() -> IO[bytes]:
    global _devnull
    if _devnull is None:
        _devnull = open(os.devnull, "wb")  # noqa: SIM115, PTH123  kept open: faulthandler writes to its descriptor
    return _devnull


_devnull: IO[bytes] | None = None


def _loaded(replies: Replies, load: Callable[[], Any]) -> Any:
    """Return what ``load`` returns and report success, or report the error and end the process."""
    try:
        loaded = load()
    except BaseException as error:
        replies.send({"error": f"raised {type(error).__name__}: {error}"[:500]})
        raise SystemExit(1) from error
    replies.send({})
    return loaded


def _outcome(function: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    try:
        value = function(*arguments)
        if value is None:
            return {"value": None}
        with contextlib.suppress(TypeError, ValueError):
            if not isinstance(value, str | bytes):
                return {"value": float(value)}
        return {"error": f"returned {value!r:.80}, expected a number"}
    except Exception as error:  # noqa: BLE001  user code; the parent reports what it raises
        return {"error": f"raised {type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    main()
