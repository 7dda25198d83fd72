"""Calls of a function in another process, each with a time limit.

Not based on pebble (5.2 was tried): its processes answer in pickles, so that a checked program that writes to the
descriptors executes code in the training process, and a forked copy of a worker goes on to take calls.
"""

import contextlib
import json
import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import IO, Any

import cloudpickle

from textgym.errors import ScorerError

__all__ = ["Answer", "Worker"]

_SCRIPT = Path(__file__).with_name("worker_process.py")
_START_LIMIT = 120.0
"""Seconds in which the process must import what the function and its arguments need."""
_LONGEST_LINE = 16_384
"""Bytes of an answer; its error has at most 500 characters."""


@dataclass(frozen=True)
class Answer:
    """The result of one call."""

    value: float = float("nan")
    """The number that the function returned; NaN for None, and with an error."""
    error: str | None = None
    """The failure, as the end of a sentence: ``"raised ValueError: ..."``."""
    timed_out: bool = False
    """Whether the call exceeded the time limit."""


class Worker:
    """Calls a function in another process, with a time limit for each call.

    One process is kept warm. It is started with the first call, and again after a fork and after a call that timed out,
    ended it or left a thread running; it ends with this object. The function is pickled by cloudpickle at construction,
    so that lambdas and functions of scripts and notebooks work. Calls from several threads are serialised.

    An answer carries a token known to the process alone, and its number; anything else on the channel is an error of
    that call and ends the process, so a call cannot answer for others by writing to descriptors or by forking. This is
    not a sandbox: code that searches the memory of its own process finds the token, and code that patches its modules
    changes later results.

    Args:
        function: Returns a number or None.
        time_limit: Seconds of wall time for each call.
        memory_limit: Bytes of address space of the process, on POSIX; None sets no limit.

    Raises:
        TypeError: If the function cannot be sent to another process.
        ValueError: If a limit is not positive.
    """

    def __init__(self, function: Callable[..., Any], time_limit: float, memory_limit: int | None = None) -> None:
        if not 0 < time_limit < float("inf"):
            raise ValueError(f"time_limit must be a positive number of seconds, got {time_limit!r}")
        if memory_limit is not None and not (isinstance(memory_limit, int) and memory_limit > 0):
            raise ValueError(f"memory_limit must be None or a positive number of bytes, got {memory_limit!r}")
        try:
            self._blob = cloudpickle.dumps(function)
        except Exception as error:  # a reducer is user code and may raise anything
            raise TypeError(f"{function!r} cannot be sent to another process: {error}") from error
        self.time_limit = time_limit
        self.memory_limit = memory_limit
        self._lock = threading.Lock()
        self._process: _Process | None = None
        _WORKERS.add(self)

    def map(self, calls: Sequence[tuple[Any, ...]]) -> list[Answer]:
        """Return an answer for each tuple of arguments.

        Raises:
            ScorerError: If the function or the arguments cannot be loaded in the other process.
        """
        answers: list[Answer] = []
        with self._lock:
            try:
                while len(answers) < len(calls):
                    answers += self._map_until_end(calls[len(answers) :])
            except BaseException:  # also an interrupt: pending answers would be taken for those of later calls
                self.close()
                raise
        return answers

    def close(self) -> None:
        """End the process, if there is one; the next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _map_until_end(self, calls: Sequence[tuple[Any, ...]]) -> list[Answer]:
        """Return the answers of the first calls: of all, or up to the call that ended the process."""
        earlier, process = self._process, self._running()
        process.send((cloudpickle.dumps(list(calls)), self.time_limit * len(calls)))
        try:
            process.confirm("the arguments")
        except ScorerError:
            if process is not earlier:
                raise
            self.close()  # an earlier call may have damaged it
            return []
        answers: list[Answer] = []
        for _ in calls:
            try:
                reply = process.receive(self.time_limit)
            except TimeoutError:
                self.close()
                return [*answers, Answer(error=f"took longer than {self.time_limit:g} s", timed_out=True)]
            except _ForgedError as error:
                self.close()
                return [*answers, Answer(error=str(error))]
            if reply is None:
                status = process.exit_status()
                self.close()
                return [*answers, Answer(error=f"ended its process ({status})")]
            value = reply.get("value")
            answers.append(Answer(float("nan") if value is None else value, reply.get("error")))
            if reply.get("last"):
                self.close()
                return answers
        return answers

    def _running(self) -> "_Process":
        if self._process is None or not self._process.is_usable():
            self.close()
            self._process = _Process()
            self._process.send((self._process.token, sys.path, self.memory_limit, self._blob))
            self._process.confirm("the function")
        return self._process


_WORKERS: "weakref.WeakSet[Worker]" = weakref.WeakSet()


def _renew_locks() -> None:
    for worker in _WORKERS:
        worker._lock = threading.Lock()  # its holder may be a thread that this process does not have


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class _ForgedError(Exception):
    """Something other than the next answer arrived."""


class _Process:
    """One run of the script, and the lines it has written."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self._received = 0
        command = [sys.executable, str(_SCRIPT)]
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=os.name == "posix"
        )
        self._requests: SimpleQueue[bool] = SimpleQueue()
        self._replies: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=_read, args=(self._popen.stdout, self._requests, self._replies), daemon=True).start()
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _end, self._popen, self._owner, self._requests)

    def is_usable(self) -> bool:
        return self._owner == os.getpid() and self._popen.poll() is None

    def send(self, request: Any) -> None:
        """Send a request; if the process has ended, the next ``receive`` returns None."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(request, self._popen.stdin)
            self._popen.stdin.flush()

    def receive(self, time_limit: float) -> dict[str, Any] | None:
        """Return the next reply, None if the process has ended.

        Raises:
            TimeoutError: If there is none in time.
            _ForgedError: If something else arrived.
        """
        self._requests.put(True)
        try:
            line = self._replies.get(timeout=time_limit)
        except Empty:
            raise TimeoutError from None
        if line is None:
            return None
        self._received += 1
        token, _, answer = line.partition(f" {self._received} ".encode())
        try:
            if token == self.token.encode():
                reply: dict[str, Any] = json.loads(answer)
                return reply
        except ValueError:
            pass
        raise _ForgedError("wrote to the channel of the answers")

    def confirm(self, what: str) -> None:
        """Wait until the process has loaded what was sent."""
        start = monotonic()
        try:
            reply = self.receive(_START_LIMIT)
        except TimeoutError:
            raise ScorerError(f"{what} took longer than {monotonic() - start:.0f} s to load in a process") from None
        except _ForgedError as error:
            raise ScorerError(f"{what} {error} while it was loaded in a process") from None
        problem = f"it ended ({self.exit_status()})" if reply is None else reply.get("error")
        if problem is not None:
            raise ScorerError(f"{what} could not be loaded in another process: {problem}")

    def exit_status(self) -> str:
        """Return the exit status, after making sure that the process has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)  # its output has ended, so it is about to exit
        self.end()
        code = self._popen.wait()
        return f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def end(self) -> None:
        self._finalizer()


def _read(stream: IO[bytes], requests: "SimpleQueue[bool]", replies: "SimpleQueue[bytes | None]") -> None:
    """Read one line per request, so that a process that writes more has to wait."""
    with stream:
        while requests.get() and (line := stream.readline(_LONGEST_LINE)):
            replies.put(line)
    replies.put(None)


def _end(popen: "subprocess.Popen[bytes]", owner: int, requests: "SimpleQueue[bool]") -> None:
    """Kill the process and those it has started, unless it belongs to the process that this one was forked from."""
    requests.put(False)
    if os.getpid() != owner:
        popen.returncode = 0  # not ours; keeps Popen from warning
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(popen.pid, signal.SIGKILL)  # its session is its own
            else:
                popen.kill()
        popen.wait()
    assert popen.stdin is not None
    with contextlib.suppress(OSError):
        popen.stdin.close()
