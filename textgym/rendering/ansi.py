"""An episode as a line of text for a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textgym.envs.core import Core

__all__ = ["render_ansi"]


def render_ansi(core: "Core", slot: int) -> str:
    """Return the prompt, a bar, and the completion so far of one slot.

    An empty string before the first reset.
    """
    end = core.lengths[slot]
    start = core.prompt_lengths[slot]
    completion = core.parts.tokenizer.decode(core.ids[slot, start:end].tolist())
    return f"{core.samples[slot].prompt}|{completion}" if end else ""
