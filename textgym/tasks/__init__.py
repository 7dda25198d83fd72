"""Ready-made tasks: data, prompts, scorers and documentation.

base        Task, a declaration, and the table of tasks by name
text_tasks  story continuation, translation, question answering, summarisation
dialogue    a shop assistant and a simulated customer
shop        the simulated customer of the dialogue task; shop_replies parses what the assistant says
word_pairs  fluency of translations, naturalness of the shop assistant
words       nouns and colours of the built-in data
keywords    environment keywords of a task
prompts     prompt sources: a task's own data by split and level, the user's data
page        documentation page of a task
data        rows of the tasks, written by tools/write_task_data.py
"""

from textgym.tasks import dialogue, quality, text_tasks
from textgym.tasks.base import TASKS, Page, Row, Task, find_task, register_task
from textgym.tasks.keywords import score_bounds, task_keywords
from textgym.tasks.page import task_page
from textgym.tasks.prompts import task_prompts

__all__ = [
    "TASKS",
    "Page",
    "Row",
    "Task",
    "dialogue",
    "find_task",
    "quality",
    "register_task",
    "score_bounds",
    "task_keywords",
    "task_page",
    "task_prompts",
    "text_tasks",
]
