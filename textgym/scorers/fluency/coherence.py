"""Similarity of a completion to its prompt."""

from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.embeddings import as_embedder

__all__ = ["Coherence"]


class Coherence(Scorer):
    """Cosine similarity of prompt and completion in an embedding model: 1 the same topic, 0 unrelated.

    Formula: the dot product of the two unit vectors. Range: [-1, 1]. An empty completion, or one without a vector,
    scores 0; NaN where the prompt has no vector. Deterministic. Not incremental. Reads the first 2,000 characters. It
    can be hacked by repeating the prompt or its words: combine it with a scorer of repetition.

    Source: Foltz, Kintsch and Landauer, The measurement of textual coherence with latent semantic analysis, Discourse
    Processes 25, 1998

    Args:
        embedder: What ``textgym.scorers.embeddings.as_embedder`` accepts: ``"wordllama"``, an encoder's name or
            folder, a pair of model and tokenizer, or any function from texts to vectors.

    Raises:
        TypeError: If ``embedder`` is none of these.
        ValueError: If there is no encoder of that name on this machine.
        ImportError: If wordllama, or torch or transformers for an encoder, is missing.

    >>> prompts = ["The dog was hungry."] * 3
    >>> Coherence()(TextBatch.from_texts(["So it ate its food.", "Interest rates fell.", ""], prompts)).round(2)
    array([ 0.31, -0.01,  0.  ])
    """

    score_range = (-1.0, 1.0)

    def __init__(self, embedder: Any = "wordllama") -> None:
        self.embedder = as_embedder(embedder)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        if len(batch) == 0:
            return np.zeros(0)
        prompts = dict.fromkeys(batch.prompts)
        vectors = self.embedder([*prompts, *batch.completions])
        rows = {prompt: i for i, prompt in enumerate(prompts)}
        prompt_vectors = vectors[[rows[prompt] for prompt in batch.prompts]].astype(np.float64)
        cosines = np.clip((prompt_vectors * vectors[len(prompts) :]).sum(axis=1), -1.0, 1.0)
        return np.where(prompt_vectors.any(axis=1), cosines, np.nan)
