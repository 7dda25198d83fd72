"""Statistics of one update of a training run, by which ``alarms`` judges it.

Each function takes an ``Update`` and returns a ``Measured``, or None where the update does not tell: its numbers come
from the metrics that the agent logs, else from the episodes.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.episodes import Episodes
from textgym_agents.policy import LMPolicy

__all__ = [
    "Measured",
    "Update",
    "clip_fraction",
    "component_share",
    "copied",
    "distinct_2",
    "end_rate",
    "entropy",
    "explained_variance",
    "flat_groups",
    "kl",
    "length",
    "longest_common_run",
    "max_q",
    "non_finite",
    "perplexity",
    "scorer_failures",
]

Floats = npt.NDArray[np.float64]

_CUT_OFF = ("max_new_tokens", "invalid_action")
"""End reasons of texts that did not end by themselves."""
_LEAST_RUN = 4
"""Tokens of a run that counts as copied."""
_MAY_BE_NAN = ("train/explained_variance", "rollout/score", "alarms/", "eval/")
"""Beginnings of metrics that are NaN where they are undefined: the return is constant, every scorer failed."""


class Update(NamedTuple):
    """What is known of one update."""

    metrics: Mapping[str, float]
    """The metrics of the update."""
    episodes: Episodes | None = None
    """The B episodes that it learned from."""
    reference_log_probs: torch.Tensor | None = None
    """(B, T) log pi_ref(a_t|s_t) in nats, NaN in episodes that were not evaluated."""
    max_q: Floats | None = None
    """(B,), the largest Q(s, a) of an episode's states, on the scale where 0 is the least and 1 the largest possible
    return; NaN in episodes that were not evaluated."""
    policy: Any = None
    """The policy after the update."""


class Measured(NamedTuple):
    """The value of a statistic in one update."""

    value: float
    by_episode: Floats | None = None
    """(B,), the statistic of each episode; NaN where it is unknown."""


def kl(update: Update) -> Measured | None:
    """KL per token to the reference, in nats: the mean of log pi(a_t|s_t) - log pi_ref(a_t|s_t)."""
    logged = update.metrics.get("train/kl_reference")
    if update.episodes is None or update.reference_log_probs is None:
        return None if logged is None else Measured(logged)
    mean, by_episode = _token_mean(update.episodes, update.episodes.log_probs - update.reference_log_probs)
    return Measured(mean if logged is None else logged, by_episode)


def perplexity(update: Update) -> Measured | None:
    """Perplexity of the policy's texts under the reference: exp(-mean of log pi_ref(a_t|s_t))."""
    if update.episodes is None or update.reference_log_probs is None:
        return None
    mean, by_episode = _token_mean(update.episodes, -update.reference_log_probs)
    return Measured(_exp(mean), np.exp(np.minimum(by_episode, 700.0)))


def distinct_2(update: Update) -> Measured | None:
    """Distinct pairs of adjacent tokens, as a share of all pairs in the texts (Li et al. 2016, arXiv:1510.03055)."""
    if update.episodes is None:
        return None
    size = int(update.episodes.ids.max()) + 1
    pairs = [tokens[:-1] * size + tokens[1:] for tokens in _completions(update.episodes)]
    _, place, counts = np.unique(np.concatenate(pairs), return_inverse=True, return_counts=True)
    if not len(counts):
        return None
    parts = np.split(1 / counts[place.ravel()], np.cumsum([len(part) for part in pairs])[:-1])
    by_episode = np.array([part.mean() if len(part) else math.nan for part in parts])
    return Measured(len(counts) / len(place), by_episode)


def entropy(update: Update) -> Measured | None:
    """Entropy of pi(.|s_t) in nats; of episodes, its unbiased estimate -mean of log pi(a_t|s_t)."""
    logged = update.metrics.get("train/entropy_loss")
    if update.episodes is None or bool(update.episodes.log_probs.isnan().any()):
        return None if logged is None else Measured(-logged)
    mean, by_episode = _token_mean(update.episodes, -update.episodes.log_probs)
    return Measured(mean if logged is None else -logged, by_episode)


