"""Reward model: a Hugging Face sequence classifier, or a function in its place."""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError, foreign_code, install_hint, unknown_name
from textgym.scorers.arguments import as_config, as_count
from textgym.scorers.base import FloatArray, Range, Scorer
from textgym.scorers.evaluation import as_values
from textgym.tokenizers import ChatTemplate
from textgym.tokenizers.base import as_utf8

__all__ = ["RewardModel", "RewardModelConfig"]

_OUTPUTS = ("logit", "probability")
_CHARACTERS_PER_TOKEN = 16
_MODEL_LOCK = threading.Lock()
"""Held while a model's settings are changed: scorers and threads may share a model."""


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """Input and output of the classifier of a ``textgym.scorers.RewardModel``."""

    label: int | str | None = None
    """Index or name of the output that is the score; None if there is only one."""
    output: Literal["logit", "probability"] = "logit"
    """``"logit"``, or ``"probability"``: the softmax over the labels, or the sigmoid of a single label or of labels
    that do not exclude each other."""
    template: str = "{prompt}{completion}"
    """Text that is classified; or ``"pair"``, prompt and completion as a text pair; or ``"chat"``, the tokenizer's chat
    template for one user and one assistant turn."""
    max_tokens: int = 512
    """Longer texts keep their last tokens. The model's own limit applies too."""
    batch_size: int = 32
    """Texts per forward pass."""
    device: str | None = None
    """Device the model is moved to; None leaves it."""

    def __post_init__(self) -> None:
        if self.output not in _OUTPUTS:
            raise unknown_name("output", self.output, _OUTPUTS)
        if self.template not in ("chat", "pair") and "{completion}" not in self.template:
            raise ValueError(f"template must contain {{completion}}, or be 'pair' or 'chat'; got {self.template!r}")
        try:
            self.template.format(prompt="", completion="")
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError(f"template may contain {{prompt}} and {{completion}} only: {error!r}") from error
        for name in ("max_tokens", "batch_size"):
            as_count(getattr(self, name), name)


@dataclass(frozen=True)
class _Classifier:
    """A sequence classifier, its tokenizer, and the output that is the score."""

    model: Any
    tokenizer: Any
    label: int
    labels_are_independent: bool
    max_tokens: int

    def pad_id(self, used: set[int]) -> int:
        """Return an id that is not in ``used``, the model's own pad token if possible.

        Classifiers on a causal model read the last token that is not padding; with EOS as pad token, they would miss
        the EOS.
        """
        config = self.model.config.get_text_config()
        own, eos = config.pad_token_id, getattr(config, "eos_token_id", None)
        if own is not None and own >= 0 and own not in used:
            return int(own)
        taken = used.union(eos if isinstance(eos, list) else [eos])  # encoder-decoders look for EOS
        return next(i for i in range(self.model.get_input_embeddings().num_embeddings) if i not in taken)

    def placeholder(self, row: dict[str, list[int]]) -> dict[str, list[int]]:
        """Return a BOS, EOS or 0 in place of a text without tokens, which no model accepts."""
        ids = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return {name: [next(i for i in ids if i is not None) if name == "input_ids" else 0] for name in row}


def _load_classifier(model: Any, tokenizer: Any, config: RewardModelConfig) -> _Classifier:
    """Return a classifier by name, or a loaded one with its tokenizer; raises as ``RewardModel``."""
    if isinstance(model, str | Path):
        model, tokenizer = _load(str(model), tokenizer)
    if tokenizer is None:
        raise TypeError(f"a loaded model needs its tokenizer: RewardModel({type(model).__name__}(...), tokenizer)")
    tokenizer = copy.deepcopy(tokenizer)  # shared with others, who may use another side
    tokenizer.truncation_side = "left"
    if config.template == "chat" and getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("template is 'chat', but the tokenizer has no chat template")
    if config.device is not None:
        model.to(config.device)
    limits = (getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length)
    num_labels = model.config.num_labels
    return _Classifier(
        model=model,
        tokenizer=tokenizer,
        label=_label(config.label, num_labels, model.config),
        labels_are_independent=num_labels == 1 or model.config.problem_type == "multi_label_classification",
        max_tokens=min(config.max_tokens, *(limit for limit in limits if limit is not None and limit > 0)),
    )


