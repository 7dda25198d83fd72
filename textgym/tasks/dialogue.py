"""The multi-turn task: a shop assistant serves a simulated customer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.scorers import Scorer, WeightedSum
from textgym.tasks.base import Page, Row, Task, data_file, register_task
from textgym.tasks.shop import ShoppingGoal, customer_reply, optimal_reply, progress
from textgym.tasks.word_pairs import WordPairs, shop_sentences
from textgym.users import Reply, ScriptedUser

__all__ = ["GoalProgress"]


class GoalProgress(Scorer):
    """Share of the customer's goal that the agent has reached.

    Formula: the share of the requested items that were handed over in the right number and colour, minus 0.25 per
    mistake, at least 0. Range: [0, 1]. An empty dialogue scores 0; a sample without a ``goal`` NaN. Deterministic.
    Not incremental.

    >>> from textgym.tasks import TASKS, task_prompts
    >>> task, sample = TASKS["dialogue"], task_prompts("dialogue", level=1)[0]
    >>> GoalProgress()(TextBatch.from_texts([task.optimal_turn(sample), "Hello!"], metadata=[sample.metadata] * 2))
    array([1., 0.])
    """

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.float64]:
        """Return (B,) float64."""
        goals = [row.get("goal") for row in batch.metadata]
        scores = [
            np.nan if goal is None else progress(ShoppingGoal.from_row(goal), turns)
            for goal, turns in zip(goals, batch.agent_turns, strict=True)
        ]
        return np.array(scores, dtype=np.float64)


def dialogue_scorer() -> Scorer:
    """Return the progress towards the goal; the naturalness of the agent's turns is only reported."""
    return WeightedSum({"goal_progress": (GoalProgress(), 1.0), "naturalness": (WordPairs(shop_sentences), 0.0)})


def customer(row: Mapping[str, Any], agent_turns: Sequence[str]) -> Reply:
    """Return the simulated customer's reply.

    Raises:
        ValueError: If the row has no goal, as in the user's own data.
    """
    if row.get("goal") is None:
        raise ValueError("the simulated customer needs the column goal; without it, give user=... and scorer=...")
    reply = customer_reply(ShoppingGoal.from_row(row["goal"]), agent_turns)
    return Reply(reply.text, reply.outcome)


def expert(row: Row, agent_turns: Sequence[str]) -> str:
    """Return the optimal next turn."""
    return optimal_reply(ShoppingGoal.from_row(row["goal"]), agent_turns)


register_task(
    Task(
        name="dialogue",
        id="TextGenDialogue-v0",
        data=partial(data_file, "dialogue"),
        num_levels=3,
        columns={"setting": "where the dialogue takes place", "opening": "what the user says first"},
        prompt="{setting}\nCustomer: {opening}\nHelper:",
        instruction="You are a shop assistant. Answer each customer in one short sentence. If the customer says "
        '"Two red apples, please." you say "Here are two red apples." If you do not know how many or which colour or '
        'kind, ask. {setting} Customer: "{opening}"',
        scorer=dialogue_scorer,
        expert=expert,
        keywords={
            "user": ScriptedUser(customer),
            "reward": "per_turn",
            "reply_format": "\nCustomer: {reply}\nHelper:",
            "max_turns": 6,
            "max_prompt_tokens": 48,
            "max_reply_tokens": 32,
            "max_new_tokens": 96,
            "suggested_kl_coef": 0.0,
        },
        chat_keywords={"max_prompt_tokens": 128, "max_reply_tokens": 48, "max_new_tokens": 128},
        page=Page(
            title="Serve a customer in a shop in several turns.",
            description="A simulated customer enters a shop with a goal and follows a script; the agent is the "
            "assistant. EOS ends a turn of the agent; the customer's reply is then appended to the text, as tokens "
            "that are not actions. The customer rejects a wrong item and leaves after two mistakes. The training text "
            "of the embedded LM contains assistants that chat, misunderstand or forget to ask besides good ones.",
            levels=(
                "customers with one request, stated completely",
                "customers with two requests, one after the other",
                "customers that do not state the number, colour or kind: the assistant has to ask",
            ),
            rewards="At the end of each turn the change of the score, which is the share of the goal that is reached "
            'minus 0.25 per mistake: the return is the final score, in [0, 1]. ``reward="terminal"`` gives all of it '
            'at the end. ``info["scores"]`` also has, with weight 0, ``naturalness``: the share of the pairs of '
            "adjacent words of the agent that occur in phrases of a shop assistant; repeated sentences have none.",
            ends='Terminated with ``end_reason`` ``"success"`` or ``"failure"`` by the customer, after six turns '
            '(``"max_turns"``)',
            arguments=", and a ``user`` and ``scorer`` of your own: a function of the messages or "
            "``textgym.users.LMUser``",
            references="Schatzmann et al. 2007, Agenda-based user simulation (aclanthology.org/N07-2038); Zhou et al. "
            "2024, ArCHer: training language model agents via hierarchical multi-turn RL (arXiv:2402.19446).",
        ),
    )
)
