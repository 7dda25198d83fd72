"""Where the classifier of a reward model comes from, and what has to be known of it before it is asked."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.errors import foreign_code, install_hint, unknown_name

if TYPE_CHECKING:
    from textgym.scorers.learned.reward_model import RewardModelConfig

__all__ = ["Classifier", "load_classifier"]


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier, its tokenizer, and which of its outputs counts."""

    model: Any
    tokenizer: Any
    label: int
    labels_are_independent: bool
    max_tokens: int

    def pad_id(self, used: set[int]) -> int:
        """Return an id that is not in ``used``, the model's own pad token if possible.

        Classifiers on a causal model look for the last id that is no padding; where EOS is the pad token as well, they
        find the last but one.
        """
        config = self.model.config.get_text_config()
        own, eos = config.pad_token_id, getattr(config, "eos_token_id", None)
        if own is not None and own >= 0 and own not in used:
            return int(own)
        taken = used.union(eos if isinstance(eos, list) else [eos])  # encoder-decoders look for EOS
        return next(i for i in range(self.model.get_input_embeddings().num_embeddings) if i not in taken)

    def something(self, row: dict[str, list[int]]) -> dict[str, list[int]]:
        """Return what stands for a text without tokens, which no model accepts: one that begins or ends a text."""
        ids = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return {name: [next(i for i in ids if i is not None) if name == "input_ids" else 0] for name in row}


def load_classifier(model: Any, tokenizer: Any, config: "RewardModelConfig") -> Classifier:
    """Return the classifier that is named or given.

    Raises:
        ImportError, TypeError, ValueError: As ``RewardModel`` says.
    """
    if isinstance(model, str | Path):
        model, tokenizer = _read(str(model), tokenizer)
    if tokenizer is None:
        raise TypeError(f"a loaded model needs its tokenizer: RewardModel({type(model).__name__}(...), tokenizer)")
    tokenizer = copy.deepcopy(tokenizer)  # others may use it, with another side
    tokenizer.truncation_side = "left"
    if config.template == "chat" and getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("template is 'chat', but the tokenizer has no chat template")
    if config.device is not None:
        model.to(config.device)
    limits = (getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length)
    num_labels = model.config.num_labels
    return Classifier(
        model=model,
        tokenizer=tokenizer,
        label=_label(config.label, num_labels, model.config),
        labels_are_independent=num_labels == 1 or model.config.problem_type == "multi_label_classification",
        max_tokens=min(config.max_tokens, *(limit for limit in limits if limit is not None and limit > 0)),
    )


def _read(name: str, tokenizer: Any) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise ImportError(
            f"the scorer 'reward_model' needs torch and transformers: {install_hint('agents')}"
        ) from error
    from textgym.lm.loading import no_progress_bars

    try:
        with no_progress_bars():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                name, output_loading_info=True, trust_remote_code=False
            )
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except OSError as error:  # also what transformers raises for a name that it cannot resolve
        raise ValueError(f"no sequence classifier called {name!r}, as a folder or on Hugging Face: {error}") from error
    except ValueError as error:
        if (refused := foreign_code(error, name)) is not error:
            raise refused from None
        raise
    missing = sorted(report["missing_keys"])
    if missing:  # transformers fills them with random numbers
        raise ValueError(f"{name!r} lacks weights of a sequence classifier: {', '.join(missing[:3])}")
    return model, tokenizer


def _label(label: int | str | None, num_labels: int, config: Any) -> int:
    names = {str(name): int(index) for index, name in config.id2label.items()}
    if label is None:
        if num_labels != 1:
            raise ValueError(f"the model has {num_labels} labels; say which one counts: {', '.join(names)}")
        return 0
    if isinstance(label, str):
        if label not in names:
            raise unknown_name("label", label, names)
        return names[label]
    if not 0 <= label < num_labels:
        raise ValueError(f"label is {label!r}, the model has the labels 0 to {num_labels - 1}")
    return label