def _load(name: str, tokenizer: Any) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise ImportError(
            f"the scorer 'reward_model' needs torch and transformers: {install_hint('agents')}"
        ) from error
    from textgym.lm import no_progress_bars

    try:
        with no_progress_bars():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                name, output_loading_info=True, trust_remote_code=False
            )
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except OSError as error:  # transformers raises it for unknown names too
        raise ValueError(f"no sequence classifier called {name!r}, as a folder or on Hugging Face: {error}") from error
    except ValueError as error:
        if (clearer := foreign_code(error, name)) is not error:
            raise clearer from None
        raise
    missing = sorted(report["missing_keys"])
    if missing:  # transformers initialises them at random
        raise ValueError(f"{name!r} lacks weights of a sequence classifier: {', '.join(missing[:3])}")
    return model, tokenizer


def _label(label: int | str | None, num_labels: int, config: Any) -> int:
    names = {str(name): int(index) for index, name in config.id2label.items()}
    if label is None:
        if num_labels != 1:
            raise ValueError(f"the model has {num_labels} labels; choose one with label=...: {', '.join(names)}")
        return 0
    if isinstance(label, str):
        if label not in names:
            raise unknown_name("label", label, names)
        return names[label]
    if not 0 <= label < num_labels:
        raise ValueError(f"label is {label!r}, the model has the labels 0 to {num_labels - 1}")
    return label


