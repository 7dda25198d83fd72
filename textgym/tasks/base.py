"""Declaration of a task, and the table of tasks by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textgym.errors import unknown_name
from textgym.prompts import Sample
from textgym.registration import IDS, register_env

__all__ = ["TASKS", "Page", "Row", "Task", "data_file", "fill_template", "find_task", "register_task"]

Row = Mapping[str, Any]
"""Columns by name."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The parts of a task's documentation page that cannot be derived from the other fields of ``Task``."""

    title: str = "A text-generation task."
    """The goal of the agent, in one line."""
    description: str = ""
    """Origin of the data and difficulties of the task; by default a list of the columns."""
    levels: tuple[str, ...] = ()
    """The data of each level, from level 1 on."""
    rewards: str = "The score of the task's scorer."
    """Formula and range of the score, and when it is given."""
    ends: str = "Terminated by EOS"
    """End conditions besides the token budget, as the beginning of a sentence."""
    arguments: str = ""
    """Keywords that are needed together with ``data``."""
    references: str = "None."
    """Papers."""


@dataclass(frozen=True, kw_only=True)
class Task:
    r"""Declaration of an environment: its data, prompt, scorer and documentation.

    A task holds data and module-level functions only, so it can be pickled. ``textgym.tasks.task_keywords`` turns it
    into the keywords of an environment. Every interface takes the object, ``task=Task(...)``; ``register_task`` makes
    its ``name`` a value of ``task=`` and its ``id`` an environment id: ``gym.make("MyTask-v0")``.
    ``textgym.testing.check_task`` checks a task.

    >>> from textgym.tasks import TASKS
    >>> task = TASKS["translation"]
    >>> task.sample({"source": "The cat sleeps.", "target": "Le chat dort."}).prompt
    'English: The cat sleeps.\nFrench:'
    """

    name: str
    """Value of ``task=`` once registered."""
    id: str | None = None
    """Environment id that ``register_task`` registers, with Gymnasium too: name and version, ``"MyTask-v0"``."""
    data: Any = field(repr=False)
    """Rows, which are read at first use: a list of mappings, the path of a JSONL or CSV file, or a
    ``datasets.Dataset``. A hash of the prompt assigns nine tenths of the distinct prompts to ``"train"``, the others to
    ``"eval"``; the column ``level``, by default 1, gives the level. Or a function ``data(split, level)`` that returns
    one of the three for each split and level."""
    columns: Mapping[str, str]
    """Required columns of a row and their descriptions."""
    prompt: str
    """Prompt template for a language model that continues text, with ``{column}`` placeholders."""
    instruction: str
    """Prompt template for a chat model, with the same placeholders."""
    scorer: Callable[[], Any]
    """Factory of the scorer. The columns of a row are the sample's metadata."""
    target: str | None = None
    """Column of the reference completion, or of a list of references."""
    expert: Callable[[Row, Sequence[str]], str] | None = None
    """Expert policy ``expert(row, agent_turns)``, which returns the optimal next turn; by default it is the first
    reference."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of the environment: token budgets, ``stop``, ``user``, ..."""
    chat_keywords: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of ``keywords`` for a chat model."""
    num_levels: int = 1
    """Number of levels of difficulty, which count from 1."""
    success_score: float = 1.0
    """Least score of a successful episode, used by ``level="auto"``."""
    optimum: float = 1.0
    """Greatest possible score."""
    model: str = "tiny"
    """The embedded LM that the task is meant to train; its mean score is 0 of ``score_normalised``."""
    page: Page = Page()
    """Texts of the documentation page; see ``textgym.describe``."""

    def sample(self, row: Row) -> Sample:
        """Return the sample of a row, whose columns become the metadata.

        Raises:
            ValueError: If the row lacks a column or has an empty list of targets.
            TypeError: If a target is not a string.
        """
        missing = [name for name in self.columns if row.get(name) is None]
        if missing:
            wanted = "; ".join(f"{name}: {self.columns[name]}" for name in missing)
            raise ValueError(
                f"task {self.name!r} needs the columns {', '.join(self.columns)}; missing are {wanted}. The row has "
                f"{', '.join(map(str, row))}; map other names with columns={{{missing[0]!r}: ...}}"
            )
        references = () if self.target is None else _as_texts(self.target, row[self.target])
        return Sample(fill_template(self.prompt, row), references, dict(row))

    def optimal_turn(self, sample: Sample, agent_turns: Sequence[str] = ()) -> str:
        """Return the optimal next turn, without EOS, after the agent's turns so far."""
        return self.expert(sample.metadata, agent_turns) if self.expert is not None else sample.references[0]


def _as_texts(column: str, value: Any) -> tuple[str, ...]:
    """Return one string or a list of strings as a tuple."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"the column {column!r} must be a string or a list of strings, got {value!r:.60}")
    if not texts:
        raise ValueError(f"the column {column!r} is an empty list")
    return tuple(texts)


def fill_template(template: str, row: Row) -> str:
    """Return a template with each ``{column}`` replaced by the value of that column.

    >>> fill_template("{a} and {b}", {"a": "{b}", "b": 2})
    '{b} and 2'
    """
    return template.format_map(row)


def data_file(name: str, split: str, level: int) -> Path:
    """Return the file of a level and split of built-in data, such as ``qa-eval-1.jsonl.gz``."""
    return Path(__file__).parent / "data" / f"{name}-{split}-{level}.jsonl.gz"


TASKS: dict[str, Task] = {}
"""Registered tasks by name."""


def register_task(task: Task) -> Task:
    """Make a task available as ``task=`` in every interface, and register its id if it has one.

    Returns:
        The task.

    Raises:
        ValueError: If another task has the name, or another environment the id; nothing is registered then.
    """
    if TASKS.get(task.name, task) is not task:
        raise ValueError(f"a task {task.name!r} is registered already; known: {', '.join(TASKS)}")
    if task.id is not None and IDS.get(task.id) != {"task": task.name}:
        register_env(task.id, task=task.name)
    TASKS[task.name] = task
    return task


def find_task(task: str | Task) -> Task:
    """Return a task by its name or id; a ``Task`` is returned as it is.

    Raises:
        ValueError: If no task has the name or id.
        TypeError: If ``task`` is neither a string nor a ``Task``.

    >>> find_task("TextGenQA-v0").name
    'qa'
    """
    if isinstance(task, Task):
        return task
    if not isinstance(task, str):
        raise TypeError(f"task is {task!r:.60} of type {type(task).__name__}; expected a Task or the name of one")
    for known in TASKS.values():
        if task in (known.name, known.id):
            return known
    raise unknown_name("task", task, list(TASKS), also="A Task object is accepted too.")
