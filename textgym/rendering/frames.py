"""Episodes as pictures, for videos."""

import math
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.errors import install_hint
from textgym.rendering.display import display_text
from textgym.rendering.state import RenderState

__all__ = ["FrameRenderer", "default_renderer"]

FONT = Path(__file__).parent / "DejaVuSansMono.ttf"
"""Latin, Greek, Cyrillic, Arabic (without joining) and symbols; its licence is in LICENSE_DEJAVU."""

BACKGROUND, PAPER, TRACK = (246, 246, 243), (255, 255, 255), (222, 222, 216)
TEXT, PROMPT, STATUS = (25, 25, 25), (150, 150, 145), (90, 90, 86)
NEWEST, GOOD, BAD = (255, 214, 92), (120, 200, 130), (235, 130, 120)
BUDGET = (120, 160, 215)
DELETE = "\u2421"
MARGIN = 10

Cell = tuple[str, tuple[int, int, int], tuple[int, int, int]]
"""A character with its combining marks, its colour and its background."""


class FrameRenderer:
    """Draws episodes: status and budget above, the wrapped text, a bar of reward or score below.

    The prompt is grey, the newest token has a yellow background, the others one by their reward, green or red. A text
    too long for the picture is scrolled. A character that the font lacks is written as ``<U+4E2D>``. Letters are drawn
    from left to right in the order of the text, in right-to-left scripts too.

    Args:
        width: Pixels.
        height: Pixels.
        font_size: Pixels per em.

    Raises:
        ImportError: If Pillow is not installed.
        ValueError: If the picture is too small for a few lines of text.
    """

    def __init__(self, width: int = 640, height: int = 240, font_size: int = 20) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError(f"render_mode='rgb_array' needs Pillow: {install_hint('render')}") from error
        self._image, self._draw = Image, ImageDraw
        self._font = ImageFont.truetype(str(FONT), font_size, layout_engine=ImageFont.Layout.BASIC)
        self._cell = (sum(self._font.getmetrics()), round(self._font.getlength("m")))  # height, width
        self._columns = (width - 2 * MARGIN) // self._cell[1]
        self._header = self._cell[0] + 12
        self._rows = (height - self._header - 2 * MARGIN - 14) // self._cell[0]
        if self._rows < 2 or self._columns < 20:
            raise ValueError(f"a picture of {width} x {height} has no room for text of {font_size} pixels")
        self.width, self.height = width, height
        self._top = self._header + MARGIN // 2 + 4  # of the text
        self._empty = np.empty((height, width, 3), dtype=np.uint8)
        self._empty[:] = BACKGROUND
        self._empty[self._top - 4 : self._top + 4 + self._rows * self._cell[0], MARGIN - 4 : 4 - MARGIN] = PAPER
        self._missing = self._mask("\uffff")
        self._has_glyph: dict[str, bool] = {" ": True}
        self._indices: dict[str, int] = {" ": 0}
        self._glyphs = np.zeros((1, *self._cell), dtype=np.uint16)  # coverage of each character, 0 to 256

    def __call__(self, state: RenderState, title: str = "") -> npt.NDArray[np.uint8]:
        """Return (height, width, 3) uint8.

        Args:
            state: The episode.
            title: Text at the right of the status, where there is room.
        """
        frame = self._empty.copy()
        status = state.status
        if title and len(status) + 2 + len(title) > self._columns:
            status = status.rpartition("  ")[0]  # without the end reason
        header = display_text(status + f"{title:>{max(0, self._columns - len(status))}}", one_line=True)
        self._put(frame, 6, [[(c, STATUS, BACKGROUND) for c in self._characters(header)][: self._columns]], BACKGROUND)
        self._bar(frame, self._header - 4, 3, 0.0, min(1.0, state.step / state.max_steps), BUDGET)
        lines = self._wrapped(list(self._cells(state)))
        if len(lines) > self._rows:
            lines = lines[-self._rows :]
            lines[0] = [("\u2026", PROMPT, PAPER), *lines[0][1:]]
        self._put(frame, self._top, lines, PAPER)
        self._reward_bar(frame, state)
        return frame

    def _cells(self, state: RenderState) -> Iterator[Cell]:
        """Return the cells of the text, newlines among them."""
        for character in self._characters(display_text(state.prompt)):
            yield character, PROMPT, PAPER
        newest = max((i for i, token in enumerate(state.tokens) if token), default=-1)
        largest = max((abs(reward) for reward in state.rewards if reward == reward), default=0.0)
        for i, token in enumerate(state.tokens):
            reward = state.rewards[i] if state.rewards else 0.0
            background = PAPER
            if i == newest and state.end_reason is None:
                background = NEWEST
            elif reward == reward and reward != 0.0:
                background = _mixed(PAPER, GOOD if reward > 0 else BAD, 0.3 + 0.7 * abs(reward) / largest)
            for character in self._characters(display_text(token)):
                yield character, TEXT, background

    def _characters(self, text: str) -> Iterator[str]:
        """Return characters with their combining marks; those without a glyph as the characters of their code."""
        current = ""
        for character in unicodedata.normalize("NFC", text):
            if current and unicodedata.combining(character) and self._drawable(character):
                current += character
                continue
            if current:
                yield current
            current = ""
            if character == "\n":
                yield character
            elif character == "\t":
                yield "\u21e5"
            elif unicodedata.category(character) == "Zs":
                yield " "
            elif self._drawable(character):
                current = character
            elif "\u2400" <= character <= DELETE:  # the picture of a control character
                yield from f"<U+{0x7F if character == DELETE else ord(character) - 0x2400:04X}>"
            elif character not in "\ufe0e\ufe0f":  # after an emoji
                yield from f"<U+{ord(character):04X}>"
        if current:
            yield current

    def _drawable(self, character: str) -> bool:
        if character not in self._has_glyph:
            self._has_glyph[character] = self._mask(character) != self._missing
        return self._has_glyph[character]

    def _mask(self, character: str) -> tuple[Any, bytes]:
        mask = self._font.getmask(character)
        return mask.size, bytes(mask)

    def _wrapped(self, cells: list[Cell]) -> list[list[Cell]]:
        """Return lines of at most ``columns`` cells, broken after spaces where possible."""
        lines: list[list[Cell]] = [[]]
        for cell in cells:
            line = lines[-1]
            if cell[0] == "\n":
                lines.append([])
                continue
            if len(line) == self._columns:
                if cell[0] == " ":
                    lines.append([])
                    continue
                space = max((i for i, c in enumerate(line) if c[0] == " "), default=-1)
                carried = line[space + 1 :] if space >= self._columns // 2 else []
                lines[-1] = line[: len(line) - len(carried)]
                line = carried
                lines.append(line)
            line.append(cell)
        return lines

    def _put(
        self, frame: npt.NDArray[np.uint8], top: int, lines: list[list[Cell]], background: tuple[int, int, int]
    ) -> None:
        """Draw lines of cells, the first one at ``top``."""
        rows, columns, (height, width) = len(lines), max(map(len, lines)), self._cell
        indices = np.zeros((rows, columns), dtype=np.int64)
        colors = np.zeros((rows, columns, 3), dtype=np.uint16)
        behind = np.full((rows, columns, 3), background, dtype=np.uint16)
        for i, line in enumerate(lines):
            for j, (character, color, below) in enumerate(line):
                indices[i, j] = self._index(character)
                colors[i, j], behind[i, j] = color, below
        coverage = self._glyphs[indices].transpose(0, 2, 1, 3)  # rows, height, columns, width
        region = frame[top : top + rows * height, MARGIN : MARGIN + columns * width]
        for channel in range(3):
            ink, paper = colors[:, None, :, None, channel], behind[:, None, :, None, channel]
            mixed = (paper * (256 - coverage) + ink * coverage) >> 8
            region[..., channel] = mixed.reshape(rows * height, columns * width)

    def _index(self, character: str) -> int:
        """Return the row of ``_glyphs`` of a character with its combining marks, drawing it at the first time."""
        index = self._indices.get(character)
        if index is None:
            height, width = self._cell
            tile = self._image.new("L", (width, height))
            for mark in character:
                self._draw.Draw(tile).text((0, 0), mark, font=self._font, fill=255)
            index = self._indices[character] = len(self._glyphs)
            coverage = np.asarray(tile, dtype=np.uint16)
            self._glyphs = np.concatenate([self._glyphs, (coverage + (coverage >> 7))[None]])
        return index

    def _bar(
        self, frame: npt.NDArray[np.uint8], top: int, height: int, start: float, end: float, color: tuple[int, int, int]
    ) -> None:
        """Draw a bar from ``start`` to ``end``, shares of its width."""
        left, length = MARGIN, self.width - 2 * MARGIN
        frame[top : top + height, left : left + length] = TRACK
        frame[top : top + height, left + round(start * length) : left + round(end * length)] = color

    def _reward_bar(self, frame: npt.NDArray[np.uint8], state: RenderState) -> None:
        value = state.total_reward if state.score is None else state.score
        low, high = state.reward_range
        value = 0.0 if math.isnan(value) else min(max(value, low), high)
        zero, place = ((min(max(v, low), high) - low) / (high - low) for v in (0.0, value))
        color = GOOD if value >= 0 else BAD
        self._bar(frame, self.height - MARGIN - 8, 8, min(zero, place), max(zero, place), color)


@lru_cache(maxsize=1)
def default_renderer() -> FrameRenderer:
    """Return the renderer of ``render_mode="rgb_array"``, one per process.

    Raises:
        ImportError: If Pillow is not installed.
    """
    return FrameRenderer()


def _mixed(one: tuple[int, int, int], other: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
