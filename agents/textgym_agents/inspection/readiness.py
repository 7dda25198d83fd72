"""Readiness for training: one batch is tried before it, and what in it keeps the agent from learning is named."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym import TextGenVectorEnv
from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.prompts import GeneratorPrompts, Sample
from textgym.tokenizers import find_chat_template
from textgym_agents.agent import Agent
from textgym_agents.config import CriticConfig, check_count
from textgym_agents.episodes import Episodes
from textgym_agents.grpo import GRPO
from textgym_agents.inspection.statistics import Update, flat_groups
from textgym_agents.offline import OfflineAgent
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import Evaluation, LMPolicy
from textgym_agents.returns import discounted_returns
from textgym_agents.rollout import collect, text_env

__all__ = ["Finding", "Findings", "preflight"]

_MOST_EVALUATED = 16
"""Episodes that are evaluated a second time, to compare log-probabilities."""


@dataclass(frozen=True)
class Finding:
    """Something in the setting that keeps an agent from learning, or is worth a look."""

    name: str
    """Its name, such as ``"constant_return"``."""
    message: str
    """One sentence: what was found."""
    advice: str
    """One sentence: what to do."""
    is_fatal: bool = False
    """Whether nothing can be learned with it; otherwise it may be intended."""

    def __str__(self) -> str:
        return f"{'cannot learn' if self.is_fatal else 'check'}, {self.name}: {self.message}. {self.advice}"


class Findings(list[Finding]):
    """The findings, fatal ones first; ``print`` shows one per line.

    Attributes:
        tried: What was tried, in a few words.
    """

    def __init__(self, findings: Sequence[Finding], tried: str) -> None:
        super().__init__(sorted(findings, key=lambda finding: not finding.is_fatal))
        self.tried = tried

    def __str__(self) -> str:
        return "\n".join([f"preflight of {self.tried}: {len(self)} findings", *map(str, self)])


class _Trial(NamedTuple):
    """What a preflight looks at."""

    agent: Agent
    env: TextGenVectorEnv | None
    """A clone of the agent's environment, after the episodes; None offline."""
    episodes: Episodes
    evaluated: Episodes
    """The first of them."""
    evaluation: Evaluation | None
    """The evaluation of these by the policy as in an update; None if it is not an ``LMPolicy``."""


@torch.no_grad()
def preflight(agent: Agent, num_episodes: int | None = None, *, seed: int = 0) -> Findings:
    """Collect one batch of an agent without training on it, and return what keeps it from learning.

    Nothing is changed: the batch is collected in a clone of the environment, whose scorers and prompt sources do not
    learn from it, with a generator of its own. Wrappers of the environment are left out. An offline agent is tried on
    its first episodes.

    | finding | |
    | --- | --- |
    | ``not_finite`` | weights, logits or values are infinite or NaN |
    | ``learning_rate`` | it is 0, or no weight is trained |
    | ``scorer_failure`` | the scorer fails for some or all texts |
    | ``constant_return`` | all episodes have the same return |
    | ``flat_groups`` | all returns of most groups are equal |
    | ``value_targets`` | all targets of V are equal |
    | ``truncated`` | every episode is cut off at the token budget |
    | ``end`` | the policy cannot end a text by itself, or hardly ever would |
    | ``masked_reference`` | a reference text has tokens that are masked, or exceeds the token budget |
    | ``log_probs`` | the policy that is evaluated in updates differs from the one that acts |
    | ``chat_template`` | the model is a chat model, and its template is not in the prompts |

    Args:
        agent: An agent of textgym.
        num_episodes: Episodes to collect, by default as many as an update takes.
        seed: Seed of prompts and tokens.

    Returns:
        A list of findings, empty if there is none.

    Raises:
        TypeError: If ``agent`` is not an agent of textgym.
        ValueError: If ``num_episodes`` is less than 1, or the prompts are an iterator, which the batch would use up.

    >>> from textgym_agents import Reinforce
    >>> agent = Reinforce("tiny", "TextGen-v0", num_episodes=4, learning_rate=0.0, env_kwargs={"scorer": lambda _: 1.0})
    >>> [finding.name for finding in preflight(agent) if finding.is_fatal]
    ['learning_rate', 'constant_return']
    """
    if not isinstance(agent, OnlineAgent | OfflineAgent):
        raise TypeError(f"preflight tries an agent of textgym, got {type(agent).__name__}")
    if num_episodes is not None:
        num_episodes = check_count("num_episodes", num_episodes)
    found = [finding for check in _BEFORE if (finding := check(agent)) is not None]
    if any(finding.name == "not_finite" for finding in found):
        return Findings(found, "no episode")
    env = None
    try:
        if isinstance(agent, OnlineAgent):
            env = _clone(agent)
            size = agent.config.num_episodes if num_episodes is None else num_episodes
            generator = torch.Generator(agent.policy.device).manual_seed(seed)
            episodes = collect(env, agent.policy, size, seed=seed, generator=generator)
        else:
            episodes = agent.data[: agent.config.batch_size if num_episodes is None else num_episodes]
        evaluated = episodes[:_MOST_EVALUATED]
        evaluation = agent.policy.evaluate(evaluated) if isinstance(agent.policy, LMPolicy) else None
    except ScorerError as error:
        found.append(_scorer_failure(str(error), "every batch with such a text raises", is_fatal=True))
        return Findings(found, "no episode")
    except FloatingPointError as error:
        found.append(_not_finite(str(error)))
        return Findings(found, "no episode")
    trial = _Trial(agent, env, episodes, evaluated, evaluation)
    found += [finding for check in _AFTER if (finding := check(trial)) is not None]
    return Findings(found, f"{len(episodes)} episodes of {int(episodes.num_steps.sum()):,} tokens")


