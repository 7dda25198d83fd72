"""The user's part in the texts: which tokens are the agent's, what the user said, and writing replies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.envs.components import Dialogue
from textgym.tokenizers import Tokenizer
from textgym.users import Reply

__all__ = ["Conversation"]


class Conversation:
    """The dialogues of N slots.

    Attributes:
        is_action: (N, L) bool, True at the tokens that the agent wrote.
        replies: N tuples of what the user has said since the prompt.
    """

    def __init__(self, dialogue: Dialogue, tokenizer: Tokenizer, num_envs: int, window: int) -> None:
        self.dialogue = dialogue
        self.tokenizer = tokenizer
        self.is_action = np.zeros((num_envs, window), dtype=np.bool_)
        self.replies: list[tuple[str, ...]] = [()] * num_envs

    def begin(self, slots: npt.NDArray[np.int64], texts: TextBatch) -> None:
        """Forget the slots' dialogues; the prefix of a completion counts as the agent's."""
        columns = np.arange(self.is_action.shape[1])
        self.is_action[slots] = (columns >= texts.prompt_lengths[:, None]) & (columns < texts.lengths[:, None])
        for slot in slots.tolist():
            self.replies[slot] = ()

    def ask(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> tuple[list[Reply], list[list[int]]]:
        """Return the user's replies to the K episodes of ``batch``, whose turns have ended, and what is to be written.

        Raises:
            ValueError: If there are not K replies, or one is longer than ``max_reply_tokens``.
            TypeError: If one is no reply.
        """
        replies = list(self.dialogue.user(batch, rngs))
        if len(replies) != len(batch):
            raise ValueError(f"the user gave {len(replies)} replies to {len(batch)} episodes")
        for reply in replies:
            if not isinstance(reply, Reply):
                raise TypeError(f"the user gave {reply!r:.60} of type {type(reply).__name__}, expected a Reply")
        assert batch.slots is not None
        is_last = self.num_turns(batch.slots) + 1 >= self.dialogue.max_turns
        return replies, [self._encoded(*pair) for pair in zip(replies, is_last.tolist(), strict=True)]

    def write(
        self,
        slots: npt.NDArray[np.int64],
        replies: Sequence[Reply],
        tokens: Sequence[Sequence[int]],
        ids: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> None:
        """Append K replies to the slots' texts: (N, L) ids and (N,) lengths, which are changed."""
        for slot, reply, new in zip(slots.tolist(), replies, tokens, strict=True):
            end = lengths[slot] + len(new)
            ids[slot, lengths[slot] : end] = new
            lengths[slot] = end
            if reply.text or reply.outcome is None:  # who leaves without a word has said nothing
                self.replies[slot] = (*self.replies[slot], reply.text)

    def num_turns(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (K,) int64, how often the user has replied in each slot."""
        return np.array([len(self.replies[slot]) for slot in slots.tolist()], dtype=np.int64)

    def _encoded(self, reply: Reply, is_last: bool) -> list[int]:
        """Return the ids of a reply in its frame; after the last one the agent is not asked to go on."""
        before, _, after = self.dialogue.reply_format.partition("{reply}")
        if reply.outcome is not None and not reply.text:
            return []
        is_last = is_last or reply.outcome is not None
        ids = self.tokenizer.encode(before + reply.text + ("" if is_last else after))
        if len(ids) > self.dialogue.max_reply_tokens:
            raise ValueError(
                f"the user's reply {reply.text!r:.60} has {len(ids)} tokens with its frame, max_reply_tokens is "
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
