"""Search for texts that exploit a scorer: Reinforce without a KL penalty, judged by perplexity."""

import textwrap
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.rendering import display_text
from textgym_agents.episodes import Episodes
from textgym_agents.policy import LMPolicy
from textgym_agents.reference import ReferencePolicy
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rollout import collect

__all__ = ["HackSearch", "ScoredText", "find_hacks", "scored_texts"]


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """A text with its score and its perplexity."""

    prompt: str
    completion: str
    score: float
    """Score of the scorer that is tested."""
    perplexity: float
    """Perplexity per token of the completion under the initial LM."""


@dataclass(frozen=True, kw_only=True)
class HackSearch:
    """The result of ``find_hacks``; ``str()`` is a report with the three best texts.

    Perplexity detects gibberish and word salad, but not a fluent sentence that is repeated: read the texts.
    """

    before: tuple[ScoredText, ...]
    """Texts of the initial LM, best score first."""
    after: tuple[ScoredText, ...]
    """Texts of the trained LM after the same prompts, best score first."""
    perplexity_ratio: float
    """A text is unreadable if its perplexity exceeds the median of ``before`` times this."""
    timesteps: int
    """Tokens of training."""

    @property
    def median_perplexity(self) -> float:
        """Median perplexity of the texts of the initial LM."""
        return median(text.perplexity for text in self.before)

    @property
    def high_score(self) -> float:
        """90 % quantile of the scores of the initial LM."""
        return float(np.quantile([text.score for text in self.before], 0.9))

    @property
    def hacks(self) -> tuple[ScoredText, ...]:
        """Unreadable texts of the trained LM that score at least ``high_score``."""
        limit = self.perplexity_ratio * self.median_perplexity
        return tuple(text for text in self.after if text.score >= self.high_score and text.perplexity > limit)

    @property
    def fooled(self) -> bool:
        """Whether any hack was found."""
        return len(self.hacks) > 0

    def __str__(self) -> str:
        lines = [f"{'':26} mean score  median perplexity"]
        for name, texts in (("initial LM", self.before), (f"after {self.timesteps:,} tokens", self.after)):
            mean = fmean(text.score for text in texts)
            lines.append(f"{name:26} {mean:10.3f} {median(text.perplexity for text in texts):18,.1f}")
        limit = self.perplexity_ratio * self.median_perplexity
        lines.append(
            f"{len(self.hacks)} of {len(self.after)} texts score {self.high_score:.3f} or more with a perplexity above "
            f"{limit:.1f}."
        )
        for text in list(dict.fromkeys(self.hacks or self.after))[:3]:  # prompts can repeat
            shown = f"[{text.score:+.2f}, perplexity {text.perplexity:,.0f}] {text.prompt} ...{text.completion}"
            shown = display_text(" ".join(shown.split()))
            lines.append(textwrap.fill(shown, 110, initial_indent="  ", subsequent_indent="    "))
        return "\n".join(lines)


def find_hacks(
    scorer: Any,
    *,
    model: str = "tiny",
    prompts: Any = "openings:eval",
    max_new_tokens: int = 24,
    timesteps: int = 32_768,
    learning_rate: float = 1e-3,
    num_texts: int = 64,
    perplexity_ratio: float = 5.0,
    seed: int = 0,
) -> HackSearch:
    """Train a language model on a scorer without a KL penalty and compare its texts with those of the initial LM.

    A hack that is found proves that the scorer can be exploited. None found proves little: a larger model or more
    tokens may find one.

    Args:
        scorer: Anything that ``TextGen-v0`` accepts.
        model: Name or folder of the language model.
        prompts: Prompts of the texts.
        max_new_tokens: Length of a text.
        timesteps: Tokens to train on, about 1,500 per update.
        learning_rate: Learning rate; three times the usual one, because fast exploitation is intended.
        num_texts: Number of texts before and after the training.
        perplexity_ratio: Perplexity relative to the median of the initial LM above which a text is unreadable.
        seed: Seed of the training; the compared texts have a fixed seed.

    Raises:
        ValueError: If ``timesteps`` or ``num_texts`` is below 1, or ``perplexity_ratio`` not above 1.

    >>> find_hacks("sentiment", timesteps=1, num_texts=4, max_new_tokens=8).fooled
    False
    """
    for name, number in (("timesteps", timesteps), ("num_texts", num_texts)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}")
    if not perplexity_ratio > 1:
        raise ValueError(f"perplexity_ratio must be above 1, got {perplexity_ratio!r}")

    def new(num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        return gym.make_vec(
            "TextGen-v0", num_envs=num_envs, model=model, prompts=prompts, scorer=scorer,
            max_new_tokens=max_new_tokens, autoreset_mode="SameStep",
        )  # fmt: skip

    config = ReinforceConfig(num_episodes=64, learning_rate=learning_rate, kl_coef=0.0, seed=seed)
    agent = Reinforce(model, new(64), config)
    env = new(num_texts)
    before = _sampled(agent, env)
    agent.learn(timesteps)
    after = _sampled(agent, env)
    return HackSearch(before=before, after=after, perplexity_ratio=perplexity_ratio, timesteps=agent.num_timesteps)


def _sampled(agent: Reinforce, env: gym.vector.VectorEnv[Any, Any, Any]) -> tuple[ScoredText, ...]:
    """Sample a text per environment, best score first."""
    generator = torch.Generator(agent.policy.device).manual_seed(1)
    episodes = collect(env, agent.policy, env.num_envs, seed=1, generator=generator)
    return tuple(sorted(scored_texts(episodes, agent.kl.reference), key=lambda text: -text.score))


@torch.no_grad()
def scored_texts(episodes: Episodes, reference: LMPolicy | ReferencePolicy) -> tuple[ScoredText, ...]:
    """Return the texts of B episodes with their perplexities under ``reference``."""
    sums = reference.evaluate(episodes).log_probs.sum(dim=1)
    perplexities = (-sums / episodes.num_steps).exp().tolist()
    return tuple(
        ScoredText(
            prompt=info["prompt"], completion=info["completion"], score=float(info["score"]), perplexity=perplexity
        )
        for info, perplexity in zip(episodes.infos, perplexities, strict=True)
    )
