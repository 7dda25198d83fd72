"""Language models: loading, sampling, an incremental forward for acting and a whole-sequence forward for learning.

Two language models are embedded in the package: ``tiny``, the default policy, and ``tiny-early``, which is smaller
and stopped early in its training. Both have the same tokenizer, in which each word of their training text is one token.

Importing textgym does not import torch; this package does, and so do users and scorers that are models (``LMUser``,
``Fluency``, ``RewardModel``) when they are used.
"""

from textgym.errors import install_hint

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(f"language models need torch and transformers: {install_hint('agents')}") from error

from textgym.lm.forward import WholeSequenceForward
from textgym.lm.model import lm_head_hook, load_lm, no_progress_bars, random_lm
from textgym.lm.reference import ReferenceLM
from textgym.lm.sampling import log_prob, sample
from textgym.lm.stream import LMStream, StreamOutput

__all__ = [
    "LMStream",
    "ReferenceLM",
    "StreamOutput",
    "WholeSequenceForward",
    "lm_head_hook",
    "load_lm",
    "log_prob",
    "no_progress_bars",
    "random_lm",
    "sample",
]
