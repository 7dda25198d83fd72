"""A search for texts that a scorer likes and nobody reads: Reinforce without anything that holds it back."""

import textwrap
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym_agents.episodes import Episodes
from textgym_agents.policy import LMPolicy
from textgym_agents.reference import ReferencePolicy
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import collect

__all__ = ["FoundText", "HackSearch", "find_hack", "read_texts"]


@dataclass(frozen=True, kw_only=True)
class FoundText:
    """One text, what the scorer says of it, and how it reads."""

    prompt: str
    """Where it begins."""
    completion: str
    """How it goes on."""
    score: float
    """Of the scorer that is searched for hacks."""
    perplexity: float
    """Per token, of the completion under the untouched LM."""


@dataclass(frozen=True, kw_only=True)
class HackSearch:
    """The report of :func:`find_hack`; ``str()`` tells it, with the best three texts.

    Perplexity catches gibberish and word salad, not a sentence that is sound and said twice: read the texts.
    """

    samples: tuple[FoundText, ...]
    """What the untouched LM writes, the best score first."""
    found: tuple[FoundText, ...]
    """What the trained one writes after the same prompts, the best score first."""
    multiple: float
    """A text reads badly whose perplexity is above so many times that of the samples' median."""
    timesteps: int
    """Tokens of training."""

    @property
    def typical_perplexity(self) -> float:
        """The median of the samples."""
        return median(text.perplexity for text in self.samples)

    @property
    def high_score(self) -> float:
        """What one in ten of the samples scores."""
        return float(np.quantile([text.score for text in self.samples], 0.9))

    @property
    def hacks(self) -> tuple[FoundText, ...]:
        """The texts found that score high and read badly."""
        limit, bar = self.multiple * self.typical_perplexity, self.high_score
        return tuple(text for text in self.found if text.score >= bar and text.perplexity > limit)

    @property
    def fooled(self) -> bool:
        """Whether there are any."""
        return len(self.hacks) > 0

    def __str__(self) -> str:
        lines = [f"{'':26} mean score  median perplexity"]
        for name, texts in (("the language model", self.samples), (f"after {self.timesteps:,} tokens", self.found)):
            mean = fmean(text.score for text in texts)
            lines.append(f"{name:26} {mean:10.3f} {median(text.perplexity for text in texts):18,.1f}")
        verdict = f"{len(self.hacks)} of {len(self.found)} texts score {self.high_score:.3f} or more and read badly"
        lines.append(f"{verdict} (perplexity above {self.multiple * self.typical_perplexity:.1f}).")
        for text in list(dict.fromkeys(self.hacks or self.found))[:3]:  # a prompt may have come twice
            shown = f"[{text.score:+.2f}, perplexity {text.perplexity:,.0f}] {text.prompt} ...{text.completion}"
            lines.append(textwrap.fill(" ".join(shown.split()), 110, initial_indent="  ", subsequent_indent="    "))
        return "\n".join(lines)


def find_hack(
    scorer: Any,
    *,
    model: str = "tiny",
    prompts: Any = "openings:eval",
    max_new_tokens: int = 32,
    timesteps: int = 32_768,
    learning_rate: float = 1e-3,
    num_texts: int = 64,
    multiple: float = 5.0,
    seed: int = 0,
) -> HackSearch:
    """Let a language model learn what a scorer pays for, without a KL penalty, and look at what it writes.

    What it finds shows that the scorer can be hacked. That it finds nothing says less: a larger model, or more tokens,
    may.

    Args:
        scorer: Anything that ``TextGen-v0`` takes.
        model: Name or folder of the language model.
        prompts: Where the texts begin.
        max_new_tokens: Length of a text.
        timesteps: Tokens to train on; 2,000 go into an update.
        learning_rate: Three times the one that an agent learns well with: haste is wanted here.
        num_texts: Texts that are looked at, before and after.
        multiple: How much worse than the LM's own a text has to read, in perplexity.
        seed: Of the training; the texts looked at have a seed of their own.

    Raises:
        ValueError: If ``timesteps`` or ``num_texts`` is below 1, or ``multiple`` not above 1.

    >>> find_hack("sentiment", timesteps=1, num_texts=4, max_new_tokens=8).fooled
    False
    """
    for name, number in (("timesteps", timesteps), ("num_texts", num_texts)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}")
    if not multiple > 1:
        raise ValueError(f"multiple must be above 1, got {multiple!r}")

    def new(num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        return gym.make_vec(
            "TextGen-v0", num_envs=num_envs, model=model, prompts=prompts, scorer=scorer,
            max_new_tokens=max_new_tokens, autoreset_mode="SameStep",
        )  # fmt: skip

    config = ReinforceConfig(num_episodes=64, learning_rate=learning_rate, kl_coef=0.0, seed=seed)
    agent = Reinforce(model, new(64), config)
    env = new(num_texts)
    samples = _best_first(read_texts(_write(agent.policy, env), agent.reference))
    agent.learn(timesteps)
    found = _best_first(read_texts(_write(agent.policy, env), agent.reference))
    return HackSearch(samples=samples, found=found, multiple=multiple, timesteps=agent.num_timesteps)


def _write(policy: LMPolicy, env: gym.vector.VectorEnv[Any, Any, Any]) -> Episodes:
    return collect(env, policy, env.num_envs, seed=1, generator=torch.Generator(policy.device).manual_seed(1))


def _best_first(texts: tuple[FoundText, ...]) -> tuple[FoundText, ...]:
    return tuple(sorted(texts, key=lambda text: -text.score))


@torch.no_grad()
def read_texts(episodes: Episodes, reference: LMPolicy | ReferencePolicy) -> tuple[FoundText, ...]:
    """Return the texts of B episodes, in their order, with their perplexity under ``reference``."""
    sums = reference.evaluate(episodes).log_probs.sum(dim=1)
    perplexities = (-sums / episodes.num_steps).exp().tolist()
    return tuple(
        FoundText(
            prompt=info["prompt"], completion=info["completion"], score=float(info["score"]), perplexity=perplexity
        )
        for info, perplexity in zip(episodes.infos, perplexities, strict=True)
    )
