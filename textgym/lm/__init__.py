"""Language models: loading them, and one incremental forward over many texts. The only part of textgym that imports torch."""

from .head import head_input
from .loading import load_lm
from .reference import ReferenceLM
from .sampling import log_prob, sample
from .stream import LMStream, StreamOutput

__all__ = ["LMStream", "ReferenceLM", "StreamOutput", "head_input", "load_lm", "log_prob", "sample"]
