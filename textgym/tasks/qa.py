"""Answers to questions on a passage, arithmetic among them."""

from typing import Any, ClassVar

from textgym.envs import TextGenEnv
from textgym.tasks.base import Row, Task
from textgym.tasks.world.questions import question

__all__ = ["QA", "TextGenQAEnv"]


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
)


class TextGenQAEnv(TextGenEnv):
    """Answer a question on a passage in a few words.

    ## Description
    Passages, questions and answers are made from the facts of one scene, so every answer can be verified. What the
    embedded LM learned from held wrong answers and ramblings beside the right ones.

    | level | questions |
    |---|---|
    | 1 | one person: who, what, where, when, which colour, how many, how did she feel; the answer stands there |
    | 2 | two persons who did different things, and the weather |
    | 3 | sums and differences of the numbers told, 0 to 20; the answer is a number in digits |

    ## Action Space
    ``Discrete(V)``: action i writes token i; EOS ends the answer.

    ## Observation Space
    ``Box(0, V, (96,), int64)``, the ids of the passage, ``Question: ... Answer:`` and the answer, right-padded with V.

    ## Rewards
    At the end ``0.7 correct + 0.3 token F1``, in [0, 1]. Correct is an exact match up to case, punctuation and
    articles, or, where the answer is a number, the right last number.

    ## Starting State
    A question of the split, ``"train"`` (2^20 a level) or ``"eval"`` (1000 others), and of the level (default: any).

    ## Episode End
    Terminated by EOS or after 16 tokens.

    ## Information
    As in ``TextGenEnv``, with ``score_normalised``: 0 is the untrained embedded LM, sampled, and 1 the optimum.

    ## Arguments
    ``split``, ``level``, ``data`` (with the columns ``context``, ``question`` and ``answer``), ``columns`` and ``chat``
    of ``textgym.tasks.task_keywords``, and those of ``TextGenEnv``.

    ## References
    Rajpurkar et al. 2016, SQuAD (arXiv:1606.05250), for the measures; Cobbe et al. 2021, Training verifiers to solve
    math word problems (arXiv:2110.14168), for checking the last number.

    ## Version History
    * v0: initial version.

    >>> env = TextGenQAEnv(split="eval", level=3)
    >>> _ = env.reset(seed=0)
    """

    defaults: ClassVar[dict[str, Any]] = {"task": "qa"}
