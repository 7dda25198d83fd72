"""Scorers as reward functions of TRL's trainers, the inverse of ``ColumnFunctionScorer``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.prompts import Sample
from textgym.scorers.evaluation import observe_episodes, score_batch
from textgym.scorers.registry import as_scorer
from textgym.tokenizers import Tokenizer, as_tokenizer

__all__ = ["as_reward_func"]


def as_reward_func(scorer: Any, tokenizer: Any = None, name: str | None = None) -> "RewardFunction":
    """Return a scorer as a reward function for ``trl.GRPOTrainer`` and similar trainers.

    The function is ``f(prompts, completions, completion_ids=None, **columns) -> list[float | None]``. Prompts and
    completions are texts or chats; of a chat, the message contents are joined by newlines, in a completion those of the
    assistant only. The data set's column ``references``, or else ``reference``, gives the references, one text or
    several per row; every column but ``references`` is also metadata. ``None`` means that the scorer does not apply.
    Other arguments of TRL are ignored, except ``trainer_state``, which gives the training progress.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        tokenizer: The trainer's ``processing_class``, or anything else that ``textgym.tokenizers.as_tokenizer``
            accepts. With it, scorers that use token ids get those of the policy; without, UTF-8 bytes.
        name: Name under which TRL logs the reward; by default the scorer's.

    Raises:
        ScorerError: When the function is called and the scorer fails.

    Source: https://huggingface.co/docs/trl/grpo_trainer#using-a-custom-reward-function

    >>> from textgym.scorers import LengthBand
    >>> reward = as_reward_func(LengthBand(2, 4, unit="words"))
    >>> reward(prompts=["Say", "Say"], completions=["hello", "good morning"]), reward.__name__
    ([0.5, 1.0], 'length_band')
    """
    return RewardFunction(scorer, tokenizer, name)


class RewardFunction:
    """Result of ``as_reward_func``; a class, so that it is picklable if the scorer is."""

    def __init__(self, scorer: Any, tokenizer: Any = None, name: str | None = None) -> None:
        self.scorer = as_scorer(scorer)
        self.tokenizer: Tokenizer | None = None if tokenizer is None else as_tokenizer(tokenizer)
        self.__name__ = self.scorer.name if name is None else name

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return B scores, ``None`` where the scorer does not apply."""
        state = columns.get("trainer_state")
        if state is not None and state.max_steps > 0:
            self.scorer.set_progress(min(state.global_step / state.max_steps, 1.0))
        samples = _samples(list(map(_prompt_text, prompts)), columns)
        batch = self._batch(samples, list(map(_completion_text, completions)), completion_ids)
        scores = score_batch(self.scorer, batch)
        if scores.error is not None:
            missing = np.flatnonzero(np.isnan(scores.total)).tolist()
            raise ScorerError(scores.error, [batch.completions[i] for i in missing]) from scores.cause
        observe_episodes(self.scorer, batch, scores)
        return [None if np.isnan(value) else value for value in scores.total.tolist()]

    def _batch(
        self, samples: list[Sample], completions: list[str], completion_ids: Sequence[Sequence[int]] | None
    ) -> TextBatch:
        prompts = [sample.prompt for sample in samples]
        if self.tokenizer is None or completion_ids is None:
            batch = TextBatch.from_texts(completions, prompts, tokenizer=self.tokenizer)
            batch.samples = samples
            return batch
        prompt_ids = [self.tokenizer.encode(prompt) for prompt in prompts]
        batch = TextBatch.from_ids(self.tokenizer, prompt_ids, completion_ids, samples)
        batch.completions = completions
        return batch


def _samples(prompts: list[str], columns: dict[str, Any]) -> list[Sample]:
    """Return B samples; keyword arguments that are lists of B values are columns of the data set."""
    size = len(prompts)
    kept = {key: values for key, values in columns.items() if isinstance(values, list | tuple) and len(values) == size}
    references = kept.pop("references", kept.get("reference", [None] * size))
    rows = [{key: values[i] for key, values in kept.items()} for i in range(size)]
    return [Sample(*row) for row in zip(prompts, map(_as_references, references), rows, strict=True)]


def _as_references(references: Any) -> tuple[str, ...]:
    if references is None:
        return ()
    return (references,) if isinstance(references, str) else tuple(references)


def _prompt_text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(map(_content, prompt))


def _completion_text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    messages = [message for message in completion if message.get("role", "assistant") == "assistant"]
    return "\n".join(filter(None, map(_content, messages)))


def _content(message: Any) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):  # None where the assistant only calls a tool
        return content or ""
    return "".join(block.get("text") or "" for block in content)
