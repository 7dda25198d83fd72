"""Language models: loading, sampling, an incremental forward over many texts, and one over whole texts for learning.

Only this imports torch.
"""

from textgym.errors import install_hint

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(f"language models need torch and transformers: {install_hint('agents')}") from error

from textgym.lm.heads import head_input
from textgym.lm.loading import load_lm, no_progress_bars
from textgym.lm.random import random_lm
from textgym.lm.reference import ReferenceLM
from textgym.lm.sampling import log_prob, sample
from textgym.lm.stream import LMStream, StreamOutput
from textgym.lm.whole import WholeTexts

__all__ = [
    "LMStream",
    "ReferenceLM",
    "StreamOutput",
    "WholeTexts",
    "head_input",
    "load_lm",
    "log_prob",
    "no_progress_bars",
    "random_lm",
    "sample",
]
