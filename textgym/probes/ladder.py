"""The probe environments, in order of difficulty: prompts, scorers, optimal texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.prompts import Sample, as_sample
from textgym.scorers.base import FloatArray, Scorer
from textgym.tokenizers import CharTokenizer

__all__ = ["PROBES", "Probe", "probe_keywords"]

DELAY = 8
"""Tokens of the completion in ProbeDelay, the first of which decides the reward."""
LENGTH = 3
"""Letters before EOS in ProbeStop."""
MEMORY = 3
"""Letters of the completion in ProbeMemory, the last of which has to be the prompt's first."""
ARMS = {"a": 1.0, "b": 0.5}
"""Mean reward of each arm in ProbeBandit."""
ARM_NOISE = 0.5
"""Added to or subtracted from an arm's reward with equal probability."""
NUM_STEPS = 3
"""Steps of an episode in ProbeTrap."""
NUM_TRAPS = 2
"""Invalid letters at each of them."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An environment with a known optimum.

    >>> from textgym.probes import PROBES
    >>> probe = PROBES["ProbeReverse-v0"]
    >>> probe.optimal_text(Sample("ab")), PROBES["ProbeStop-v0"].optimal_ids(Sample("a"))
    ('ba', [0, 0, 0, 4])
    """

    id: str
    """Registered id."""
    aim: str
    """The task in one sentence, which is the title of the documentation page."""
    keywords: dict[str, Any]
    """Fields of ``TextGenConfig``, for ``gym.make("TextGen-v0", **keywords)`` and every other interface."""
    optimal_text: Callable[[Sample], str]
    """Returns an optimal completion of a sample, without EOS; one shorter than the budget has to end with EOS."""
    optimal_return: float
    """Greatest expected return."""
    random_return: float
    """Expected return of the uniform policy over valid actions."""
    diagnosis: str
    """Likely cause of a return below the optimum, in one sentence."""
    timesteps: int
    """Training budget in tokens. A policy gradient on batches of 64 episodes needs less than half."""
    needs_masks: bool = False
    """Whether the agent needs action masks, because no observation shows the valid actions."""

    def optimal_ids(self, sample: Sample) -> list[int]:
        """Return optimal actions for a sample, including EOS where it is needed."""
        tokenizer = self.keywords["tokenizer"]
        ids: list[int] = tokenizer.encode(self.optimal_text(sample))
        return ids if len(ids) == self.keywords["max_new_tokens"] else [*ids, tokenizer.eos_token_id]


# Scorers and constraints ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LetterAccuracy(Scorer):
    """Share of the positions of the target text at which the completion has the same letter.

    Range [0, 1]; an empty completion scores 0. Deterministic. Not incremental.

    >>> LetterAccuracy(lambda sample: sample.prompt)(TextBatch.from_texts(["abb", "a", ""], ["aba"] * 3)).round(2)
    array([0.67, 0.33, 0.  ])
    """

    target: Callable[[Sample], str]
    """Returns the target text of a sample."""

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        targets = [self.target(sample) for sample in batch.samples]
        pairs = zip(batch.completions, targets, strict=True)
        return np.array([sum(map(str.__eq__, text, goal)) / len(goal) for text, goal in pairs], dtype=np.float64)


def delay_score(batch: TextBatch) -> FloatArray:
    """Return (B,) length / ``DELAY`` of completions that begin with c; 0 for any other."""
    return np.array([text.startswith("c") * len(text) / DELAY for text in batch.completions], dtype=np.float64)


def memory_score(batch: TextBatch) -> FloatArray:
    """Return (B,) 1 where the completion has ``MEMORY`` letters and ends with the prompt's first one, else 0."""
    pairs = zip(batch.completions, batch.prompts, strict=True)
    return np.array([len(text) == MEMORY and text[-1:] == prompt[:1] for text, prompt in pairs], dtype=np.float64)


def length_score(batch: TextBatch) -> FloatArray:
    """Return (B,) 1 where the completion has ``LENGTH`` letters, 1/2 where it is one letter off, else 0."""
    lengths = np.array([len(text) for text in batch.completions], dtype=np.float64)
    return np.maximum(0.0, 1.0 - np.abs(lengths - LENGTH) / 2)


