"""The input of scorers, constraints, rewards and observations: B episodes, with text decoded on first use."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from textgym.prompts.base import Sample
from textgym.tokenizers import ByteTokenizer, Tokenizer
from textgym.tokenizers.base import TokenPieces

__all__ = ["TextBatch", "Turn"]

T = TypeVar("T")
Turn = dict[str, str]
"""A chat message: ``{"role": "user" | "assistant", "content": str}``."""


class TextBatch:
    """B episodes at one moment, as read-only arrays of token ids plus lazily decoded text.

    Args:
        tokenizer: Decodes the ids.
        ids: (B, L) int64, prompt then completion, right-padded.
        lengths: (B,) int64, tokens of prompt and completion together.
        prompt_lengths: (B,) int64.
        samples: B samples that the episodes started from.
        done: (B,) bool, whether the text is finished.
        slots: (B,) int64, indices of the episodes in their environment, or None outside of one.
        is_action: (B, L) bool, True at the tokens that the agent chose, or None where those are all after the prompt.
        replies: B sequences of a simulated user's replies, or None where there is no user.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        ids: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        prompt_lengths: npt.NDArray[np.int64],
        samples: Sequence[Sample],
        done: npt.NDArray[np.bool_],
        slots: npt.NDArray[np.int64] | None = None,
        is_action: npt.NDArray[np.bool_] | None = None,
        replies: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.ids = ids
        self.lengths = lengths
        self.prompt_lengths = prompt_lengths
        self.samples = samples
        self.done = done
        self.slots = slots
        self.is_action = is_action
        self.replies = replies
        self._derived: dict[Callable[[str], Any], list[Any]] = {}

    @classmethod
    def from_texts(
        cls,
        completions: Sequence[str],
        prompts: Sequence[str] | None = None,
        references: Sequence[Sequence[str]] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> "TextBatch":
        """Build a batch of finished episodes from plain texts, to try a scorer without an environment.

        Args:
            completions: B texts to be scored.
            prompts: B prompts; empty by default.
            references: B sequences of reference texts; empty by default.
            metadata: B mappings; empty by default.
            tokenizer: Gives the ids; bytes by default.

        Raises:
            ValueError: If the sequences differ in length.

        >>> TextBatch.from_texts(["a cat", "b"]).num_new_tokens
        array([5, 1])
        """
        size = len(completions)
        prompts = [""] * size if prompts is None else prompts
        references = [()] * size if references is None else references
        metadata = [{}] * size if metadata is None else metadata
        for name, column in (("prompts", prompts), ("references", references), ("metadata", metadata)):
            if len(column) != size:
                raise ValueError(f"{name} has {len(column)} entries for {size} completions")
        tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        samples = [Sample(*columns) for columns in zip(prompts, map(tuple, references), metadata, strict=True)]
        prompt_rows = [tokenizer.encode(prompt) for prompt in prompts]
        batch = cls.from_ids(tokenizer, prompt_rows, [tokenizer.encode(text) for text in completions], samples)
        batch.completions = list(completions)
        return batch

    @classmethod
    def from_ids(
        cls,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        samples: Sequence[Sample],
    ) -> "TextBatch":
        """Build a batch of finished episodes from the ids of B prompts and B completions.

        Raises:
            ValueError: If the sequences differ in length.
        """
        rows = [[*prompt, *completion] for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
        if len(samples) != len(rows):
            raise ValueError(f"{len(samples)} samples for {len(rows)} texts")
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        ids = np.full((len(rows), int(lengths.max(initial=0))), tokenizer.vocab_size, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        prompt_lengths = np.array([len(prompt) for prompt in prompt_ids], dtype=np.int64)
        return cls(tokenizer, ids, lengths, prompt_lengths, samples, np.ones(len(rows), dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_new_tokens(self) -> npt.NDArray[np.int64]:
        """(B,) int64, tokens of the completions."""
        return self.lengths - self.prompt_lengths

    @property
    def num_actions(self) -> npt.NDArray[np.int64]:
        """(B,) int64, tokens of the completions that the agent chose, without a simulated user's replies."""
        return self.num_new_tokens if self.is_action is None else self.is_action.sum(axis=1)

    @property
    def prompts(self) -> list[str]:
        """B prompt texts."""
        return [sample.prompt for sample in self.samples]

    @property
    def references(self) -> list[tuple[str, ...]]:
        """B tuples of reference texts."""
        return [sample.references for sample in self.samples]

    @property
    def metadata(self) -> list[Mapping[str, Any]]:
        """B mappings of further columns."""
        return [sample.metadata for sample in self.samples]

    @cached_property
    def completion_ids(self) -> list[list[int]]:
        """B lists of token ids, an EOS included where it was chosen."""
        spans = zip(self.ids, self.prompt_lengths.tolist(), self.lengths.tolist(), strict=True)
        return [row[start:end].tolist() for row, start, end in spans]

    @cached_property
    def completions(self) -> list[str]:
        """B completion texts, without special tokens."""
        return [self.tokenizer.decode(ids) for ids in self.completion_ids]

    @cached_property
    def agent_turns(self) -> list[list[str]]:
        """B lists of texts, one per turn of the agent, including an unfinished one.

        >>> TextBatch.from_texts(["a cat"]).agent_turns
        [['a cat']]
        """
        if self.is_action is None:
            return [[completion] for completion in self.completions]
        return [self._agent_turns(row, mask) for row, mask in zip(self.ids, self.is_action, strict=True)]

    def _agent_turns(self, row: npt.NDArray[np.int64], is_action: npt.NDArray[np.bool_]) -> list[str]:
        chosen = row[is_action]
        ends = np.flatnonzero(chosen == self.tokenizer.eos_token_id) + 1
        spans = np.split(chosen, ends)
        return [self.tokenizer.decode(span.tolist()) for span in spans if span.size]

    @property
    def turns(self) -> list[list[Turn]]:
        """B lists of chat messages after the prompt, of agent and user in turn.

        >>> TextBatch.from_texts(["a cat"]).turns
        [[{'role': 'assistant', 'content': 'a cat'}]]
        """
        dialogues = []
        for texts, replies in zip(self.agent_turns, self.replies or [()] * len(self), strict=True):
            turns: list[Turn] = []
            for i, text in enumerate(texts):
                turns.append({"role": "assistant", "content": text})
                turns += [{"role": "user", "content": reply} for reply in replies[i : i + 1]]
            dialogues.append(turns)
        return dialogues

    @property
    def turn_starts(self) -> npt.NDArray[np.int64]:
        """(B,) int64, the column after the prompt and a user's last reply, at which the agent's turn begins."""
        if self.is_action is None:
            return self.prompt_lengths
        columns = np.arange(self.ids.shape[1])
        others = ~self.is_action & (columns < self.lengths[:, None])
        return np.where(others, columns, -1).max(axis=1, initial=-1) + 1

    @property
    def turn_ended(self) -> npt.NDArray[np.bool_]:
        """(B,) bool, whether the agent's last token ended a turn; True at the end of the text."""
        if self.is_action is None:
            return self.done
        last = self.is_action.shape[1] - 1 - self.is_action[:, ::-1].argmax(axis=1)
        ended = self.is_action.any(axis=1) & (self.ids[np.arange(len(self)), last] == self.tokenizer.eos_token_id)
        return self.done | ended

    @property
    def last_ids(self) -> npt.NDArray[np.int64]:
        """(B,) int64, the last token of each text, of the prompt where the completion is empty."""
        last: npt.NDArray[np.int64] = self.ids[np.arange(len(self)), self.lengths - 1]
        return last

    @cached_property
    def last_pieces(self) -> list[str]:
        """B strings, the characters that the last token added to each completion, possibly none.

        The pieces of all tokens join to the completion. A token can end in the middle of a character, which then
        belongs to the piece of the next one. The cost does not depend on the length of the text.
        """
        if self.ids.shape[1] == 0:
            return [""] * len(self)
        pieces = TokenPieces.of(self.tokenizer)
        before = self.ids[np.arange(len(self)), np.maximum(self.lengths - 2, 0)].tolist()
        found = []
        for i, (token, size) in enumerate(zip(self.last_ids.tolist(), self.num_new_tokens.tolist(), strict=True)):
            piece = pieces[token] if size > 0 else ""
            if piece is None or (piece and size > 1 and not pieces[before[i]]):
                end = int(self.lengths[i])
                piece = pieces.last(map(int, self.ids[i, end - size : end][::-1]))
            found.append(piece)
        return found

    def derived(self, function: Callable[[str], T]) -> list[T]:
        """Return ``function`` of each completion, cached by function.

        >>> batch = TextBatch.from_texts(["a cat", "b"])
        >>> batch.derived(str.split), batch.derived(str.split) is batch.derived(str.split)
        ([['a', 'cat'], ['b']], True)
        """
        if function not in self._derived:
            self._derived[function] = [function(text) for text in self.completions]
        return self._derived[function]

    def select(self, index: npt.NDArray[Any]) -> "TextBatch":
        """Return the episodes at ``index`` ((K,) int64, or (B,) bool) as a batch of their own."""
        if index.dtype == np.bool_:
            index = np.flatnonzero(index)
        samples = [self.samples[i] for i in index.tolist()]
        part = TextBatch(
            self.tokenizer,
            self.ids[index],
            self.lengths[index],
            self.prompt_lengths[index],
            samples,
            self.done[index],
            None if self.slots is None else self.slots[index],
            None if self.is_action is None else self.is_action[index],
            None if self.replies is None else [self.replies[i] for i in index.tolist()],
        )
        for name in ("agent_turns", "completion_ids", "completions"):
            if name in self.__dict__:
                setattr(part, name, [self.__dict__[name][i] for i in index.tolist()])
        return part
