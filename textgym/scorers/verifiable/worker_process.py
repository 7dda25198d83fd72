"""What runs in the process of a ``Worker``: a script on the standard library that answers calls of one function.

It is started by its path, so that no user program is imported a second time and no thread or lock is inherited.
Requests are pickles on standard input, replies are lines of JSON on what was standard output.
"""

import contextlib
import faulthandler
import json
import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from typing import IO, Any

ORPHAN_SECONDS = 30.0
"""How long the process outlives a parent that was killed in the middle of a batch, beyond the time of the batch."""


def main() -> None:
    """Load the function, then answer batch after batch until standard input ends."""
    requests, replies = _private_streams()
    sys.path[:], blob = pickle.load(requests)
    function = _answered(replies, partial(pickle.loads, blob))
    while True:
        try:
            blob, seconds = pickle.load(requests)
        except EOFError:
            return
        calls = _answered(replies, partial(pickle.loads, blob))
        faulthandler.dump_traceback_later(seconds + ORPHAN_SECONDS, exit=True, file=_nowhere())
        for arguments in calls:
            _send(replies, _outcome(function, arguments))
        faulthandler.cancel_dump_traceback_later()


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Take standard input and output away from the function: what it prints goes to standard error."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return requests, replies


def _nowhere() -> IO[bytes]:
    global _devnull
    if _devnull is None:
        _devnull = open(os.devnull, "wb")  # noqa: SIM115, PTH123  kept open: faulthandler writes to its descriptor
    return _devnull


_devnull: IO[bytes] | None = None


def _answered(replies: IO[bytes], load: Callable[[], Any]) -> Any:
    """Return what ``load`` returns and say so; or say why not, and end the process."""
    try:
        loaded = load()
    except BaseException as error:
        _send(replies, {"error": f"raised {type(error).__name__}: {error}"[:500]})
        raise SystemExit(1) from error
    _send(replies, {})
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


def _send(replies: IO[bytes], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
