"""Keywords of the environment of a task."""

import json
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from typing import Any, Literal

from textgym.errors import unknown_name
from textgym.prompts import Curriculum, PromptSource, Sample
from textgym.tasks.base import Row, Task, fill_template, find_task
from textgym.tasks.prompts import SPLITS, data_prompts, task_prompts
from textgym.tokenizers import ChatTemplate, find_chat_template

__all__ = ["chat_template", "score_bounds", "task_keywords"]


def task_keywords(
    task: str | Task,
    *,
    split: Literal["train", "eval"] | None = None,
    level: int | Literal["auto"] | None = None,
    data: Any = None,
    columns: Mapping[str, str] | None = None,
    chat: bool | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    """Return the ``TextGenConfig`` keywords of a task.

    Args:
        task: A task, or the name or id of one.
        split: ``"train"`` or ``"eval"``. Default: ``"train"`` of the task's own data, all rows of ``data``.
        level: 1 (the easiest) to the task's ``num_levels``; None for the rows of all levels; ``"auto"`` for a
            curriculum that starts at level 1 and advances with the success rate. Of the task's own data only.
        data: Rows that replace the task's own: the path of a JSONL or CSV file, compressed (``.jsonl.gz``) or not, a
            ``datasets.Dataset`` or a list of mappings.
        columns: ``{task's column: data's column}`` where the names differ.
        chat: Whether to use the model's chat template; None uses it if there is one.
        **keywords: Fields of ``TextGenConfig``, which override the task's.

    Raises:
        ValueError: If there is no such task, split or level, the data do not fit, or two of the keywords are mutually
            exclusive.
        TypeError: If ``data`` is of an unsupported type.

    >>> from textgym import TextGenEnv
    >>> env = TextGenEnv(**task_keywords("qa", level=1, split="eval"))
    >>> env.reset(seed=0)[0].shape == (env.window,)
    True
    """
    task = find_task(task)
    if split not in (None, *SPLITS):
        raise unknown_name("split", split, SPLITS)
    _check_source("prompts" in keywords, data=data, split=split, level=level, columns=columns)
    template = chat_template(keywords.get("model"), keywords.get("tokenizer"), chat)
    to_sample = partial(_sample, task, template)
    ours: dict[str, Any] = {"scorer": task.scorer(), **task.keywords}
    if template is not None:
        ours |= task.chat_keywords
        if "user" in ours | keywords:
            ours["reply_format"] = template.reply_format
        if template.tokenizer is not None:
            keywords["tokenizer"] = template.tokenizer
    if "prompts" not in keywords:
        if data is not None:
            ours["prompts"] = data_prompts(data, columns or {}, to_sample, split)
        else:
            ours["prompts"] = _task_prompts(task, to_sample, split or "train", level)
    embedded = (("model", "tiny"), ("model", task.model))
    if data is None and not _OTHER_SCORES & {name for name in keywords if (name, keywords[name]) not in embedded}:
        ours["score_bounds"] = score_bounds(task)
    return ours | keywords


_OTHER_SCORES = {"model", "tokenizer", "prompts", "scorer", "user"}
"""Keywords that change the scores, so that the measured bounds do not apply."""


def chat_template(model: Any, tokenizer: Any, chat: bool | None) -> ChatTemplate | None:
    """Return the chat template to use, or None for plain prompts.

    The environment's EOS has to be the token that ends a turn in the template. Where the tokenizer's EOS is another
    token (Gemma: ``<eos>``, turns end with ``<end_of_turn>``), ``ChatTemplate.tokenizer`` is a copy with the right one.

    Args:
        model: The environment's ``model``.
        tokenizer: The environment's ``tokenizer``; None for the model's.
        chat: Whether a template is required; None uses one if there is one.

    Raises:
        ValueError: If one is required and there is none, or no special token ends a turn in it.
    """
    if chat is False:
        return None
    template = find_chat_template(model if tokenizer is None else tokenizer)
    if template is None and chat:
        raise ValueError("the model's tokenizer has no chat template; chat=False uses the plain prompts")
    return template


def _check_source(has_prompts: bool, **given: Any) -> None:
    """Raise ``ValueError`` where two keywords about the source of prompts exclude each other."""
    given = {name: value for name, value in given.items() if value is not None}
    if has_prompts and given:
        raise ValueError(f"prompts=... cannot be combined with {', '.join(given)}; leave out one or the other")
    if "data" in given and "level" in given:
        raise ValueError("level=... selects rows of the task's own data and cannot be combined with data=...")
    if "columns" in given and "data" not in given:
        raise ValueError("columns=... renames the columns of data=..., which is missing")


def score_bounds(task: Task) -> dict[int, tuple[float, float]] | None:
    """Return level -> (mean score of the untrained ``task.model``, optimum), or None if the former was not measured."""
    levels = _untrained_scores().get(task.name)
    return None if levels is None else {int(level): (score, task.optimum) for level, score in levels.items()}


@cache
def _untrained_scores() -> dict[str, dict[str, float]]:
    path = resources.files("textgym.tasks").joinpath("untrained_scores.json")
    scores: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return scores


def _sample(task: Task, template: ChatTemplate | None, row: Row) -> Sample:
    sample = task.sample(row)
    if template is None:
        return sample
    return Sample(template.prompt(fill_template(task.instruction, row)), sample.references, sample.metadata)


def _task_prompts(task: Task, to_sample: Any, split: str, level: int | Literal["auto"] | None) -> PromptSource:
    if level != "auto":
        return task_prompts(task, split, level, to_sample)
    levels = range(1, task.num_levels + 1)
    return Curriculum([task_prompts(task, split, i, to_sample) for i in levels], success_score=task.success_score)