def length(update: Update) -> Measured | None:
    """Mean number of tokens of a text."""
    if update.episodes is None:
        logged = update.metrics.get("rollout/ep_len_mean")
        return None if logged is None else Measured(logged)
    steps = update.episodes.num_steps.double().numpy()
    return Measured(float(steps.mean()), steps)


def end_rate(update: Update) -> Measured | None:
    """Share of texts that end by themselves, by EOS or a stop condition, not by the token budget."""
    if update.episodes is None or any("end_reason" not in info for info in update.episodes.infos):
        return None
    ended = np.array([float(info["end_reason"] not in _CUT_OFF) for info in update.episodes.infos])
    return Measured(float(ended.mean()), ended)


def flat_groups(update: Update) -> Measured | None:
    """Share of groups whose episodes all have the same return; without groups, the batch is one group."""
    if update.episodes is None:
        return None
    returns, groups = update.episodes.returns.numpy(), update.episodes.groups().numpy()
    flat, counted = np.full(len(returns), math.nan), []
    for group in np.unique(groups):
        members = groups == group
        if members.sum() > 1:
            flat[members] = float(np.ptp(returns[members]) < 1e-6)
            counted.append(flat[members][0])
    return Measured(float(np.mean(counted)), flat) if counted else None


def explained_variance(update: Update) -> Measured | None:
    """Explained variance of V: of Monte-Carlo returns where it is logged, else of the targets of V."""
    names = ("train/explained_variance_mc", "train/explained_variance")
    logged = next((update.metrics[name] for name in names if name in update.metrics), math.nan)
    if math.isnan(logged):
        return None
    if update.episodes is None or update.episodes.value_targets is None:
        return Measured(logged)
    errors = (update.episodes.value_targets - update.episodes.values).square()
    return Measured(logged, _token_mean(update.episodes, -errors)[1])


def clip_fraction(update: Update) -> Measured | None:
    """Share of tokens whose probability left the clip range; by episode, mean |w_t - 1| of the updated policy."""
    logged = update.metrics.get("train/clip_fraction")
    if logged is None:
        return None
    if update.episodes is None or logged <= 0.5 or not isinstance(update.policy, LMPolicy):
        return Measured(logged)  # the ratios cost a forward, and serve to show an alarm only
    with torch.no_grad():
        ratios = (update.policy.evaluate(update.episodes).log_probs - update.episodes.log_probs).exp()
    return Measured(logged, _token_mean(update.episodes, (ratios - 1).abs())[1])


def component_share(update: Update) -> Measured | None:
    """Share of the score's variance that its strongest component explains: the largest squared correlation."""
    if update.episodes is None:
        return None
    infos = [info for info in update.episodes.infos if math.isfinite(info.get("score", math.nan))]
    names = {name for info in infos for name in info.get("scores", {}) if "/" not in name}
    if len(names) < 2:
        return None
    scores = np.array([[info["scores"].get(name, math.nan) for name in sorted(names)] for info in infos])
    totals = np.array([info["score"] for info in infos], dtype=np.float64)
    scores, totals = scores[~np.isnan(scores).any(axis=1)], totals[~np.isnan(scores).any(axis=1)]
    if len(totals) < 3 or np.ptp(totals) == 0:
        return None
    centred, total = scores - scores.mean(axis=0), totals - totals.mean()
    variances = np.maximum((centred**2).sum(axis=0), 1e-12)
    shares = (total @ centred) ** 2 / variances / (total @ total)
    strongest = sorted(names)[int(shares.argmax())]
    known = np.array([info.get("scores", {}).get(strongest, math.nan) for info in update.episodes.infos], dtype=float)
    return Measured(float(shares.max()), np.abs(known - scores[:, shares.argmax()].mean()))


