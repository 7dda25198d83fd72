"""What there is to write about. ``world`` is the procedural story world from which the embedded LM learned."""

from textgym.tasks import world

__all__ = ["world"]
