"""How near a text is to references, or to its source; a sample without them scores NaN: the scorer does not apply."""

from textgym.scorers.reference.answers import ExactMatch, TokenF1
from textgym.scorers.reference.compression import Compression
from textgym.scorers.reference.edits import EditSimilarity
from textgym.scorers.reference.embedding_similarity import EmbeddingSimilarity
from textgym.scorers.reference.faithfulness import Faithfulness
from textgym.scorers.reference.overlap import BLEU, TER, ChrF
from textgym.scorers.reference.rouge import ROUGE

__all__ = [
    "BLEU",
    "ROUGE",
    "TER",
    "ChrF",
    "Compression",
    "EditSimilarity",
    "EmbeddingSimilarity",
    "ExactMatch",
    "Faithfulness",
    "TokenF1",
]
