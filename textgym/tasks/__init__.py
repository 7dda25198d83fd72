"""What there is to write about.

probes  small environments with a known optimum, which test an agent
world   the procedural story world from which the embedded LM learned
"""

from textgym.tasks import probes, world

__all__ = ["probes", "world"]
