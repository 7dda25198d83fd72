"""How a text reads to a language model or beside other texts: fluency, coherence, novelty."""

from textgym.scorers.fluency.coherence import Coherence
from textgym.scorers.fluency.fluency import Fluency
from textgym.scorers.fluency.novelty import Novelty
from textgym.scorers.fluency.self_bleu import SelfBLEU

__all__ = ["Coherence", "Fluency", "Novelty", "SelfBLEU"]