def copied(update: Update) -> Measured | None:
    """Longest run of tokens that prompt and completion share, relative to the shorter of both; mean over texts.

    Runs of less than four tokens, which occur by chance, count as 0.
    """
    if update.episodes is None:
        return None
    prompts = [ids[:n].numpy() for ids, n in zip(update.episodes.ids, update.episodes.prompt_lengths, strict=True)]
    texts = _completions(update.episodes)
    runs = longest_common_run(prompts, texts)
    runs[runs < _LEAST_RUN] = 0
    shares = runs / [min(len(a), len(b)) for a, b in zip(prompts, texts, strict=True)]
    return Measured(float(shares.mean()), shares)


def non_finite(update: Update) -> Measured | None:
    """Number of metrics and of episodes with numbers that are infinite or NaN."""
    bad = [n for n, v in update.metrics.items() if not math.isfinite(v) and not n.startswith(_MAY_BE_NAN)]
    if update.episodes is None:
        return Measured(float(len(bad)))
    arrays = (update.episodes.rewards, update.episodes.values)
    rows = sum((~array.isfinite()).any(dim=1).double() for array in arrays).clamp(max=1)  # type: ignore[union-attr]
    return Measured(len(bad) + float(rows.sum()), rows.numpy())


def max_q(update: Update) -> Measured | None:
    """Largest Q(s, a), on the scale where 0 is the least and 1 the largest possible return."""
    if update.max_q is None or np.isnan(update.max_q).all():
        return None
    return Measured(float(np.nanmax(update.max_q)), update.max_q)


def scorer_failures(update: Update) -> Measured | None:
    """Number of episodes whose scorer failed."""
    if update.episodes is None:
        return Measured(update.metrics.get("rollout/scorer_failures", 0.0))
    failed = np.array([float(info.get("scorer_error") is not None) for info in update.episodes.infos])
    return Measured(float(failed.sum()), failed)


def longest_common_run(
    first: list[npt.NDArray[np.int64]], second: list[npt.NDArray[np.int64]]
) -> npt.NDArray[np.int64]:
    """Return (B,) lengths of the longest run of tokens that occurs in both sequences of each of B pairs.

    >>> longest_common_run([np.array([1, 2, 3, 4])], [np.array([9, 2, 3, 9])])
    array([2])
    """
    width = max(map(len, second))
    padded = np.full((len(second), width), -1)
    for row, tokens in zip(padded, second, strict=True):
        row[: len(tokens)] = tokens
    best, runs = np.zeros(len(first), dtype=np.int64), np.zeros((len(first), width + 1), dtype=np.int64)
    for column in range(max(map(len, first))):
        token = np.array([tokens[column] if column < len(tokens) else -2 for tokens in first])
        runs[:, 1:] = np.where(padded == token[:, None], runs[:, :-1] + 1, 0)
        best = np.maximum(best, runs.max(axis=1))
    return best


def _completions(episodes: Episodes) -> list[npt.NDArray[np.int64]]:
    """Return the tokens that the policy chose, of each of B episodes."""
    chosen = episodes.ids.gather(1, episodes.positions).numpy()
    return [tokens[:steps] for tokens, steps in zip(chosen, episodes.num_steps.tolist(), strict=True)]


def _token_mean(episodes: Episodes, values: torch.Tensor) -> tuple[float, Floats]:
    """Return the mean of (B, T) values over the steps of episodes without NaN, and (B,) means, NaN for the others."""
    mask = episodes.mask
    inside = torch.where(mask, values.double(), 0.0)
    sums, steps = inside.sum(dim=1).numpy(), episodes.num_steps.double().numpy()
    known = ~np.isnan(sums)
    return float(sums[known].sum() / steps[known].sum()) if known.any() else math.nan, sums / steps


def _exp(value: float) -> float:
    """Return e to the power of a number, at most 1e304."""
    return math.exp(min(value, 700.0))
