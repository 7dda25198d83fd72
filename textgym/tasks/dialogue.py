"""Serving a customer, in several turns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers.base import Scorer
from textgym.tasks.base import Page, Row, Task
from textgym.tasks.world.shopping import best_helper_reply, customer_opening, customer_reply, progress, shopping
from textgym.users import Reply, ScriptedUser

__all__ = ["DIALOGUE", "GoalProgress"]


class GoalProgress(Scorer):
    """How much of the customer's goal the helper has reached.

    Formula: the share of the wanted things that were handed over in the right number and colour, less a quarter for
    each mistake, at least 0. Range: [0, 1]. An empty dialogue scores 0; a sample without a ``goal`` NaN. Deterministic.
    Not incremental.

    >>> from textgym.tasks import TASKS
    >>> sample = TASKS["dialogue"].sample(rows(7, 1, 1))
    >>> best = DIALOGUE.best_turn(sample)
    >>> GoalProgress()(TextBatch.from_texts([best, "Hello!"], metadata=[sample.metadata] * 2))
    array([1., 0.])
    """

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.float64]:
        """Return (B,) float64."""
        goals = [row.get("goal") for row in batch.metadata]
        reached = [
            np.nan if goal is None else progress(goal, turns)
            for goal, turns in zip(goals, batch.agent_turns, strict=True)
        ]
        return np.array(reached, dtype=np.float64)


def rows(seed: int, index: int, level: int) -> Row:
    """Return a customer's goal, the scene, and what the customer says first."""
    goal = shopping(seed, index, level)
    return {"setting": goal.setting, "opening": customer_opening(goal), "goal": goal}


def customer(row: Mapping[str, Any], agent_turns: Sequence[str]) -> Reply:
    """Return the scripted customer's answer.

    Raises:
        ValueError: If the row has no goal: then the environment needs a ``user`` of its own.
    """
    if "goal" not in row:
        raise ValueError("the scripted customer needs a built-in goal; for other data give user=... and scorer=...")
    reply = customer_reply(row["goal"], agent_turns)
    return Reply(reply.text, reply.outcome)


def solve(row: Row, agent_turns: Sequence[str]) -> str:
    """Return what the best helper says."""
    return best_helper_reply(row["goal"], agent_turns)


DIALOGUE = Task(
    name="dialogue",
    id="TextGenDialogue-v0",
    rows=rows,
    columns={"setting": "where the dialogue takes place", "opening": "what the user says first"},
    prompt="{setting}\nCustomer: {opening}\nHelper:",
    instruction="You are a shop assistant. Answer each customer in one short sentence. If the customer says "
    '"Two red apples, please." you say "Here are two red apples." If you do not know how many or which colour or kind, '
    'ask. {setting} Customer: "{opening}"',
    scorer=GoalProgress,
    solve=solve,
    keywords={
        "user": ScriptedUser(customer),
        "reward": "per_turn",
        "reply_format": "\nCustomer: {reply}\nHelper:",
        "max_turns": 6,
        "max_prompt_tokens": 48,
        "max_reply_tokens": 32,
        "max_new_tokens": 96,
    },
    chat_keywords={"max_prompt_tokens": 128, "max_reply_tokens": 48, "max_new_tokens": 128},
    success_score=1.0,
    page=Page(
        title="Serve a customer: hand over what is asked for, in several turns.",
        description="A customer comes into a shop with a goal and follows a script; the agent is the helper. Its EOS "
        "ends its turn, and the customer's answer is written into the text, tokens that are no actions. A wrong thing "
        "is sent back; after two mistakes the customer leaves. What the embedded LM learned from held helpers who "
        "chat, mishear and forget to ask.",
        levels=(
            "customers who want one thing, and say what",
            "who want two, one after the other",
            "who do not say how many or of which colour: the helper has to ask",
        ),
        rewards="At the end of each turn what it added to the share of the goal that is reached, mistakes counted "
        'against it: the return is the final score, in [0, 1]. ``reward="terminal"`` gives all of it at the end.',
        ends='Terminated with ``end_reason`` ``"success"`` or ``"failure"`` by the customer, after six turns '
        '(``"max_turns"``)',
        arguments=", and a ``user`` and ``scorer`` of your own: a function of the messages or ``textgym.users.LMUser``",
        references="Schatzmann et al. 2007, Agenda-based user simulation (aclanthology.org/N07-2038); Zhou et al. "
        "2024, ArCHer: training language model agents via hierarchical multi-turn RL (arXiv:2402.19446).",
    ),
)
