"""Answers to questions on a passage, arithmetic among them."""

from typing import Any

from textgym.tasks.base import Page, Row, Task
from textgym.tasks.world.questions import question

__all__ = ["QA"]


def rows(seed: int, index: int, level: int) -> Row:
    """Return a passage of the world, a question on it and the answer."""
    asked = question(seed, index, level)
    return {"context": asked.passage, "question": asked.question, "answer": asked.answer, "kind": asked.kind}


def scorer() -> Any:
    """Return exact match, which for numbers is that of the last number, with token F1."""
    from textgym.scorers import ExactMatch, Maximum, NumericAnswer, TokenF1, WeightedSum

    correct = Maximum({"exact": ExactMatch(), "numeric": NumericAnswer()})
    return WeightedSum({"correct": (correct, 0.7), "f1": (TokenF1(), 0.3)})


QA = Task(
    name="qa",
    id="TextGenQA-v0",
    rows=rows,
    columns={"context": "a passage", "question": "a question on it", "answer": "the answer, or a list of several"},
    target="answer",
    prompt="{context}\nQuestion: {question}\nAnswer:",
    instruction="Read this and answer with one or two words or a number.\n\n{context}\n\nQuestion: {question}\n"
    "Short answer:",
    scorer=scorer,
    keywords={"max_prompt_tokens": 80, "max_new_tokens": 16},
    chat_keywords={"max_prompt_tokens": 160},
    success_score=1.0,
    page=Page(
        title="Answer a question on a passage in a few words.",
        description="Passages, questions and answers are made from the facts of one scene, so every answer can be "
        "verified. What the embedded LM learned from held wrong answers and ramblings beside the right ones.",
        levels=(
            "one person: who, what, where, when, which colour, how many, how did she feel; the answer stands there",
            "two persons who did different things, and the weather",
            "sums and differences of the numbers told, 0 to 20; the answer is a number in digits",
        ),
        rewards="At the end ``0.7 correct + 0.3 token F1``, in [0, 1]. Correct is an exact match up to case, "
        "punctuation and articles, or, where the answer is a number, the right last number.",
        references="Rajpurkar et al. 2016, SQuAD (arXiv:1606.05250), for the measures; Cobbe et al. 2021, Training "
        "verifiers to solve math word problems (arXiv:2110.14168), for checking the last number.",
    ),
)
