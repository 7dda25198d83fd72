"""Ready tasks: their data, prompts, scorers and documentation.

base         Task: rows of data, a prompt, a scorer
keywords     from a task to the keywords of an environment
page         the documentation of a task
generation   stories with an aim: sentiment, topic, length, style, format
dialogue     serving a customer, in several turns
translation  English into French
qa           answers to questions on a passage
summary      a passage in one sentence
world        the procedural world from which all of them, and the embedded LM's training text, are made
"""

from textgym.tasks import world
from textgym.tasks.base import Page, Row, Task
from textgym.tasks.dialogue import DIALOGUE
from textgym.tasks.generation import FORMAT, LENGTH, SENTIMENT, STYLE, TOPIC
from textgym.tasks.keywords import score_bounds, task_keywords
from textgym.tasks.page import task_page
from textgym.tasks.qa import QA
from textgym.tasks.registry import TASKS, find_task, register_task
from textgym.tasks.summary import SUMMARY
from textgym.tasks.translation import TRANSLATION

__all__ = [
    "DIALOGUE",
    "FORMAT",
    "LENGTH",
    "QA",
    "SENTIMENT",
    "STYLE",
    "SUMMARY",
    "TASKS",
    "TOPIC",
    "TRANSLATION",
    "Page",
    "Row",
    "Task",
    "find_task",
    "register_task",
    "score_bounds",
    "task_keywords",
    "task_page",
    "world",
]

for _task in (SENTIMENT, TOPIC, LENGTH, STYLE, FORMAT, DIALOGUE, TRANSLATION, QA, SUMMARY):
    register_task(_task)