def arm_reward(batch: TextBatch) -> FloatArray:
    """Return (B,) mean plus noise of the selected arm; 0 where none was selected."""
    pulls = zip(batch.completions, batch.metadata, strict=True)
    rewards = [ARMS[arm] + data.get("noise", {}).get(arm, 0.0) if arm in ARMS else 0.0 for arm, data in pulls]
    return np.array(rewards, dtype=np.float64)


class HiddenTraps:
    """At step t the letters of the sample's ``metadata["traps"][t]`` are invalid; no observation shows them."""

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        for row, (data, step) in enumerate(zip(batch.metadata, batch.num_new_tokens.tolist(), strict=True)):
            for letters in data.get("traps", ())[step : step + 1]:
                mask[row, batch.tokenizer.encode(letters)] = False
        return mask


# Prompts --------------------------------------------------------------------------------------------------------------


def words(*positions: str) -> list[str]:
    """Return all words with a letter of each position's alphabet."""
    return ["".join(word) for word in product(*positions)]


def bandit_prompts() -> list[Sample]:
    """Return the prompt ``a`` with every combination of the arms' noise as metadata."""
    signs = product((-ARM_NOISE, ARM_NOISE), repeat=len(ARMS))
    return [Sample("a", metadata={"noise": dict(zip(ARMS, pair, strict=True))}) for pair in signs]


def trap_prompts() -> list[Sample]:
    """Return the prompt ``a`` with every combination of the steps' invalid letters as metadata."""
    steps = product(map("".join, combinations("abcdef", NUM_TRAPS)), repeat=NUM_STEPS)
    return [Sample("a", metadata={"traps": list(letters)}) for letters in steps]


# Optimal texts: functions of this module, so that a probe can be pickled ----------------------------------------------


def _constant(sample: Sample) -> str:
    return "bbbb"


def _best_arm(sample: Sample) -> str:
    return "a"


def _next_letter(sample: Sample) -> str:
    return sample.prompt.translate(str.maketrans("abcd", "bcda"))


def _right_length(sample: Sample) -> str:
    return "a" * LENGTH


def _right_start(sample: Sample) -> str:
    return "c" * DELAY


def _first_letter(sample: Sample) -> str:
    return sample.prompt[0] * MEMORY


def _copy(sample: Sample) -> str:
    return sample.prompt


def _reverse(sample: Sample) -> str:
    return sample.prompt[::-1]


def _first_valid_letters(sample: Sample) -> str:
    traps = sample.metadata.get("traps", [""] * NUM_STEPS)
    return "".join(next(letter for letter in "abcdef" if letter not in trap) for trap in traps)


# Probes ---------------------------------------------------------------------------------------------------------------


def _keywords(
    letters: str, prompts: Sequence[str | Sample], scorer: Any, max_new_tokens: int, **others: Any
) -> dict[str, Any]:
    """Return the fields of ``TextGenConfig``."""
    return {
        "tokenizer": CharTokenizer(letters),
        "prompts": prompts,
        "scorer": scorer,
        "max_new_tokens": max_new_tokens,
        "max_prompt_tokens": max(len(as_sample(prompt).prompt) for prompt in prompts),
        "time_limit": "terminated",
        **others,
    }


