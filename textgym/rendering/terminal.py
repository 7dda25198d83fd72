"""Episodes in a terminal: coloured text, and one line that is updated in place."""

import math
import os
import shutil
import sys
import unicodedata
from typing import TextIO

from textgym.rendering.display import display_text, isolated
from textgym.rendering.state import RenderState

__all__ = ["LiveLine", "colors_wanted", "printable", "terminal_text"]

DIM, RESET = "\x1b[2m", "\x1b[0m"
GREENS, REDS = (22, 28, 34), (52, 88, 124)  # of the 256-colour palette, weak to strong


def colors_wanted(stream: TextIO | None = None) -> bool:
    """Return whether to colour what is written to ``stream``, by default stdout.

    Yes in a terminal, or with the environment variable ``FORCE_COLOR``; never with ``NO_COLOR`` (no-color.org).
    """
    stream = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def terminal_text(state: RenderState, *, color: bool) -> str:
    r"""Return prompt, bar and completion in display form.

    Args:
        state: The episode.
        color: Dim the prompt, and colour each token: its background green or red by its reward, relative to the
            largest one so far; without a reward, yellow text below a probability of 0.1, magenta below 0.01.

    >>> terminal_text(RenderState(prompt="Hi ", tokens=("the", "re")), color=False)
    'Hi |there'
    """
    prompt, completion = display_text(state.prompt), display_text(state.completion)
    if not color:
        return f"{isolated(prompt)}|{isolated(completion)}"
    largest = max((abs(reward) for reward in state.rewards if reward == reward), default=0.0)
    pieces = []
    for i, token in enumerate(state.tokens):
        code = _color(state.rewards[i] if state.rewards else 0.0, largest, state.probs[i] if state.probs else math.nan)
        shown = display_text(token)
        pieces.append(f"\x1b[{code}m{shown}{RESET}" if code and shown else shown)
    is_rtl = isolated(completion) != completion
    colored = "".join(pieces)
    return f"{DIM}{isolated(prompt)}|{RESET}" + (f"\u2068{colored}\u2069" if is_rtl else colored)


def _color(reward: float, largest: float, prob: float) -> str:
    """Return SGR parameters."""
    if reward == reward and reward != 0.0:
        shades = GREENS if reward > 0 else REDS
        return f"38;5;15;48;5;{shades[min(2, int(abs(reward) / largest * 3))]}"
    return "35" if prob < 0.01 else "33" if prob < 0.1 else ""


def printable(text: str) -> str:
    """Return ``text`` with backslash escapes for the characters that the encoding of stdout does not have."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class LiveLine:
    """A line on stdout that each state overwrites: step, reward and the end of the text.

    The line fits the terminal, and is finished when the episode has ended. Characters that the encoding of stdout does
    not have are written as backslash escapes.
    """

    def __init__(self) -> None:
        self._width = 0  # of the unfinished line

    def show(self, state: RenderState) -> None:
        """Write the line of ``state``.

        Raises:
            OSError: If stdout cannot be written.
        """
        stream = sys.stdout
        if stream is None:  # without a console
            return
        if state.step == 0 and state.end_reason is None and self._width:
            stream.write("\n")  # the episode before was not finished
            self._width = 0
        columns = shutil.get_terminal_size().columns - 1
        status = f"{state.status}  "
        text = printable(display_text(f"{state.prompt}|{state.completion}", one_line=True))
        text = _tail(text, max(columns - len(status), 0), printable("\u2026"))
        line = (status + printable(isolated(text)))[: columns if not text else None]
        width = len(status) + sum(map(_cells, text))
        ended = state.end_reason is not None
        stream.write(f"\r{line}{' ' * (self._width - width)}" + ("\n" if ended else ""))
        stream.flush()
        self._width = 0 if ended else width


def _tail(text: str, columns: int, ellipsis: str) -> str:
    """Return the end of ``text`` that fits ``columns`` cells, with an ellipsis if that is not all."""
    if sum(map(_cells, text)) <= columns:
        return text
    left = columns - len(ellipsis)
    start = len(text)
    while start and left >= _cells(text[start - 1]):
        start -= 1
        left -= _cells(text[start])
    return ellipsis + text[start:] if columns >= len(ellipsis) else ""


def _cells(character: str) -> int:
    """Return the number of cells that a terminal uses for a character."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
