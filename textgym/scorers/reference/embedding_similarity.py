"""Whether a text means what a reference means."""

from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.embeddings import as_embedder
from textgym.scorers.text import cleaned

__all__ = ["EmbeddingSimilarity"]


class EmbeddingSimilarity(Scorer):
    """Cosine of the embeddings of the completion and its best reference, nothing below 0.

    Formula: ``max(0, cos(completion, reference))``. Range: [0, 1]; a negative cosine says no more than 0 does. Reads
    the first 2,000 characters of each text. An empty completion scores 0; a sample without references NaN.
    Deterministic, of a network up to rounding. Not incremental.

    wordllama takes microseconds, and tells what a text is about: unrelated texts are near 0, but "I love it" is not far
    from "I hate it", and the order of words makes no difference. A sentence encoder such as all-MiniLM-L6-v2 is more
    accurate and far slower. Both are hacked by a heap of the reference's words: join it with a scorer of repetition or
    fluency.

    Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, https://arxiv.org/abs/1908.10084;
    https://github.com/dleemiller/WordLlama

    Args:
        embedder: ``"wordllama"``, the name or folder of a Hugging Face encoder that is on this machine, a pair of a
            loaded one and its tokenizer, or a function; see :func:`textgym.scorers.embeddings.as_embedder`.

    Raises:
        ImportError: If a package is missing: wordllama, or torch and transformers.
        TypeError, ValueError: If there is no such embedder.

    >>> texts = ["A kitten was sitting on a rug.", "Stock prices fell.", ""]
    >>> EmbeddingSimilarity()(TextBatch.from_texts(texts, references=[["The cat sat on the mat."]] * 3)).round(1)
    array([0.4, 0. , 0. ])
    """

    score_range = (0.0, 1.0)

    def __init__(self, embedder: Any = "wordllama") -> None:
        self.embedder = as_embedder(embedder)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        scores = np.full(len(batch), np.nan)
        texts = batch.derived(cleaned)
        pairs = [(i, cleaned(reference)) for i, references in enumerate(batch.references) for reference in references]
        if pairs:
            rows = np.array([i for i, _ in pairs])
            row_of = {
                text: row for row, text in enumerate(dict.fromkeys([r for _, r in pairs] + [texts[i] for i in rows]))
            }
            vectors = self.embedder(list(row_of)).astype(np.float64)
            first = vectors[[row_of[texts[i]] for i in rows]]
            cosines = (first * vectors[[row_of[reference] for _, reference in pairs]]).sum(axis=1)
            np.fmax.at(scores, rows, np.clip(cosines, 0.0, 1.0))  # fmax: a number beats the NaN that is there
        return scores
