"""What a task is: rows of data, how a row becomes a prompt, and what a completion is worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from textgym.prompts import Sample

__all__ = ["Page", "Row", "Task"]

Row = Mapping[str, Any]
"""Columns by name."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The sentences of a task's page that only its author can write."""

    title: str = "A text-generation task."
    """What the agent is to do, in one line."""
    description: str = ""
    """Where the data come from, and what is hard."""
    levels: tuple[str, ...] = ()
    """What each level asks for, from level 1 on."""
    rewards: str = "The scorer's number."
    """Formula and range of the score, and when it is given."""
    ends: str = "Terminated by EOS"
    """What ends an episode besides the budget, as the beginning of a sentence."""
    arguments: str = ""
    """What the user has to give beside ``data``."""
    references: str = "None."
    """Papers."""


@dataclass(frozen=True, kw_only=True)
class Task:
    r"""A ready environment: where its episodes start, when they end, and what is rewarded.

    It is data and small functions only; ``textgym.tasks.task_keywords`` makes the keywords of an environment of it.

    >>> from textgym.tasks import TASKS
    >>> task = TASKS["translation"]
    >>> task.sample({"source": "The cat sleeps.", "target": "Le chat dort."}).prompt
    'English: The cat sleeps.\nFrench:'
    """

    name: str
    """What ``task=`` calls it."""
    id: str | None = None
    """Its registered id, where it has one of its own."""
    rows: Callable[[int, int, int], Row]
    """``rows(seed, index, level)``, the built-in data: an unlimited supply of rows, each decided by the three numbers
    and nothing else. Levels count from 1."""
    columns: Mapping[str, str]
    """The columns that a row must have, and what each holds."""
    prompt: str
    """The prompt, with ``{column}`` in it, for a language model that continues texts."""
    instruction: str
    """What a chat model is told instead."""
    scorer: Callable[[], Any]
    """Makes the scorer. Each row's columns are the sample's metadata."""
    target: str | None = None
    """The column with the best completion, which is the sample's reference; a list of texts is several references."""
    solve: Callable[[Row, Sequence[str]], str] | None = None
    """``solve(row, agent_turns)``, the best next turn, where that is not simply the target."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of the environment: the budgets, ``stop``, ``user``, ..."""
    chat_keywords: Mapping[str, Any] = field(default_factory=dict)
    """Those that differ for a chat model."""
    num_levels: int = 3
    """Levels of difficulty."""
    success_score: float = 1.0
    """The score from which on an episode counts as a success."""
    optimum: float = 1.0
    """The best score there is."""
    page: Page = Page()
    """What its documentation says beside what follows from the other fields; see ``textgym.describe``."""

    def sample(self, row: Row, prompt: str | None = None) -> Sample:
        """Return the sample of a row; ``prompt`` stands in the place of the task's own.

        Raises:
            ValueError: If the row lacks a column.
            TypeError: If a target is no text.
        """
        missing = [name for name in self.columns if row.get(name) is None]
        if missing:
            wanted = "; ".join(f"{name}: {self.columns[name]}" for name in missing)
            raise ValueError(
                f"task {self.name!r} needs the columns {', '.join(self.columns)}; missing are {wanted}. The row has "
                f"{', '.join(map(str, row))}; columns={{{missing[0]!r}: ...}} names the one to take"
            )
        references = () if self.target is None else as_texts(self.target, row[self.target])
        return Sample(filled(self.prompt, row) if prompt is None else prompt, references, dict(row))

    def best_turn(self, sample: Sample, agent_turns: Sequence[str] = ()) -> str:
        """Return the known optimum's next turn, without EOS."""
        return self.solve(sample.metadata, agent_turns) if self.solve is not None else sample.references[0]


def as_texts(column: str, value: Any) -> tuple[str, ...]:
    """Return one text or several as a tuple.

    Raises:
        TypeError: If it is something else.
        ValueError: If there is none.

    >>> as_texts("answer", "five"), as_texts("answer", ["five", "5"])
    (('five',), ('five', '5'))
    """
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"the column {column!r} must be a text or a list of texts, got {value!r:.60}")
    if not texts:
        raise ValueError(f"the column {column!r} is an empty list")
    return tuple(texts)


def filled(pattern: str, row: Row) -> str:
    """Return a pattern with the row's columns in the places of their names in braces.

    >>> filled("{a} and {b}", {"a": "{b}", "b": 2})
    '{b} and 2'
    """
    return pattern.format_map(row)
