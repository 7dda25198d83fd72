"""From a task to the keywords of an environment."""

import json
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from typing import Any, Literal

import numpy as np

from textgym.errors import unknown_name
from textgym.prompts import Curriculum, PromptSource, Sample
from textgym.tasks.base import Row, Task, filled
from textgym.tasks.chat import chat_template
from textgym.tasks.prompts import SEEDS, Mixture, WorldPrompts, data_prompts
from textgym.tasks.registry import find_task
from textgym.tokenizers.chat import ChatTemplate

__all__ = ["task_keywords"]


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
    """Return the keywords that make an environment of a task, for any of its interfaces.

    Args:
        task: A task, or the name or id of one.
        split: ``"train"`` or ``"eval"``. By default the built-in data's ``"train"``, or all of ``data``.
        level: 1 (the easiest) to the task's ``num_levels``; None for all of them evenly; ``"auto"`` for a curriculum
            that begins with the first and goes on as the success rate allows. Only for the built-in data.
        data: The user's own rows: the path of a JSONL or CSV file, a ``datasets.Dataset`` or a list of mappings.
        columns: ``{task's column: data's column}`` where the names differ.
        chat: Whether to ask in the model's chat template; None does so where it has one.
        **keywords: Fields of ``TextGenConfig``, which go before the task's.

    Raises:
        ValueError: If there is no such task, split or level, the data do not fit, or two of the keywords exclude
            each other.
        TypeError: If ``data`` cannot be read.

    >>> from textgym import TextGenEnv
    >>> env = TextGenEnv(**task_keywords("qa", level=1, split="eval"))
    >>> env.reset(seed=0)[0].shape == (env.window,)
    True
    """
    task = find_task(task)
    if split not in (None, *SEEDS):
        raise unknown_name("split", split, SEEDS)
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
            ours["prompts"] = _world_prompts(task, to_sample, split or "train", level)
    if data is None and not _OTHER_SCORES & {name for name in keywords if (name, keywords[name]) != ("model", "tiny")}:
        ours["score_bounds"] = score_bounds(task)
    return ours | keywords


_OTHER_SCORES = {"model", "tokenizer", "prompts", "scorer", "user"}
"""Keywords with which the measured scores are no bounds."""


def _check_source(has_prompts: bool, **given: Any) -> None:
    """Raise ``ValueError`` where one keyword says where episodes start and another would be left unheard."""
    given = {name: value for name, value in given.items() if value is not None}
    if has_prompts and given:
        raise ValueError(f"prompts=... says where episodes start, which leaves nothing to {', '.join(given)}")
    if "data" in given and "level" in given:
        raise ValueError("the levels are those of the built-in data, data=... has none")
    if "columns" in given and "data" not in given:
        raise ValueError("columns=... renames the columns of data=..., which is missing")


def score_bounds(task: Task) -> dict[int, tuple[float, float]] | None:
    """Return by level what the untrained embedded LM and the optimum score; None where that was not measured."""
    levels = _measured().get(task.name)
    return None if levels is None else {int(level): (score, task.optimum) for level, score in levels.items()}


@cache
def _measured() -> dict[str, dict[str, float]]:
    """Return the mean scores of the untrained embedded LM by task and level."""
    path = resources.files("textgym.tasks").joinpath("untrained_scores.json")
    scores: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return scores


def _sample(task: Task, template: ChatTemplate | None, row: Row) -> Sample:
    sample = task.sample(row)
    if template is None:
        return sample
    return Sample(template.prompt(filled(task.instruction, row)), sample.references, sample.metadata)


def _world_prompts(task: Task, to_sample: Any, split: str, level: int | str | None) -> PromptSource:
    levels = [WorldPrompts(task, to_sample, number, split) for number in range(1, task.num_levels + 1)]
    if level is None:
        return Mixture(levels)
    if level == "auto":
        return Curriculum(levels, success_score=task.success_score)
    if not isinstance(level, int | np.integer) or not 1 <= level <= task.num_levels:
        raise ValueError(f"level is {level!r}; task {task.name!r} has the levels 1 to {task.num_levels}, and 'auto'")
    return levels[level - 1]