def _clone(agent: OnlineAgent) -> TextGenVectorEnv:
    env = text_env(agent.env)
    prompts = env.core.components.prompts
    if isinstance(prompts, GeneratorPrompts) and prompts.is_iterator:
        raise ValueError(
            "the prompts are an iterator, which the batch of a preflight would use up; give the environment a list of "
            "prompts or a function, or try an agent on another environment"
        )
    return env.clone()


def _weights(agent: Agent) -> Finding | None:
    bad = [name for name, tensor in agent.policy.named_parameters() if not tensor.isfinite().all()]
    return _not_finite(f"{len(bad)} weights are infinite or NaN, {bad[0]} the first") if bad else None


def _not_finite(message: str) -> Finding:
    advice = "Load the model again, in float32 if it was in half precision; its training may have diverged."
    return Finding("not_finite", message, advice, is_fatal=True)


def _learning_rate(agent: Agent) -> Finding | None:
    rates = [group["lr"] for group in agent.optimizer.param_groups if group["params"]]
    if not rates:
        message, advice = "no weight is trained", "Unfreeze weights before the agent is constructed."
    elif max(rates) == 0 or agent.config.learning_rate == 0:
        message, advice = "the learning rate is 0", "Set learning_rate above 0."
    else:
        return None
    return Finding("learning_rate", message, advice, is_fatal=True)


def _scorer_failures(trial: _Trial) -> Finding | None:
    errors = [info["scorer_error"] for info in trial.episodes.infos if info.get("scorer_error")]
    if not errors:
        return None
    count = f"the scorer failed for {len(errors)} of {len(trial.episodes)} texts"
    return _scorer_failure(count, f"the first error is {errors[0]}", is_fatal=len(errors) == len(trial.episodes))


def _scorer_failure(message: str, more: str, *, is_fatal: bool) -> Finding:
    advice = "Try the scorer on texts of the policy by textgym.testing.check_scorer, and see on_scorer_error."
    return Finding("scorer_failure", f"{message}; {more}", advice, is_fatal)


def _constant_return(trial: _Trial) -> Finding | None:
    returns = trial.episodes.returns[torch.from_numpy(trial.episodes.scored)]
    if len(returns) < 2 or float(returns.max() - returns.min()) > 1e-6:
        return None
    return Finding(
        "constant_return",
        f"all {len(returns)} episodes have the return {float(returns[0]):.3g}",
        "Choose a scorer that tells the policy's texts apart, longer or easier tasks, or a dense reward: equal returns "
        "give no direction.",
        is_fatal=True,
    )


def _flat_groups(trial: _Trial) -> Finding | None:
    has_groups = any("group" in info for info in trial.episodes.infos)
    measured = flat_groups(Update({}, trial.episodes)) if has_groups else None
    if measured is None or measured.value <= 0.5:
        return None
    return Finding(
        "flat_groups",
        f"in {measured.value:.0%} of the groups all returns are equal",
        "Use a larger group_size, or prompts that are solved sometimes: such groups give no gradient.",
        is_fatal=measured.value == 1.0 and isinstance(trial.agent, GRPO),
    )


def _value_targets(trial: _Trial) -> Finding | None:
    if not isinstance(trial.agent.config, CriticConfig) or int(trial.episodes.num_steps.sum()) < 2:
        return None
    gamma = getattr(trial.agent.config, "gamma", 1.0)
    targets = discounted_returns(trial.episodes.rewards, trial.episodes.num_steps, gamma)[trial.episodes.mask]
    if float(targets.max() - targets.min()) > 1e-6:
        return None
    return Finding(
        "value_targets",
        f"all targets of the value function are {float(targets[0]):.3g}",
        "See constant_return: a value function fitted to a constant predicts nothing.",
    )


def _truncated(trial: _Trial) -> Finding | None:
    cut = [
        bool(truncated) or info.get("end_reason") == "max_new_tokens"
        for truncated, info in zip(trial.episodes.truncated, trial.episodes.infos, strict=True)
    ]
    if not all(cut):
        return None
    return Finding(
        "truncated",
        f"all {len(cut)} episodes are cut off by the token budget, after {int(trial.episodes.num_steps.max())} tokens",
        "Raise max_new_tokens or set stop, such as SentenceEnd(), unless texts of fixed length are the task.",
    )


