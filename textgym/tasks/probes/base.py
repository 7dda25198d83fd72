"""What is known about a probe environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textgym.documented import documented_fields
from textgym.prompts import Sample

__all__ = ["Probe"]


@documented_fields
@dataclass(frozen=True, kw_only=True)
class Probe:
    """An environment whose optimum is known, and what it means to miss it.

    >>> from textgym.tasks.probes import PROBES
    >>> probe = PROBES["ProbeReverse-v0"]
    >>> probe.solve(Sample("ab")), PROBES["ProbeStop-v0"].optimal_ids(Sample("a"))
    ('ba', [0, 0, 0, 4])
    """

    id: str
    """The registered id, whose documentation says what is to be written."""
    keywords: dict[str, Any]
    """The fields of ``TextGenConfig``, for ``gym.make("TextGen-v0", **keywords)`` and every other face."""
    solve: Callable[[Sample], str]
    """The best completion of a sample; one that is shorter than the budget has to be ended by EOS."""
    optimal_return: float
    """Of the best agent, in expectation where the reward is noisy."""
    random_return: float
    """Expectation for the agent that draws each legal action with the same probability."""
    failing_means: str
    """What an agent that stays below the optimum gets wrong, in one sentence."""
    timesteps: int
    """Tokens within which a sound agent is there; a policy gradient on batches of 64 episodes takes less than half."""
    needs_masks: bool = False
    """Whether the agent has to be told the legal actions: nothing in the observation says which they are."""

    def optimal_ids(self, sample: Sample) -> list[int]:
        """Return the actions of the best agent, an EOS included where one is needed."""
        tokenizer = self.keywords["tokenizer"]
        ids: list[int] = tokenizer.encode(self.solve(sample))
        return ids if len(ids) == self.keywords["max_new_tokens"] else [*ids, tokenizer.eos_token_id]
