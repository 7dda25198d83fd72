"""Where the right answer of a sample stands."""

from typing import Any

from textgym.batch import TextBatch

__all__ = ["wanted_answers"]


def wanted_answers(batch: TextBatch, column: str) -> list[Any]:
    """Return, for each episode, the metadata in ``column``, else the first reference, else ``None``.

    >>> wanted_answers(TextBatch.from_texts(["", ""], references=[["4"], []], metadata=[{}, {"answer": 5}]), "answer")
    ['4', 5]
    """
    wanted = []
    for sample in batch.samples:
        answer = sample.metadata.get(column)
        wanted.append(next(iter(sample.references), None) if answer is None else answer)
    return wanted
