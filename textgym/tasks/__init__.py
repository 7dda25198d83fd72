"""Ready-made tasks: data, prompts, scorers and documentation.

base        Task, a declaration, and the table of tasks by name
text_tasks  story continuation, translation, question answering, summarisation
dialogue    a shop assistant and a simulated customer
keywords    environment keywords of a task
prompts     prompt sources: built-in data by level and split, the user's own data
page        documentation page of a task
"""

from textgym.tasks import dialogue, text_tasks
from textgym.tasks.base import TASKS, Page, Row, Task, find_task, register_task
from textgym.tasks.keywords import score_bounds, task_keywords
from textgym.tasks.page import task_page

__all__ = [
    "TASKS",
    "Page",
    "Row",
    "Task",
    "dialogue",
    "find_task",
    "register_task",
    "score_bounds",
    "task_keywords",
    "task_page",
    "text_tasks",
]
