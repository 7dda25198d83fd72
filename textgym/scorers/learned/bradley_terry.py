"""Reward model trained on preference pairs."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_config
from textgym.scorers.base import FloatArray, Scorer
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
    """Reward of a language model with a scalar head that was trained on preference pairs.

    Formula: ``r = w . h + b``, with h the hidden state (the input of the LM head) of the last token of BOS + prompt +
    completion + EOS, as far as the tokenizer has these; trained on ``-log sigmoid(r(chosen) - r(rejected))``, so that
    ``sigmoid(r(x) - r(y))`` is the probability that x is preferred. Range: all numbers; the training texts have mean 0.
    Empty completion: as trained. Deterministic. Not incremental. Texts are encoded by the model's own tokenizer: the
    last 2,000 characters of the prompt and the first 2,000 of the completion, up to the model's number of positions.
    Pickles contain the weights; copies share them.

    Valid for texts like those of its pairs. A long-trained policy leaves them and exploits its errors: use ``kl_coef``.

    Sources: Bradley and Terry, Rank Analysis of Incomplete Block Designs, Biometrika 39, 1952; Christiano et al., Deep
    Reinforcement Learning from Human Preferences, NeurIPS 2017, https://arxiv.org/abs/1706.03741; overoptimization: Gao
    et al., Scaling Laws for Reward Model Overoptimization, ICML 2023, https://arxiv.org/abs/2210.10760

    >>> words = [" good", " fine", " nice", " bad", " poor", " sad"]
    >>> pairs = [{"prompt": "It was", "chosen": a, "rejected": b} for a in words[:3] for b in words[3:]]
    >>> scorer = BradleyTerry.train(pairs, PreferenceSettings(held_out=0, epochs=8))
    >>> good, bad = scorer(TextBatch.from_texts([" fine", " poor"], ["It was"] * 2))
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
        """Settings it was trained with."""
        self.report = report
        """Result of the training."""

    @classmethod
    def train(
        cls,
        pairs: str | Path | Iterable[PreferencePair | Mapping[str, Any]],
        settings: PreferenceSettings | None = None,
        *,
        model: Any = "tiny",
        tokenizer: Any = None,
    ) -> "BradleyTerry":
        """Train on pairs.

        The same pairs, settings and number of threads give the same weights. No global generator is used.

        Args:
            pairs: A JSONL file for ``read_pairs``; or pairs; or mappings with the texts ``prompt``, ``chosen`` and
                ``rejected``, such as the rows of a data set.
            settings: By default, all weights are trained for three epochs, and a tenth of the pairs is held out.
            model: ``"tiny"``, a folder, a Hugging Face name, or a loaded causal LM, which is copied.
            tokenizer: The tokenizer of a loaded model.

        Returns:
            The scorer; ``report`` has its accuracy on the held-out pairs.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If there are no pairs, one lacks a column or has equal completions, or the model is unknown.
            TypeError: If ``settings`` is not a ``PreferenceSettings``, or a loaded model comes without its
                tokenizer, or a name with one.
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

        backbone = load_lm(model) if is_name else copy.deepcopy(load_lm(model))
        width = backbone.config.get_text_config(decoder=True).vocab_size
        found = as_tokenizer(str(model)) if is_name else as_tokenizer(tokenizer, vocab_size=width)
        weight = backbone.get_output_embeddings().weight
        reward_model = PreferenceModel(backbone, found, new_head(weight.shape[1], weight.device))
        return cls(reward_model, settings, fit(reward_model, rows, settings))

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        texts = zip(batch.prompts, batch.completions, strict=True)
        return self._model.rewards([self._model.encode(prompt, text) for prompt, text in texts])

    def __deepcopy__(self, memo: dict[int, Any]) -> "BradleyTerry":
        """Return the scorer itself: it is immutable."""
        return self

    def save(self, folder: str | Path) -> None:
        """Write a folder for ``load``: weights as safetensors, the rest as JSON.

        Its subfolder ``backbone/`` is a Hugging Face model with its tokenizer.

        Raises:
            FileExistsError: If there is a file of that name, or a folder with other content.
            ValueError: If the tokenizer is neither one of Hugging Face's nor ``"byte"``: others have no file format.
        """
        from textgym.scorers.learned.preference_model import write_reward_model

        write_reward_model(Path(folder), self._model, self.settings, self.report)

    @classmethod
    def load(cls, folder: str | Path) -> "BradleyTerry":
        """Load a scorer that ``save`` wrote.

        Raises:
            FileNotFoundError: If the folder holds none.
            ValueError: If it is damaged, or of another format.
            ImportError: If torch or transformers is missing.
        """
        from textgym.scorers.learned.preference_model import read_reward_model

        return cls(*read_reward_model(Path(folder)))
