"""The probes themselves, the easiest first."""

from itertools import product
from typing import Any

from textgym.prompts import Sample
from textgym.tasks.probes import goals
from textgym.tasks.probes.base import Probe
from textgym.tokenizers import CharTokenizer

__all__ = ["PROBES"]


def _keywords(letters: str, prompts: Any, scorer: Any, max_new_tokens: int, **others: Any) -> dict[str, Any]:
    """Return the fields of ``TextGenConfig``; prompts that are no list have one letter."""
    return {
        "tokenizer": CharTokenizer(letters),
        "prompts": prompts,
        "scorer": scorer,
        "max_new_tokens": max_new_tokens,
        "max_prompt_tokens": max(map(len, prompts)) if isinstance(prompts, list) else 1,
        "time_limit": "terminated",
        **others,
    }


def _words(*places: str) -> list[str]:
    """Return all words that take a letter from each place."""
    return ["".join(word) for word in product(*places)]


def _constant(sample: Sample) -> str:
    return "bbbb"


def _best_arm(sample: Sample) -> str:
    return "a"


def _answer(sample: Sample) -> str:
    return sample.prompt.translate(str.maketrans("abcd", "bcda"))


def _long_enough(sample: Sample) -> str:
    return "a" * goals.LENGTH


def _well_begun(sample: Sample) -> str:
    return "c" * goals.DELAY


def _recalled(sample: Sample) -> str:
    return sample.prompt[0] * goals.MEMORY


def _copied(sample: Sample) -> str:
    return sample.prompt


def _reversed(sample: Sample) -> str:
    return sample.prompt[::-1]


def _past_the_traps(sample: Sample) -> str:
    traps = sample.metadata.get("traps", [""] * goals.NUM_STEPS)
    return "".join(next(letter for letter in "abcdef" if letter not in trap) for trap in traps)


# The random agent writes one of V tokens, so that step t is reached with probability (1 - 1/V)**t.
_LADDER = [
    Probe(
        id="ProbeConstant-v0",
        keywords=_keywords("abcd", ["a"], goals.PlacesRight(_constant), 4),
        solve=_constant,
        optimal_return=1.0,
        random_return=(1 + 0.8 + 0.8**2 + 0.8**3) / 4 / 5,
        failing_means="It does not make more likely what is rewarded: check the loss's sign and the ids.",
        timesteps=4_000,
    ),
    Probe(
        id="ProbeBandit-v0",
        keywords=_keywords("abcd", goals.arms, goals.arm_pays, 1),
        solve=_best_arm,
        optimal_return=1.0,
        random_return=(1.0 + 0.5) / 5,
        failing_means="It takes luck for merit: it settles on an action before it has averaged enough noisy rewards.",
        timesteps=4_000,
    ),
    Probe(
        id="ProbePrompt-v0",
        keywords=_keywords("abcd", [*"abcd"], goals.PlacesRight(_answer), 1),
        solve=_answer,
        optimal_return=1.0,
        random_return=1 / 5,
        failing_means="It does not read its observation: every prompt gets the same answer.",
        timesteps=8_000,
    ),
    Probe(
        id="ProbeStop-v0",
        keywords=_keywords("abcd", ["a"], goals.stops_in_time, 6),
        solve=_long_enough,
        optimal_return=1.0,
        random_return=(0.8**2 / 2 + 0.8**3 + 0.8**4 / 2) / 5,
        failing_means="It does not learn when to end a text: EOS is masked, taken for padding, or learned too slowly.",
        timesteps=16_000,
    ),
    Probe(
        id="ProbeDelay-v0",
        keywords=_keywords("abcd", ["a"], goals.first_decides, goals.DELAY),
        solve=_well_begun,
        optimal_return=1.0,
        random_return=(1 - 0.8**8) / (1 - 0.8) / 8 / 5,
        failing_means="A reward at the end does not reach the action that earned it: check returns, gamma and lambda.",
        timesteps=16_000,
    ),
    Probe(
        id="ProbeMemory-v0",
        keywords=_keywords("abcd", _words("ab", *["abcd"] * 3), goals.last_recalls, goals.MEMORY),
        solve=_recalled,
        optimal_return=1.0,
        random_return=0.8**2 / 5,
        failing_means="It forgets how the text began: its window, positions or cache lose early tokens.",
        timesteps=24_000,
    ),
    Probe(
        id="ProbeCopy-v0",
        keywords=_keywords("abcd", _words("abcd", "abcd"), goals.PlacesRight(_copied), 2),
        solve=_copied,
        optimal_return=1.0,
        random_return=(1 + 0.8) / 2 / 5,
        failing_means="It does not find the token that counts at this step: steps and positions are confused.",
        timesteps=32_000,
    ),
    Probe(
        id="ProbeReverse-v0",
        keywords=_keywords("abcd", _words("abcd", "abcd"), goals.PlacesRight(_reversed), 2),
        solve=_reversed,
        optimal_return=1.0,
        random_return=(1 + 0.8) / 2 / 5,
        failing_means="It looks back over one fixed distance only, where each step needs another.",
        timesteps=32_000,
    ),
    Probe(
        id="ProbeTrap-v0",
        keywords=_keywords(
            "abcdef",
            goals.traps,
            goals.PlacesRight(_past_the_traps),
            goals.NUM_STEPS,
            constraints=goals.HiddenTraps(),
            on_illegal_action="terminate",
        ),
        solve=_past_the_traps,
        optimal_return=1.0,
        random_return=(1 + 0.8 + 0.8**2) / 3 / 5,
        failing_means="It acts or learns without the masks, or with another step's: it hits traps, or gives up.",
        timesteps=12_000,
        needs_masks=True,
    ),
]

PROBES: dict[str, Probe] = {probe.id: probe for probe in _LADDER}
"""Every probe by its id, in ladder order."""
