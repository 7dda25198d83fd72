"""How texts of a model are shown.

display     text and tokens in a form that is safe to print: controls and invisible characters made visible
state       what is shown of an episode
terminal    an episode as coloured text, or as one line that is updated in place
frames      an episode as a picture (needs Pillow)
"""

from textgym.rendering.display import display_text, display_token, isolated
from textgym.rendering.frames import FrameRenderer, default_renderer
from textgym.rendering.state import RenderState
from textgym.rendering.terminal import LiveLine, colors_wanted, printable, terminal_text

__all__ = [
    "FrameRenderer",
    "LiveLine",
    "RenderState",
    "colors_wanted",
    "default_renderer",
    "display_text",
    "display_token",
    "isolated",
    "printable",
    "terminal_text",
]