# The uniform policy writes EOS with probability 1/V, so step t is reached with probability (1 - 1/V)**t.
_PROBES = [
    Probe(
        id="ProbeConstant-v0",
        aim="Write b at every step.",
        keywords=_keywords("abcd", ["a"], LetterAccuracy(_constant), 4),
        optimal_text=_constant,
        optimal_return=1.0,
        random_return=(1 + 0.8 + 0.8**2 + 0.8**3) / 4 / 5,
        diagnosis="Rewarded actions do not become more likely: check the sign of the loss and the action ids.",
        timesteps=4_000,
    ),
    Probe(
        id="ProbeBandit-v0",
        aim="Write a, whose mean reward is 1; that of b is 1/2. Independent noise of +-1/2 is added.",
        keywords=_keywords("abcd", bandit_prompts(), arm_reward, 1),
        optimal_text=_best_arm,
        optimal_return=1.0,
        random_return=(1.0 + 0.5) / 5,
        diagnosis="The policy commits to an arm before enough noisy rewards are averaged.",
        timesteps=4_000,
    ),
    Probe(
        id="ProbePrompt-v0",
        aim="Write b after a, c after b, d after c, a after d.",
        keywords=_keywords("abcd", [*"abcd"], LetterAccuracy(_next_letter), 1),
        optimal_text=_next_letter,
        optimal_return=1.0,
        random_return=1 / 5,
        diagnosis="The agent does not read its observation: every prompt gets the same completion.",
        timesteps=8_000,
    ),
    Probe(
        id="ProbeStop-v0",
        aim="Write any three letters and then EOS.",
        keywords=_keywords("abcd", ["a"], length_score, 6),
        optimal_text=_right_length,
        optimal_return=1.0,
        random_return=(0.8**2 / 2 + 0.8**3 + 0.8**4 / 2) / 5,
        diagnosis="The agent does not learn when to write EOS: it is masked, taken for padding, or learned too slowly.",
        timesteps=16_000,
    ),
    Probe(
        id="ProbeDelay-v0",
        aim="Write c first, then anything up to the end of the budget.",
        keywords=_keywords("abcd", ["a"], delay_score, DELAY),
        optimal_text=_right_start,
        optimal_return=1.0,
        random_return=(1 - 0.8**8) / (1 - 0.8) / 8 / 5,
        diagnosis="The terminal reward is not credited to the first action: check returns, gamma and lambda.",
        timesteps=16_000,
    ),
    Probe(
        id="ProbeMemory-v0",
        aim="Write three letters, the last of which is the prompt's first.",
        keywords=_keywords("abcd", words("ab", *["abcd"] * 3), memory_score, MEMORY),
        optimal_text=_first_letter,
        optimal_return=1.0,
        random_return=0.8**2 / 5,
        diagnosis="Early tokens are lost: check the window, the positions and the KV cache.",
        timesteps=24_000,
    ),
    Probe(
        id="ProbeCopy-v0",
        aim="Write the prompt's two letters.",
        keywords=_keywords("abcd", words("abcd", "abcd"), LetterAccuracy(_copy), 2),
        optimal_text=_copy,
        optimal_return=1.0,
        random_return=(1 + 0.8) / 2 / 5,
        diagnosis="The agent does not attend to the token of the current step: check steps and positions.",
        timesteps=32_000,
    ),
    Probe(
        id="ProbeReverse-v0",
        aim="Write the prompt's two letters in reverse order.",
        keywords=_keywords("abcd", words("abcd", "abcd"), LetterAccuracy(_reverse), 2),
        optimal_text=_reverse,
        optimal_return=1.0,
        random_return=(1 + 0.8) / 2 / 5,
        diagnosis="The agent attends to one fixed distance, but each step needs another.",
        timesteps=32_000,
    ),
    Probe(
        id="ProbeTrap-v0",
        aim="Write at each step the first valid letter of a to f.",
        keywords=_keywords(
            "abcdef",
            trap_prompts(),
            LetterAccuracy(_first_valid_letters),
            NUM_STEPS,
            constraints=HiddenTraps(),
            on_invalid_action="terminate",
        ),
        optimal_text=_first_valid_letters,
        optimal_return=1.0,
        random_return=(1 + 0.8 + 0.8**2) / 3 / 5,
        diagnosis="The agent acts or learns without the masks, or with those of another step.",
        timesteps=12_000,
        needs_masks=True,
    ),
]

PROBES: dict[str, Probe] = {probe.id: probe for probe in _PROBES}
"""All probes by id, in order of difficulty."""


def probe_keywords(*, probe: str, **keywords: Any) -> dict[str, Any]:
    """Return the ``TextGenConfig`` keywords of a probe environment.

    Args:
        probe: Id of the probe.
        **keywords: Fields of ``TextGenConfig``, which override the probe's.

    Raises:
        ValueError: If there is no such probe.

    >>> from textgym import TextGenEnv
    >>> env = TextGenEnv(id="ProbeCopy-v0")
    >>> env.reset(seed=0, options={"prompt": "ca"})[0]
    array([2, 0, 5, 5])
    """
    if probe not in PROBES:
        raise unknown_name("probe", probe, PROBES)
    return {**PROBES[probe].keywords, **keywords}
