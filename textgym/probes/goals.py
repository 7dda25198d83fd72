"""What the probes reward and forbid, and where their episodes start."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.prompts import Sample
from textgym.scorers.base import FloatArray, Scorer

__all__ = [
    "DELAY",
    "LENGTH",
    "MEMORY",
    "NUM_STEPS",
    "HiddenTraps",
    "PlacesRight",
    "arm_pays",
    "arms",
    "first_decides",
    "last_recalls",
    "stops_in_time",
    "traps",
]


DELAY = 8
"""Tokens of the delayed reward's episode, the first of which decides it."""
LENGTH = 3
"""Letters to write before EOS."""
MEMORY = 3
"""Tokens of the completion whose last one is to repeat the prompt's first one."""
ARMS = {"a": 1.0, "b": 0.5}
"""Mean reward of the bandit's arms."""
ARM_NOISE = 0.5
"""What a coin adds to an arm's reward, or takes from it."""
NUM_STEPS = 3
"""Steps of an episode with traps."""
NUM_TRAPS = 2
"""Letters that are invalid at each of them."""


@dataclass(frozen=True)
class PlacesRight(Scorer):
    """Share of the places of the right text that hold its letter.

    Range [0, 1]; an empty completion scores 0. Deterministic. Not incremental.

    >>> PlacesRight(lambda sample: sample.prompt)(TextBatch.from_texts(["abb", "a", ""], ["aba"] * 3)).round(2)
    array([0.67, 0.33, 0.  ])
    """

    solve: Callable[[Sample], str]
    """The right text of a sample."""

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        right = [self.solve(sample) for sample in batch.samples]
        pairs = zip(batch.completions, right, strict=True)
        return np.array([sum(map(str.__eq__, text, goal)) / len(goal) for text, goal in pairs], dtype=np.float64)


def first_decides(batch: TextBatch) -> FloatArray:
    """Return (B,) share of ``DELAY`` that a completion beginning with c fills; 0 for any other one."""
    return np.array([text.startswith("c") * len(text) / DELAY for text in batch.completions], dtype=np.float64)


def last_recalls(batch: TextBatch) -> FloatArray:
    """Return (B,) 1 where the completion is ``MEMORY`` letters that end with the prompt's first one, else 0."""
    pairs = zip(batch.completions, batch.prompts, strict=True)
    return np.array([len(text) == MEMORY and text[-1:] == prompt[:1] for text, prompt in pairs], dtype=np.float64)


def stops_in_time(batch: TextBatch) -> FloatArray:
    """Return (B,) 1 where the completion has ``LENGTH`` letters, 1/2 one letter off, else 0."""
    lengths = np.array([len(text) for text in batch.completions], dtype=np.float64)
    return np.maximum(0.0, 1.0 - np.abs(lengths - LENGTH) / 2)


def arms() -> list[Sample]:
    """Return the bandit's only prompt once for each pair of coins, the noise of both arms, as metadata."""
    coins = product((-ARM_NOISE, ARM_NOISE), repeat=len(ARMS))
    return [Sample("a", metadata={"noise": dict(zip(ARMS, pair, strict=True))}) for pair in coins]


def arm_pays(batch: TextBatch) -> FloatArray:
    """Return (B,) mean and noise of the arm that was pulled, 0 where none was."""
    pulls = zip(batch.completions, batch.metadata, strict=True)
    rewards = [ARMS[arm] + data.get("noise", {}).get(arm, 0.0) if arm in ARMS else 0.0 for arm, data in pulls]
    return np.array(rewards, dtype=np.float64)


def traps() -> list[Sample]:
    """Return the trap's only prompt once for each choice of the letters that are invalid at each step, as metadata."""
    steps = product(map("".join, combinations("abcdef", NUM_TRAPS)), repeat=NUM_STEPS)
    return [Sample("a", metadata={"traps": list(letters)}) for letters in steps]


class HiddenTraps:
    """At step t the letters of the sample's ``metadata["traps"][t]`` are invalid; no observation shows them."""

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        for row, (data, step) in enumerate(zip(batch.metadata, batch.num_new_tokens.tolist(), strict=True)):
            for letters in data.get("traps", ())[step : step + 1]:
                mask[row, batch.tokenizer.encode(letters)] = False
        return mask
