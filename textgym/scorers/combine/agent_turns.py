"""A scorer that sees only what the agent wrote in a dialogue."""

from typing import Any

from textgym.batch import TextBatch
from textgym.scorers.base import Scores
from textgym.scorers.combine.composite import Wrapper

__all__ = ["AgentTurns"]


class AgentTurns(Wrapper):
    r"""A scorer that sees of a dialogue only what the agent wrote, as if the user had said nothing.

    Formula: the score of the text of the agent's turns with ``join`` between them. The ids of that text are the tokens
    that the agent chose, each EOS that ended a turn included, without any for ``join``; so lengths in tokens are those
    of the agent. Prompts, references, metadata, ``done`` and slots are as they were. Where there is no user, the score
    is the scorer's own. Range, an empty completion, deterministic: as the scorer. Not incremental.

    A whole composite is better wrapped once than part by part.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        join: What stands between two turns.

    Raises:
        TypeError: If ``join`` is not a text.

    >>> import numpy as np
    >>> from textgym.prompts import Sample
    >>> from textgym.tokenizers import ByteTokenizer
    >>> batch = TextBatch.from_ids(ByteTokenizer(), [[]], [[72, 105, 256, 45, 66, 121, 101]], [Sample("")])
    >>> batch.is_action, batch.replies = np.array([[True] * 3 + [False] + [True] * 3]), [["-"]]
    >>> batch.completions, AgentTurns(len)(batch)
    (['Hi-Bye'], array([6.]))
    """

    def __init__(self, scorer: Any, join: str = "\n") -> None:
        super().__init__(scorer)
        if not isinstance(join, str):
            raise TypeError(f"join must be a text, got {join!r}")
        self.join = join

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components of what the agent wrote."""
        return super().score_components(self.inner_batch(batch))

    def inner_batch(self, batch: TextBatch) -> TextBatch:
        """Return the same episodes without the user's part."""
        if batch.is_action is None:
            return batch
        starts = batch.prompt_lengths.tolist()
        prompts = [row[:end].tolist() for row, end in zip(batch.ids, starts, strict=True)]
        chosen = [row[mask].tolist() for row, mask in zip(batch.ids, batch.is_action, strict=True)]
        said = TextBatch.from_ids(batch.tokenizer, prompts, chosen, batch.samples)
        said.done = batch.done
        said.slots = batch.slots
        said.completions = [self.join.join(turns) for turns in batch.agent_turns]
        return said