def _end(trial: _Trial) -> Finding | None:
    if trial.env is None or trial.env.core.components.endings or trial.evaluation is None:
        return None
    eos = trial.env.eos_token_id
    if eos is None:
        message = "the tokenizer has no EOS, and there is no stop condition"
    else:
        probs = trial.evaluation.logits.softmax(dim=-1)[:, eos]
        if float(probs.max()) == 0:
            message = "EOS is masked in all visited states, and there is no stop condition"
        elif (expected := float(probs.sum()) / len(trial.evaluated)) < 0.01:
            message = f"the policy would end {expected:.2g} of its texts by EOS, and there is no stop condition"
        else:
            return None
    advice = "Set stop, or train on demonstrations that end, unless texts of fixed length are the task."
    return Finding("end", message, advice)


def _masked_reference(trial: _Trial) -> Finding | None:
    if trial.env is None or trial.env.has_turns:
        return None
    components = trial.env.core.components
    samples = {sample.prompt: sample for sample in trial.env.core.samples if sample.references}
    for prompt, sample in samples.items():
        reference = sample.references[0]
        problems = [_problem(trial.env, sample, space + reference) for space in ("", " ")]
        if all(problems):
            return Finding(
                "masked_reference",
                f"the reference {reference!r:.60} of {prompt!r:.60} cannot be written: {problems[0]}",
                "Relax the constraints, or raise max_new_tokens."
                if components.constraint is not None
                else "Raise max_new_tokens, or choose a tokenizer that has these characters.",
            )
    return None


def _problem(env: TextGenVectorEnv, sample: Sample, text: str) -> str | None:
    """Return why a text cannot be written after the prompt of a sample, None if it can."""
    components, budget = env.core.components, env.max_new_tokens
    prompt = components.encoder(sample)
    try:
        tokens = np.asarray(env.tokenizer.encode(text), dtype=np.int64)
    except ValueError as error:
        return str(error)
    if len(tokens) > budget:
        return f"it has {len(tokens)} tokens, max_new_tokens is {budget}"
    if env.core.masking.all_tokens_valid or not len(tokens):
        return None
    ids = np.full((len(tokens), env.window), env.pad_token_id)
    ids[:, : len(prompt)] = prompt
    for row in range(len(tokens)):
        ids[row, len(prompt) : len(prompt) + row] = tokens[:row]
    lengths = len(prompt) + np.arange(len(tokens))
    prompt_lengths = np.full(len(tokens), len(prompt))
    done = np.zeros(len(tokens), dtype=np.bool_)
    batch = TextBatch(env.tokenizer, ids, lengths, prompt_lengths, [sample] * len(tokens), done)
    valid: npt.NDArray[np.bool_] = env.core.masking.masks(batch)[np.arange(len(tokens)), tokens]
    if valid.all():
        return None
    first = int(valid.argmin())
    return f"its token {first + 1}, {env.tokenizer.decode([int(tokens[first])])!r}, is masked"


def _log_probs(trial: _Trial) -> Finding | None:
    if trial.evaluation is None or isinstance(trial.agent, OfflineAgent):
        return None
    mask = trial.evaluated.mask
    gaps = (trial.evaluation.log_probs - trial.evaluated.log_probs)[mask].abs()
    if float(gaps.mean()) <= 0.01:
        return None
    return Finding(
        "log_probs",
        f"log pi(a|s) of the policy in the update differs from that of the acting one by {float(gaps.mean()):.2g} nats "
        f"on average, {float(gaps.max()):.2g} at most",
        "Let act and evaluate use the same temperature, masks, precision and no dropout: the gradient is biased.",
        is_fatal=math.isnan(float(gaps.mean())),
    )


def _values(trial: _Trial) -> Finding | None:
    arrays = (trial.episodes.values[trial.episodes.mask], trial.episodes.rewards[trial.episodes.mask])
    if all(array.isfinite().all() for array in arrays):
        return None
    return _not_finite("values or rewards of the batch are infinite or NaN")


def _chat_template(trial: _Trial) -> Finding | None:
    if trial.env is None:
        return None
    config = trial.env.config
    template = find_chat_template(config.model if config.tokenizer is None else config.tokenizer)
    if template is None:
        return None
    before, _, after = template.prompt("\x00").partition("\x00")
    mark = after.strip() or before.strip()
    if not mark or any(mark in info["prompt"] for info in trial.episodes.infos):
        return None
    return Finding(
        "chat_template",
        f"the model has a chat template, and no prompt has its {mark!r:.40}",
        "Render the prompts by find_chat_template(model).prompt(text), unless you continue plain texts on purpose.",
    )


_BEFORE: tuple[Callable[[Agent], Finding | None], ...] = (_weights, _learning_rate)
_AFTER: tuple[Callable[[_Trial], Finding | None], ...] = (
    _values,
    _scorer_failures,
    _constant_return,
    _flat_groups,
    _value_targets,
    _truncated,
    _end,
    _masked_reference,
    _log_probs,
    _chat_template,
)
