"""A reward model trained on preference pairs."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scorer
from textgym.scorers.learned.arguments import as_config
from textgym.scorers.learned.preferences import (
    PreferencePair,
    PreferenceReport,
    PreferenceSettings,
    as_pair,
    read_pairs,
)
from textgym.tokenizers import as_tokenizer

if TYPE_CHECKING:
    from textgym.scorers.learned.preference_model import PreferenceModel

__all__ = ["BradleyTerry"]


class BradleyTerry(Scorer):
    """The reward that a language model with a scalar head has learnt from pairs of a better and a worse completion.

    Formula: ``r = w . h + b`` with h the hidden state, as the model's output head would read it, of the last token of
    BOS + prompt + completion + EOS, as far as the tokenizer has these; learnt by minimising
    ``-log sigmoid(r(chosen) - r(rejected))``, so that ``sigmoid(r(x) - r(y))`` is the probability that x is preferred.
    Range: all numbers; 0 is the mean over the training texts. An empty completion scores what the model has learnt of
    it. Deterministic. Not incremental. Text is read, not ids: it is encoded by the model's own tokenizer, up to 2,000
    characters of the end of the prompt and of the beginning of the completion, and as many tokens as it has positions.
    Pickles take the weights with them; copies share them, for they never change.

    A reward model is right about texts like those of its pairs. A policy that is trained on it for long leaves them,
    and finds what the model wrongly likes: keep it near its start with ``kl_coef``.

    Sources: Bradley and Terry, Rank Analysis of Incomplete Block Designs, Biometrika 39, 1952; Christiano et al.,
    Deep Reinforcement Learning from Human Preferences, NeurIPS 2017, https://arxiv.org/abs/1706.03741; the hacking: Gao
    et al., Scaling Laws for Reward Model Overoptimization, ICML 2023, https://arxiv.org/abs/2210.10760

    >>> words = ["good", "fine", "nice", "bad", "poor", "sad"]
    >>> pairs = [{"prompt": "It was ", "chosen": a, "rejected": b} for a in words[:3] for b in words[3:]]
    >>> scorer = BradleyTerry.train(pairs, PreferenceSettings(held_out=0, epochs=8))
    >>> good, bad = scorer(TextBatch.from_texts(["fine", "poor"], ["It was "] * 2))
    >>> bool(good > bad), scorer.report.training_accuracy
    (True, 1.0)
    """

    def __init__(
        self,
        reward_model: "PreferenceModel",
        settings: PreferenceSettings | None = None,
        report: PreferenceReport | None = None,
    ) -> None:
        if not isinstance(settings, PreferenceSettings) or not isinstance(report, PreferenceReport):
            given = (
                repr(str(reward_model)) if isinstance(reward_model, str | Path) else f"a {type(reward_model).__name__}"
            )
            raise TypeError(
                f"got {given}; expected BradleyTerry.load(folder) for a saved one, or BradleyTerry.train(pairs)"
            )
        self._model = reward_model
        self.settings = settings
        """How it was trained."""
        self.report = report
        """What came of that."""

    @classmethod
    def train(
        cls,
        pairs: str | Path | Iterable[PreferencePair | Mapping[str, Any]],
        settings: PreferenceSettings | None = None,
        *,
        model: Any = "tiny",
        tokenizer: Any = None,
    ) -> "BradleyTerry":
        """Learn from pairs.

        The same pairs, settings and number of threads give the same weights. No global generator is used.

        Args:
            pairs: A JSONL file, which :func:`read_pairs` reads; or pairs; or mappings with the texts ``prompt``,
                ``chosen`` and ``rejected``, such as the rows of a data set.
            settings: By default all weights learn, three times from each pair, a tenth of which is held out.
            model: ``"tiny"``, a folder, a Hugging Face name, or a loaded causal LM, which is copied.
            tokenizer: The tokenizer of a model that is given loaded.

        Returns:
            The scorer; ``report`` says how often it is right about the held-out pairs.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If there are no pairs, one lacks a column or prefers a text to itself, or the model is unknown.
            TypeError: If the settings are no :class:`PreferenceSettings`, a loaded model comes without its tokenizer,
                or a name with one.
            ImportError: If torch or transformers is missing.
        """
        settings = as_config(settings, PreferenceSettings, "settings")
        if isinstance(pairs, str | Path):
            pairs = read_pairs(pairs)
        rows = [as_pair(row, f"pair {i}") for i, row in enumerate(pairs)]
        if not rows:
            raise ValueError("expected at least one pair, got none")
        is_name = isinstance(model, str | Path)
        if is_name != (tokenizer is None):
            given = repr(str(model)) if is_name else f"a {type(model).__name__}"
            raise TypeError(
                f"tokenizer=... goes with a loaded model, and only with one; got {given} and tokenizer={tokenizer!r}"
            )
        from textgym.lm import load_lm  # imports torch
        from textgym.scorers.learned.preference_model import PreferenceModel, fit, new_head

        trunk = load_lm(model) if is_name else copy.deepcopy(load_lm(model))
        width = trunk.config.get_text_config(decoder=True).vocab_size
        found = as_tokenizer(str(model)) if is_name else as_tokenizer(tokenizer, vocab_size=width)
        weight = trunk.get_output_embeddings().weight
        reward_model = PreferenceModel(trunk, found, new_head(weight.shape[1], weight.device))
        return cls(reward_model, settings, fit(reward_model, rows, settings))

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        texts = zip(batch.prompts, batch.completions, strict=True)
        return self._model.rewards([self._model.encode(prompt, text) for prompt, text in texts])

    def __deepcopy__(self, memo: dict[int, Any]) -> "BradleyTerry":
        """Return the scorer itself: it does not change."""
        return self

    def save(self, folder: str | Path) -> None:
        """Write a folder that :meth:`load` reads: weights as safetensors, the rest as JSON, nothing that is executed.

        ``trunk/`` in it is a Hugging Face folder with the model as it is now, and its tokenizer.

        Raises:
            FileExistsError: If there is a file of that name, or a folder that holds something else.
            ValueError: If the tokenizer is none of Hugging Face's and not ``"byte"``: others have no file format.
        """
        from textgym.scorers.learned.preference_model import write_reward_model

        write_reward_model(Path(folder), self._model, self.settings, self.report)

    @classmethod
    def load(cls, folder: str | Path) -> "BradleyTerry":
        """Return the scorer that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If the folder holds none.
            ValueError: If it is damaged, or of another format.
            ImportError: If torch or transformers is missing.
        """
        from textgym.scorers.learned.preference_model import read_reward_model

        return cls(*read_reward_model(Path(folder)))
