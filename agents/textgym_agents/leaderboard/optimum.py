"""The known optimum, played in the real environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.batch import TextBatch
from textgym.tasks import find_task
from textgym_agents.decoding.planner import Planner, Plans, empty_plans
from textgym_agents.policy import Policy

__all__ = ["BestTurns"]


class BestTurns(Planner):
    """Writes in each turn what the task says is best, and ends it with EOS.

    Args:
        policy: What the plans' log-probabilities would be asked of; only the width of its vocabulary counts.
        env: The environment that is being played, of any interface.
        task: The name of its task, which needs a known best turn.

    Raises:
        ValueError: If there is no such task, it knows no best turn, or the tokenizer has no EOS.
    """

    def __init__(self, policy: Policy, env: Any, task: str) -> None:
        super().__init__(policy, env)
        self.task = find_task(task)
        if self.env.eos_token_id is None:
            raise ValueError("the optimum ends its turns with EOS, but the tokenizer has none")
        self._eos = self.env.eos_token_id
        if self.task.solve is None and self.task.target is None:
            raise ValueError(f"task {task!r} has no best turn to play: neither a target nor a solve")

    def plan(self, slots: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Plan each text up to the end of its present turn; see ``Planner.plan``."""
        core = self.env.core
        plans = empty_plans(core.ids.shape, self.env.pad_token_id)
        plans.ids[:] = core.ids
        for slot in np.flatnonzero(slots).tolist():
            text = self.task.best_turn(core.samples[slot], self._said(slot))
            turn = [*self.env.tokenizer.encode(" " + text), self._eos]
            here = slice(core.lengths[slot], core.lengths[slot] + len(turn))
            plans.ids[slot, here], plans.is_action[slot, here] = turn, True
        return plans

    def _said(self, slot: int) -> Sequence[str]:
        """Return the agent's turns in a dialogue so far."""
        core = self.env.core
        if core.conversation is None:
            return ()
        one = slice(slot, slot + 1)
        text = TextBatch(
            self.env.tokenizer,
            core.ids[one],
            core.lengths[one],
            core.prompt_lengths[one],
            core.samples[one],
            ~core.running[one],
            is_action=core.conversation.is_action[one],
            replies=core.conversation.replies[one],
        )
        return text.agent_turns[0]
