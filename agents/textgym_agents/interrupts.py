"""Ctrl-C that takes effect at a chosen point."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interrupts", "defer_interrupts"]


class Interrupts:
    """Handler of SIGINT that remembers the first one and raises ``KeyboardInterrupt`` at the second."""

    def __init__(self) -> None:
        self.is_pending = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.is_pending:
            raise KeyboardInterrupt
        self.is_pending = True
        with contextlib.suppress(RuntimeError):  # a signal that arrives while stderr is written to
            print("\nCtrl-C: stops after this update; press it again to stop at once", file=sys.stderr, flush=True)

    def raise_pending(self, message: str) -> None:
        """Raise ``KeyboardInterrupt`` if there was a signal."""
        if self.is_pending:
            raise KeyboardInterrupt(message)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[Interrupts]:
    """Context manager in which Ctrl-C takes effect only where ``raise_pending`` is called, and at the end.

    A second Ctrl-C takes effect at once. The handler is installed in the main thread, in place of Python's own; in
    another thread, or where a program has its own handler, signals are handled as they were.

    >>> with defer_interrupts() as interrupts:
    ...     interrupts.is_pending
    False
    """
    interrupts = Interrupts()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.raise_pending("stopped at the end")
