"""Documentation page of a task, derived from its declaration."""

import textwrap

from textgym.rewards import Redistributed
from textgym.tasks.base import Task
from textgym.tasks.keywords import score_bounds
from textgym.tasks.prompts import task_prompts

__all__ = ["task_page"]


def task_page(task: Task) -> str:
    """Return a task's page in Markdown, under the headings of ``TextGenEnv``. It counts the rows of the task.

    >>> from textgym.tasks import TASKS
    >>> print(task_page(TASKS["qa"]).splitlines()[0])
    Answer a question about a passage in a few words.
    """
    page, budgets = task.page, dict(task.keywords)
    has_user, redistributes = "user" in budgets, isinstance(budgets.get("reward"), Redistributed)
    spans = ["max_prompt_tokens", "max_new_tokens", *(["max_turns", "max_reply_tokens"] if has_user else [])]
    window = "L"
    if budgets.keys() >= set(spans):
        replies = budgets["max_turns"] * budgets["max_reply_tokens"] if has_user else 0
        window = str(budgets["max_prompt_tokens"] + budgets["max_new_tokens"] + replies)
    columns = _listed([f"``{name}``" for name in task.columns])
    described = _listed([f"``{name}`` ({text})" for name, text in task.columns.items()])
    description = page.description or f"Rows with the columns {described}."
    rows = [f"| {level} | {text} |" for level, text in enumerate(page.levels, start=1)]
    sections = {
        "Description": [description, *(["\n".join(["| level | data |", "|---|---|", *rows])] if rows else [])],
        "Action Space": [f"``Discrete(V)``: action i appends token i; EOS ends the {'turn' if has_user else 'text'}."],
        "Observation Space": [
            f"``Box(0, V, ({window},), int64)``, the ids of the prompt, ``{' '.join(task.prompt.split())}``, and of "
            f"{'the dialogue' if has_user else 'the completion'} so far, right-padded with V."
        ],
        "Rewards": [page.rewards],
        "Starting State": [
            f'A prompt of the split, ``"train"`` ({len(task_prompts(task, "train")):,} rows) or ``"eval"`` '
            f"({len(task_prompts(task, 'eval')):,} others), and of the level (default: any)."
        ],
        "Episode End": [
            f"{page.ends}, or after {budgets.get('max_new_tokens', 'max_new_tokens')} tokens of the agent."
        ],
        "Information": [
            "As in ``TextGenEnv``"
            + (": ``is_action`` marks the agent's tokens, ``turns`` lists the turns by role" if has_user else "")
            + (": ``token_rewards`` spreads the score over the tokens" if redistributes else "")
            + (
                f', and ``score_normalised``: 0 is the mean score of the untrained ``"{task.model}"``, 1 the optimum.'
                if score_bounds(task) is not None
                else "."
            )
        ],
        "Arguments": [
            f"``split``, ``level``, ``data`` (with the columns {columns}{page.arguments}), ``columns`` and ``chat`` of "
            "``textgym.tasks.task_keywords``, and those of ``TextGenEnv``."
        ],
        "References": [page.references],
        "Version History": ["* v0: initial version."],
    }
    blocks = [page.title]
    for heading, paragraphs in sections.items():
        blocks.append(f"## {heading}\n" + "\n\n".join(_wrapped(text) for text in paragraphs if text))
    return "\n\n".join(blocks) + "\n"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _wrapped(text: str) -> str:
    return text if text.startswith("|") else textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
