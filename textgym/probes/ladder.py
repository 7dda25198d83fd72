"""The probe environments, the easiest first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from textgym.probes import goals
from textgym.prompts import Sample, as_sample
from textgym.tokenizers import CharTokenizer

__all__ = ["PROBES", "Probe"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An environment whose optimum is known, and what it means to miss it.

    >>> from textgym.probes import PROBES
    >>> probe = PROBES["ProbeReverse-v0"]
    >>> probe.solve(Sample("ab")), PROBES["ProbeStop-v0"].optimal_ids(Sample("a"))
    ('ba', [0, 0, 0, 4])
    """

    id: str
    """The registered id."""
    aim: str
    """What is to be written, as the title of its page."""
    keywords: dict[str, Any]
    """The fields of ``TextGenConfig``, for ``gym.make("TextGen-v0", **keywords)`` and every other interface."""
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
        aim="Write b at every step.",
        keywords=_keywords("abcd", ["a"], goals.PlacesRight(_constant), 4),
        solve=_constant,
        optimal_return=1.0,
        random_return=(1 + 0.8 + 0.8**2 + 0.8**3) / 4 / 5,
        failing_means="It does not make more likely what is rewarded: check the loss's sign and the ids.",
        timesteps=4_000,
    ),
    Probe(
        id="ProbeBandit-v0",
        aim="Write a, whose mean reward is 1; that of b is 1/2, and a coin adds 1/2 to either or takes it.",
        keywords=_keywords("abcd", goals.arms(), goals.arm_pays, 1),
        solve=_best_arm,
        optimal_return=1.0,
        random_return=(1.0 + 0.5) / 5,
        failing_means="It takes luck for merit: it settles on an action before it has averaged enough noisy rewards.",
        timesteps=4_000,
    ),
    Probe(
        id="ProbePrompt-v0",
        aim="Write b after a, c after b, d after c, a after d.",
        keywords=_keywords("abcd", [*"abcd"], goals.PlacesRight(_answer), 1),
        solve=_answer,
        optimal_return=1.0,
        random_return=1 / 5,
        failing_means="It does not read its observation: every prompt gets the same answer.",
        timesteps=8_000,
    ),
    Probe(
        id="ProbeStop-v0",
        aim="Write any three letters and then EOS.",
        keywords=_keywords("abcd", ["a"], goals.stops_in_time, 6),
        solve=_long_enough,
        optimal_return=1.0,
        random_return=(0.8**2 / 2 + 0.8**3 + 0.8**4 / 2) / 5,
        failing_means="It does not learn when to end a text: EOS is masked, taken for padding, or learned too slowly.",
        timesteps=16_000,
    ),
    Probe(
        id="ProbeDelay-v0",
        aim="Write c, and then anything up to the end of the budget.",
        keywords=_keywords("abcd", ["a"], goals.first_decides, goals.DELAY),
        solve=_well_begun,
        optimal_return=1.0,
        random_return=(1 - 0.8**8) / (1 - 0.8) / 8 / 5,
        failing_means="A reward at the end does not reach the action that earned it: check returns, gamma and lambda.",
        timesteps=16_000,
    ),
    Probe(
        id="ProbeMemory-v0",
        aim="Write three letters of which the last is the first of the prompt.",
        keywords=_keywords("abcd", _words("ab", *["abcd"] * 3), goals.last_recalls, goals.MEMORY),
        solve=_recalled,
        optimal_return=1.0,
        random_return=0.8**2 / 5,
        failing_means="It forgets how the text began: its window, positions or cache lose early tokens.",
        timesteps=24_000,
    ),
    Probe(
        id="ProbeCopy-v0",
        aim="Write the prompt's two letters.",
        keywords=_keywords("abcd", _words("abcd", "abcd"), goals.PlacesRight(_copied), 2),
        solve=_copied,
        optimal_return=1.0,
        random_return=(1 + 0.8) / 2 / 5,
        failing_means="It does not find the token that counts at this step: steps and positions are confused.",
        timesteps=32_000,
    ),
    Probe(
        id="ProbeReverse-v0",
        aim="Write the prompt's two letters in reverse order.",
        keywords=_keywords("abcd", _words("abcd", "abcd"), goals.PlacesRight(_reversed), 2),
        solve=_reversed,
        optimal_return=1.0,
        random_return=(1 + 0.8) / 2 / 5,
        failing_means="It looks back over one fixed distance only, where each step needs another.",
        timesteps=32_000,
    ),
    Probe(
        id="ProbeTrap-v0",
        aim="Write at each step, of a to f, the first letter that is legal.",
        keywords=_keywords(
            "abcdef",
            goals.traps(),
            goals.PlacesRight(_past_the_traps),
            goals.NUM_STEPS,
            constraints=goals.HiddenTraps(),
            on_invalid_action="terminate",
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
