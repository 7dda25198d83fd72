"""The simulated user's replies between the agent's turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.tokenizers import Tokenizer
from textgym.users import Reply, User

__all__ = ["Dialogue", "UserTurns"]


@dataclass(frozen=True)
class Dialogue:
    """Settings of a dialogue with a simulated user."""

    user: User
    max_turns: int
    """Turns of the agent; the end of the last one terminates the episode."""
    max_reply_tokens: int
    """Largest number of tokens of a formatted reply."""
    reply_format: str
    """The text written for ``{reply}``; the part after it, the cue for the agent, is left out after the last reply."""


class UserTurns:
    """The user's replies in N slots.

    Attributes:
        is_action: (N, L) bool, True at the tokens that the agent wrote.
        replies: N tuples of the user's replies since the prompt.
    """

    def __init__(self, dialogue: Dialogue, tokenizer: Tokenizer, num_envs: int, window: int) -> None:
        self.dialogue = dialogue
        self.tokenizer = tokenizer
        self.is_action = np.zeros((num_envs, window), dtype=np.bool_)
        self.replies: list[tuple[str, ...]] = [()] * num_envs

    def reset(self, slots: npt.NDArray[np.int64], texts: TextBatch) -> None:
        """Clear the slots' dialogues; the prefix of a completion counts as the agent's."""
        columns = np.arange(self.is_action.shape[1])
        self.is_action[slots] = (columns >= texts.prompt_lengths[:, None]) & (columns < texts.lengths[:, None])
        for slot in slots.tolist():
            self.replies[slot] = ()

    def reply(
        self,
        batch: TextBatch,
        rngs: Sequence[np.random.Generator],
        ids: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> list[tuple[str, npt.NDArray[np.bool_]]]:
        """Append the user's replies to K episodes whose turns have ended, in (N, L) ids and (N,) lengths.

        Returns:
            The reasons why dialogues end, each with a (K,) mask: the outcomes of replies, and ``"max_turns"``.

        Raises:
            ValueError: If there are not K replies, or one is longer than ``max_reply_tokens``.
            TypeError: If one is not a ``Reply``.
        """
        assert batch.slots is not None
        replies = list(self.dialogue.user(batch, rngs))
        if len(replies) != len(batch):
            raise ValueError(f"the user gave {len(replies)} replies to {len(batch)} episodes")
        for reply in replies:
            if not isinstance(reply, Reply):
                raise TypeError(f"the user gave {reply!r:.60} of type {type(reply).__name__}, expected a Reply")
        slots = batch.slots.tolist()
        is_last = [len(self.replies[slot]) + 1 >= self.dialogue.max_turns for slot in slots]
        tokens = [self._encoded(*pair) for pair in zip(replies, is_last, strict=True)]
        for slot, reply, new in zip(slots, replies, tokens, strict=True):
            end = lengths[slot] + len(new)
            ids[slot, lengths[slot] : end] = new
            lengths[slot] = end
            if reply.text or reply.outcome is None:  # an outcome without a text is no reply
                self.replies[slot] = (*self.replies[slot], reply.text)
        outcomes = [reply.outcome for reply in replies]
        reasons = [
            (name, np.array([outcome == name for outcome in outcomes]))
            for name in dict.fromkeys(outcomes)
            if name is not None
        ]
        used_up = np.array([len(self.replies[slot]) >= self.dialogue.max_turns for slot in slots])
        return [*reasons, ("max_turns", used_up)]

    def _encoded(self, reply: Reply, is_last: bool) -> list[int]:
        """Return the ids of a formatted reply, without the cue for the agent where no turn follows."""
        before, _, after = self.dialogue.reply_format.partition("{reply}")
        if reply.outcome is not None and not reply.text:
            return []
        is_last = is_last or reply.outcome is not None
        ids = self.tokenizer.encode(before + reply.text + ("" if is_last else after))
        if len(ids) > self.dialogue.max_reply_tokens:
            raise ValueError(
                f"the user's reply {reply.text!r:.60} has {len(ids)} tokens as formatted, max_reply_tokens is "
                f"{self.dialogue.max_reply_tokens}; make it larger or the replies shorter"
            )
        return ids

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that ``set_state`` needs."""
        return {"is_action": self.is_action.copy(), "replies": list(self.replies)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of ``get_state``."""
        self.is_action = state["is_action"].copy()
        self.replies = list(state["replies"])