class RewardModel(Scorer):
    """Output of a sequence classifier for prompt and completion.

    Formula: the logit or probability of one label. Range: all numbers, or [0, 1] for a probability. Empty completion:
    the model's output for the prompt. Deterministic, up to rounding that depends on the batch. Not incremental. Known
    to be exploited outside its training data: length, flattery, repeated phrases.

    Texts are sorted by length and right-padded with an id that none of them has, so that models that look for the last
    token are right without a pad token, and with one that equals EOS.

    Source: Ouyang et al., Training language models to follow instructions with human feedback, 2022,
    https://arxiv.org/abs/2203.02155

    Args:
        model: A name on Hugging Face or a local folder, with a trained classification head; a loaded model, which is in
            eval mode while it scores; or a function ``f(prompts, completions) -> (B,)``.
        tokenizer: The tokenizer of a loaded model; by default the one saved with the named model.
        config: A ``RewardModelConfig``; not for a function.

    Raises:
        ImportError: If torch or transformers is missing.
        TypeError: If the model is none of these, a loaded one comes without its tokenizer, or ``config`` is not a
            ``RewardModelConfig``.
        ValueError: If there is no such model, it has no trained head, or several labels of which none is chosen.

    >>> def longer_is_better(prompts, completions):
    ...     return [len(text) for text in completions]
    >>> RewardModel(longer_is_better)(TextBatch.from_texts(["a", "abc"]))
    array([1., 3.])
    """

    def __init__(
        self,
        model: str | Path | Callable[..., Any],
        tokenizer: Any = None,
        config: RewardModelConfig | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = as_config(config, RewardModelConfig, "config")
        is_classifier = isinstance(model, str | Path) or (hasattr(model, "config") and hasattr(model, "parameters"))
        if not is_classifier and not callable(model):
            raise TypeError(
                f"model is {model!r} of type {type(model).__name__}; expected a name, a model or a function"
            )
        if not is_classifier and (tokenizer is not None or config is not None):
            raise TypeError("a function takes neither a tokenizer nor a config")
        self._classifier = _load_classifier(model, tokenizer, self.config) if is_classifier else None

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """(0, 1) for a probability, else None."""
        return (0.0, 1.0) if self._classifier is not None and self.config.output == "probability" else None

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64.

        Raises:
            ScorerError: If the model returns NaN.
        """
        if self._classifier is None:
            assert callable(self.model)
            result = self.model(batch.prompts, list(batch.completions))
            if hasattr(result, "detach"):  # a tensor, possibly on another device or of bfloat16
                result = result.detach().double().cpu().numpy()
            return as_values(result, len(batch))
        rows = self._encoded(self._classifier, batch)
        scores = np.zeros(len(batch))
        order = sorted(range(len(batch)), key=lambda i: len(rows[i]["input_ids"]))
        for start in range(0, len(order), self.config.batch_size):
            index = order[start : start + self.config.batch_size]
            scores[index] = self._forward(self._classifier, [rows[i] for i in index])
        if np.isnan(scores).any():  # NaN would mean that the scorer does not apply
            raise ScorerError(f"got NaN from the model for {int(np.isnan(scores).sum())} of {len(batch)} texts")
        return scores

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "tokenizer": self.tokenizer, "config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        function = state["tokenizer"] is None and not isinstance(state["model"], str | Path)
        self.__init__(state["model"], state["tokenizer"], None if function else state["config"])  # type: ignore[misc]

    def _encoded(self, classifier: _Classifier, batch: TextBatch) -> list[dict[str, list[int]]]:
        """Return B mappings of model inputs, such as ``input_ids``, without padding."""
        if len(batch) == 0:
            return []
        tokenizer, most = classifier.tokenizer, classifier.max_tokens
        prompts = [as_utf8(text[-_CHARACTERS_PER_TOKEN * most :]) for text in batch.prompts]
        completions = [as_utf8(text[-_CHARACTERS_PER_TOKEN * most :]) for text in batch.completions]
        pairs = list(zip(prompts, completions, strict=True))
        options = {"truncation": True, "max_length": most}
        if self.config.template == "pair":
            columns = tokenizer(prompts, completions, **options)
        elif self.config.template == "chat":
            template = ChatTemplate(tokenizer)
            texts = [template.render(_turns(*pair), add_generation_prompt=False) for pair in pairs]
            columns = tokenizer(texts, add_special_tokens=False, **options)
        else:
            columns = tokenizer([self.config.template.format(prompt=a, completion=b) for a, b in pairs], **options)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [row if row["input_ids"] else classifier.placeholder(row) for row in rows]

    def _forward(self, classifier: _Classifier, rows: list[dict[str, list[int]]]) -> FloatArray:
        import torch

        model, longest = classifier.model, max(len(row["input_ids"]) for row in rows)
        pad_id = classifier.pad_id({token for row in rows for token in row["input_ids"]})
        device = next(model.parameters()).device
        inputs = {"attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], longest, 0)}
        for name in rows[0]:
            if name != "attention_mask":
                inputs[name] = _padded([row[name] for row in rows], longest, pad_id if name == "input_ids" else 0)
        with torch.no_grad(), _scoring_mode(model, pad_id):
            tensors = {name: torch.tensor(values, device=device) for name, values in inputs.items()}
            logits = model(**tensors).logits.double()
        if self.config.output == "probability":
            logits = logits.sigmoid() if classifier.labels_are_independent else logits.softmax(-1)
        scores: FloatArray = logits[:, classifier.label].cpu().numpy()
        return scores


def _turns(prompt: str, completion: str) -> list[Mapping[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def _padded(rows: list[list[int]], width: int, value: int) -> list[list[int]]:
    return [row + [value] * (width - len(row)) for row in rows]


@contextmanager
def _scoring_mode(model: Any, pad_id: int) -> Iterator[None]:
    """Context manager: the model in eval mode and with ``pad_id`` as its pad token."""
    configs = [model.config, model.config.get_text_config()]
    with _MODEL_LOCK:
        before, was_training = [config.pad_token_id for config in configs], model.training
        try:
            model.eval()
            for config in configs:
                config.pad_token_id = pad_id
            yield
        finally:
            model.train(was_training)
            for config, value in zip(configs, before, strict=True):
                config.pad_token_id = value
