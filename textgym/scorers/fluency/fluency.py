"""Log-probability of a text under a language model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.scorers.base import FloatArray, Range, Scorer
from textgym.tokenizers import Tokenizer

if TYPE_CHECKING:
    from textgym.scorers.fluency.language_model import TokenStream

__all__ = ["Fluency"]

State = tuple[float, int]
"""Sum of the log-probabilities in nats, and the number of tokens."""


class Fluency(Scorer):
    """Mean log-probability of the completion's tokens under a language model, or inverse perplexity.

    Formula: with m the mean of ``log p(token | all before it)`` over the completion's tokens, m itself
    (``scale="log_prob"``, nats per token) or ``exp(m)``, which is 1 / perplexity (``scale="probability"``).
    Range: [-100, 0], because a token counts -100 nats at least, or [0, 1]. An empty completion scores like a uniform
    guess among the V tokens of the model's vocabulary, ``-log V`` or ``1 / V``. A chosen EOS counts as a token, so
    ending where the model would not lowers the score. Deterministic.

    Where the ids of the batch mean the same tokens to the model, it is given those ids. Otherwise prompt and
    completion are encoded separately by the model's tokenizer, 2,000 characters of each, and a chosen EOS becomes the
    model's. An empty prompt is replaced by BOS, or EOS if there is none. A text with more tokens than the model has
    positions keeps the end of the prompt, up to half of them, and the beginning of the completion; the rest is not
    scored.

    Incremental: each token costs the model one token, with a KV cache for each of ``batch.slots`` (without slots, for
    each row of the batch). A state holds a sum and a count; a text that is not in the cache is fed again. A text that
    has to be encoded again is scored in full at each token.

    A language model prefers repetitions and its own style. ``"tiny"`` was trained on a small world of stories and finds
    all other English about equally unlikely: use it for policies that started as ``"tiny"``, and a larger model
    otherwise.

    Source: Jelinek et al., Perplexity - a measure of the difficulty of speech recognition tasks, JASA 62, 1977

    Args:
        model: ``"tiny"``, a folder, a GGUF file or a Hugging Face name: loaded once for all scorers that use it and
            not pickled. Or a loaded causal LM, which is copied, so that training it does not change the scores, and
            pickled with its weights.
        tokenizer: The tokenizer of a loaded model.
        scale: ``"log_prob"`` or ``"probability"``.

    Raises:
        ValueError: If the scale or the model is unknown; when called, for an empty prompt if the model's tokenizer has
            neither a BOS nor an EOS.
        TypeError: If a loaded model comes without its tokenizer, or a name with one.
        ImportError: If torch or transformers is missing.

    >>> texts = ["The sun shone on the roofs.", "Roofs the on shone sun the."]
    >>> sentence, jumbled = Fluency()(TextBatch.from_texts(texts))
    >>> bool(sentence > jumbled + 5)
    True
    """

    incremental = True

    def __init__(
        self,
        model: Any = "tiny",
        *,
        tokenizer: Any = None,
        scale: Literal["log_prob", "probability"] = "log_prob",
    ) -> None:
        if scale not in ("log_prob", "probability"):
            raise unknown_name("scale", scale, ["log_prob", "probability"])
        is_name = isinstance(model, str | Path)
        if is_name and tokenizer is not None:
            raise TypeError(f"model={str(model)!r} has its own tokenizer; leave out tokenizer={tokenizer!r}")
        if not is_name and (tokenizer is None or not callable(getattr(model, "get_output_embeddings", None))):
            raise TypeError(
                f"expected a model's name, or a loaded causal LM and tokenizer=..., got model of type "
                f"{type(model).__name__} and tokenizer of type {type(tokenizer).__name__}"
            )
        import textgym.lm  # noqa: F401  its error tells how to install torch
        from textgym.scorers.fluency.language_model import LanguageModel

        self.scale = scale
        self._name = str(model) if is_name else None
        self._lm = LanguageModel.of(model, tokenizer) if self._name is None else LanguageModel.load(self._name)
        self._stream: TokenStream | None = None
        self._compared: tuple[Tokenizer, bool] | None = None

    @property
    def score_range(self) -> Range:  # type: ignore[override]
        """Lowest and highest score."""
        return (-100.0, 0.0) if self.scale == "log_prob" else (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        return self.value(self.begin(batch), batch)

    def token_log_probs(self, batch: TextBatch) -> list[FloatArray]:
        """Return B arrays, ``log p(token | all before it)`` in nats of each token that the score counts.

        If ``reads_ids(batch)``, they are those of the completion, up to the last position of the model.
        """
        return self._lm.token_log_probs(self._lm.tokenize(batch, self.reads_ids(batch)))

    def begin(self, batch: TextBatch) -> list[State]:
        """Return B sums and counts, from whole-sequence forward passes."""
        texts = self._lm.tokenize(batch, self.reads_ids(batch))
        sums = self._lm.log_probs(texts).tolist()
        return [(total, len(text.completion)) for total, text in zip(sums, texts, strict=True)]

    def advance(self, states: Sequence[State], batch: TextBatch) -> list[State]:
        """Return B sums and counts, one token later."""
        if not self.reads_ids(batch):
            return self.begin(batch)
        texts = self._lm.tokenize(batch, own_ids=True)
        advanced = list(states)
        # A token beyond the model's last position is ignored.
        longer = [i for i, text in enumerate(texts) if len(text.completion) > states[i][1]]
        if longer:
            slots = np.arange(len(batch)) if batch.slots is None else batch.slots
            if self._stream is None:
                from textgym.scorers.fluency.language_model import TokenStream

                self._stream = TokenStream(self._lm)
            found = self._stream.log_probs([texts[i] for i in longer], slots[longer])
            for i, nats in zip(longer, found.tolist(), strict=True):
                advanced[i] = (states[i][0] + nats, states[i][1] + 1)
        return advanced

    def value(self, states: Sequence[State], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the scores at the sums and counts."""
        guess = -math.log(self._lm.tokenizer.vocab_size)
        means = np.array([total / count if count else guess for total, count in states], dtype=np.float64)
        means = np.minimum(means, 0.0)
        return means if self.scale == "log_prob" else np.exp(means)

    def reads_ids(self, batch: TextBatch) -> bool:
        """Return whether the ids of the batch mean the same tokens to the model, which then is given them."""
        if self._compared is None or self._compared[0] is not batch.tokenizer:
            self._compared = (batch.tokenizer, self._lm.has_vocabulary_of(batch.tokenizer))
        return self._compared[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Fluency":
        """Return a copy that shares the model and has its own KV cache."""
        twin = object.__new__(type(self))
        twin.__dict__ |= self.__dict__ | {"_stream": None}
        return twin

    def __getstate__(self) -> dict[str, Any]:
        dropped: dict[str, Any] = {"_stream": None, "_compared": None}
        return self.__dict__ | dropped | ({} if self._name is None else {"_lm": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self._name is not None:
            from textgym.scorers.fluency.language_model import LanguageModel

            self._lm = LanguageModel.load(self._name)
