"""Tasks by name."""

from textgym.errors import unknown_name
from textgym.registration import IDS, register_env
from textgym.tasks.base import Task

__all__ = ["TASKS", "find_task", "register_task"]

TASKS: dict[str, Task] = {}
"""Every task by its name."""


def register_task(task: Task) -> Task:
    """Make a task known as ``task=`` of every interface, and add its id, where it has one, to the table of ids.

    Raises:
        ValueError: If another task has the name, or another environment the id; then nothing is registered.
    """
    if TASKS.get(task.name, task) is not task:
        raise ValueError(f"there is a task {task.name!r} already; known: {', '.join(TASKS)}")
    if task.id is not None and IDS.get(task.id) != {"task": task.name}:
        register_env(task.id, task=task.name)
    TASKS[task.name] = task
    return task


def find_task(task: str | Task) -> Task:
    """Return a task by its name or id, or the task itself.

    Raises:
        ValueError: If there is none.
        TypeError: If ``task`` is neither.

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
