"""How texts of a model are shown.

display     text and tokens in a form that is safe to print: controls and invisible characters made visible
"""

from textgym.rendering.display import display_text, display_token, isolated

__all__ = ["display_text", "display_token", "isolated"]
