"""What a person sees of an episode."""

from textgym.rendering.ansi import render_ansi

__all__ = ["render_ansi"]
