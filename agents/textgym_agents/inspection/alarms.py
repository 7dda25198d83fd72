"""Alarms: statistics of a training run that leave their bounds, while it runs and afterwards."""

import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from textgym.rewards import Terminal
from textgym_agents.callbacks import Callback
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes
from textgym_agents.inspection import statistics
from textgym_agents.inspection.report import Alarm
from textgym_agents.inspection.statistics import Measured, Update
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import LMPolicy
from textgym_agents.q_policy import QPolicy
from textgym_agents.recording import read_episodes
from textgym_agents.reference import ReferencePolicy
from textgym_agents.rollout import text_env

__all__ = ["RULES", "Alarms", "Rule", "find_alarms"]

_MOST_SHOWN = 5
"""Episodes that an alarm names."""
_SCORES = ("rollout/score_mean", "rollout/ep_rew_mean")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The bounds of one statistic."""

    name: str
    measure: Callable[[Update], Measured | None]
    label: str
    """The statistic in a few words, for messages."""
    advice: str
    """One sentence: what to try."""
    low: float = -math.inf
    high: float = math.inf
    relative: bool = False
    """Whether the bounds are multiples of the baseline, the mean of the first 10 % of the updates."""
    patience: int = 1
    """Consecutive updates out of bounds that raise the alarm."""
    needs_rising_score: bool = False
    """Whether only updates count whose score is above the baseline's."""
    baseline: tuple[float, float] | None = None
    """For rules that judge a change: ``low`` counts if the baseline is above the first number, ``high`` if it is below
    the second."""


RULES = (
    Rule(
        name="kl", measure=statistics.kl, label="KL to the reference, in nats per token,", high=1.0,
        advice="Raise kl_coef or lower learning_rate; read the texts, which have left the language of the reference.",
    ),
    Rule(
        name="perplexity", measure=statistics.perplexity, label="perplexity under the reference", high=2.0,
        relative=True, patience=2,
        advice="Raise kl_coef, or add a term for fluency to the scorer: texts that score are no longer language.",
    ),
    Rule(
        name="distinct_2", measure=statistics.distinct_2, label="share of distinct pairs of tokens", low=0.4,
        relative=True, patience=2,
        advice="Raise kl_coef or ent_coef, or subtract repetition in the scorer: the texts have become alike.",
    ),
    Rule(
        name="entropy", measure=statistics.entropy, label="entropy of the policy", low=0.3, relative=True, patience=2,
        advice="Raise ent_coef or kl_coef or lower learning_rate, unless the task is solved: little is explored.",
    ),
    Rule(
        name="length", measure=statistics.length, label="mean length of a text", low=0.5, high=1.5, relative=True,
        patience=3, needs_rising_score=True,
        advice="Compare scores of texts of equal length: the scorer may reward length; normalise it, or add a band.",
    ),
    Rule(
        name="end_rate", measure=statistics.end_rate, label="share of texts that end by themselves", low=0.02,
        high=0.98, patience=3, baseline=(0.05, 0.5),
        advice="Compare the scores of cut and of ended texts: the policy has learned never, or always, to end a text.",
    ),
    Rule(
        name="flat_groups", measure=statistics.flat_groups, label="share of groups in which all returns are equal",
        high=0.5, patience=3,
        advice="Use larger groups or prompts of other difficulty, unless the task is solved: they teach nothing.",
    ),
    Rule(
        name="explained_variance", measure=statistics.explained_variance, label="explained variance of V", low=0.0,
        patience=10,
        advice="Use value_function='prefix' or another head_learning_rate: V predicts returns worse than a constant.",
    ),
    Rule(
        name="clip_fraction", measure=statistics.clip_fraction, label="share of tokens beyond the clip range", high=0.5,
        advice="Lower learning_rate or n_epochs or set target_kl: the policy moves too far for its clip range.",
    ),
    Rule(
        name="component_share", measure=statistics.component_share,
        label="share of the score's variance that one component explains", high=0.9, patience=5,
        advice="Rescale the components or change their weights: the others do not count.",
    ),
    Rule(
        name="copied", measure=statistics.copied, label="share of the text that is copied from the prompt", high=0.5,
        patience=3,
        advice="Subtract the overlap with the prompt in the scorer: copying the prompt scores.",
    ),
    Rule(
        name="non_finite", measure=statistics.non_finite, label="number of infinite or NaN numbers", high=0.0,
        advice="Lower learning_rate and max_grad_norm, check the scorer's range, and do not train in half precision.",
    ),
    Rule(
        name="max_q", measure=statistics.max_q, label="largest Q, from 0 to 1 for possible returns,", high=1.1,
        patience=2,
        advice="Use double_q, a q_lambda near 1 or a lower learning rate: Q-values overestimate each other.",
    ),
    Rule(
        name="scorer_failures", measure=statistics.scorer_failures, label="number of episodes whose scorer failed",
        high=0.0,
        advice="Read info['scorer_error'] of these episodes: they are left out, or learned from with a made-up score.",
    ),
)  # fmt: skip
"""The fourteen rules, each of which raises its alarm at most once in a run."""


class _History:
    """The statistics of the updates so far, and the alarms that they raised."""

    def __init__(self, rules: Sequence[Rule], num_baseline: int) -> None:
        self.rules, self.num_baseline = rules, num_baseline
        self.alarms: list[Alarm] = []
        self._values: dict[str, list[float]] = {rule.name: [] for rule in rules}
        self._scores: list[float] = []

    def add(self, update: Update, first_episode: int = 0) -> dict[str, float]:
        """Measure an update, append the alarms that it raises, and return its statistics."""
        self._scores.append(next((update.metrics[name] for name in _SCORES if name in update.metrics), math.nan))
        values = {}
        for rule in self.rules:
            measured = rule.measure(update)
            logged = update.metrics.get(f"alarms/{rule.name}")
            if logged is not None:  # measured while the run went on, when more was known
                measured = Measured(logged, None if measured is None else measured.by_episode)
            self._values[rule.name].append(math.nan if measured is None else measured.value)
            if measured is None:
                continue
            values[f"alarms/{rule.name}"] = measured.value
            if all(alarm.name != rule.name for alarm in self.alarms):
                self.alarms += self._judged(rule, measured, update.episodes, first_episode)
        return values

    def _judged(self, rule: Rule, measured: Measured, episodes: Episodes | None, first: int) -> list[Alarm]:
        """Return the alarm that the last update raises, if any."""
        values = self._values[rule.name]
        baseline = _mean(values[: self.num_baseline])
        is_judged = len(values) > self.num_baseline or not (rule.relative or rule.baseline or rule.needs_rising_score)
        scale = baseline if rule.relative else 1.0
        low, high = (bound * scale if math.isfinite(bound) else bound for bound in (rule.low, rule.high))
        if rule.baseline is not None:
            low = low if baseline > rule.baseline[0] else -math.inf
            high = high if baseline < rule.baseline[1] else math.inf
        last = values[-rule.patience :]
        is_high = all(value > high for value in last)
        if not is_judged or len(last) < rule.patience or not (is_high or all(value < low for value in last)):
            return []
        if rule.needs_rising_score and not self._scores[-1] > _mean(self._scores[: self.num_baseline]):
            return []
        threshold, factor = (high, rule.high) if is_high else (low, rule.low)
        label = rule.label[0].upper() + rule.label[1:]
        message = f"{label} is {measured.value:.3g}, {'above' if is_high else 'below'} {threshold:.3g}"
        if rule.relative:
            message += f" = {factor} x {baseline:.3g}, its mean over the first {_updates(self.num_baseline)}"
        if rule.patience > 1:
            message += f", for {_updates(rule.patience)}"
        message += "."
        shown = _most_extreme(measured, is_high)
        texts = () if episodes is None else tuple(str(episodes.infos[b].get("completion", "")) for b in shown)
        return [
            Alarm(
                name=rule.name, message=message, advice=rule.advice, value=measured.value, threshold=threshold,
                update=len(values), episodes=tuple(first + b for b in shown), texts=texts,
                baseline=baseline if rule.relative or rule.baseline else None,
            )
        ]  # fmt: skip


class Alarms(Callback):
    """Callback that raises an alarm when a statistic of the training leaves its bounds: ``learn(..., Alarms())``.

    The statistics and their bounds are those of ``RULES``; those that compare with the start of the training take the
    mean over the first 10 % of its updates as the baseline. An alarm is evidence to look at, with the episodes that
    raised it, not a prediction; each is raised at most once.

    The statistics are added to the metrics as ``alarms/<name>``: with a ``RunFolder``, as in
    ``callback=[Alarms(), RunFolder(path)]``, they are logged too, and ``find_alarms(path)`` needs no episodes.

    KL and perplexity are those under the reference of the agent, or under the policy at the start of the training. With
    an agent that does not compute log pi_ref itself, ``num_sampled`` episodes of each update are evaluated for it.

    Args:
        on_alarm: Called with each ``Alarm``; by default it is printed to stderr. None does nothing.
        num_sampled: Episodes of each update that are evaluated under the reference, and of which Q is computed.
        stop: Whether an alarm ends the training.
        rules: The rules; leave some out, or change bounds with ``dataclasses.replace``.

    Attributes:
        alarms: The alarms raised so far. ``Alarm.episodes`` count the episodes of all updates that the callback saw
            from 0, as do the rows of an ``EpisodeRecorder`` beside it.

    Raises:
        ValueError: If ``num_sampled`` is less than 1, or two rules have one name.

    >>> from textgym_agents import Reinforce
    >>> alarms = Alarms()
    >>> agent = Reinforce("tiny", "TextGen-v0", num_episodes=4, env_kwargs={"max_new_tokens": 4})
    >>> agent.learn(32, callback=alarms).num_updates, alarms.alarms
    (2, [])
    """

    def __init__(
        self,
        on_alarm: Callable[[Alarm], Any] | None = lambda alarm: tqdm.write(str(alarm), file=sys.stderr),
        *,
        num_sampled: int = 16,
        stop: bool = False,
        rules: Sequence[Rule] = RULES,
    ) -> None:
        self.num_sampled, self.stop = check_count("num_sampled", num_sampled), stop
        self._on_alarm = on_alarm
        self._history = _History(_checked(rules), 0)
        self._num_episodes = 0
        self._planned = 0
        self._reference: ReferencePolicy | None = None

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms raised so far."""
        return self._history.alarms

    def on_training_start(self, agent: Any) -> None:
        """Keep the reference, at the first training."""
        self._planned = agent.planned_timesteps - agent.num_timesteps
        if self._reference is None and isinstance(agent, OnlineAgent) and isinstance(agent.policy, LMPolicy):
            owner = getattr(agent, "kl", getattr(agent, "consistency", None))
            self._reference = getattr(owner, "reference", None) or ReferencePolicy(agent.policy)

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> bool | None:
        """Add the statistics of the update to its metrics, and raise its alarms."""
        episodes = agent.episodes if isinstance(agent, OnlineAgent) else None  # offline they are not the policy's
        if self._history.num_baseline == 0:
            tokens = 1 if agent.episodes is None else int(agent.episodes.num_steps.sum())
            self._history.num_baseline = max(1, int(0.1 * self._planned / tokens))
        num_before = len(self.alarms)
        metrics |= self._history.add(self._update(agent, metrics, episodes), self._num_episodes)
        self._num_episodes += 0 if episodes is None else len(episodes)
        return self._report(num_before)

    def on_training_end(self, agent: Any) -> None:
        """Raise the alarm of an exception by numbers that are not finite, of which no update can tell."""
        error, num_before = sys.exc_info()[1], len(self.alarms)
        rule = next((rule for rule in self._history.rules if rule.name == "non_finite"), None)
        if isinstance(error, FloatingPointError) and rule is not None:
            if all(alarm.name != "non_finite" for alarm in self.alarms):
                updates = len(self._history._scores) + 1
                self.alarms.append(Alarm("non_finite", f"{error}.", rule.advice, math.nan, rule.high, updates))
            self._report(num_before)

    def _report(self, num_before: int) -> bool | None:
        """Pass on the alarms after the first ones; return False to stop the training."""
        for alarm in self.alarms[num_before:]:
            if self._on_alarm is not None:
                self._on_alarm(alarm)
        return False if self.stop and len(self.alarms) > num_before else None

    @torch.no_grad()
    def _update(self, agent: Any, metrics: dict[str, float], episodes: Episodes | None) -> Update:
        """Return the update with what has to be computed of it."""
        if episodes is None:
            return Update(metrics)
        sample = np.unique(np.linspace(0, len(episodes) - 1, min(self.num_sampled, len(episodes))).astype(np.int64))
        reference, q = episodes.reference_log_probs, None
        if reference is None and self._reference is not None:
            reference = torch.full(episodes.log_probs.shape, math.nan)
            reference[sample] = self._reference.evaluate(episodes[sample]).log_probs.cpu()
        bounds = _return_range(agent.env) if isinstance(agent.policy, QPolicy) else None
        if bounds is not None:
            part = episodes[sample]
            largest = part.spread(agent.policy.evaluate(part).q.amax(dim=1)).masked_fill(~part.mask, -math.inf)
            q = np.full(len(episodes), math.nan)
            q[sample] = (largest.amax(dim=1).double().numpy() - bounds[0]) / (bounds[1] - bounds[0])
        return Update(metrics, episodes, reference, q, agent.policy)


def find_alarms(
    metrics: str | PathLike[str] | Sequence[Mapping[str, float]],
    episodes: Episodes | str | PathLike[str] | None = None,
    *,
    rules: Sequence[Rule] = RULES,
) -> list[Alarm]:
    """Return the alarms of a finished run, in the order in which they were raised.

    Args:
        metrics: The folder of a ``RunFolder``; a CSV file with a row per update, such as its ``metrics.csv`` or the
            ``progress.csv`` of Stable-Baselines3's logger; or the rows themselves. Without the columns that ``Alarms``
            adds, only the statistics that the agent logged are known.
        episodes: The episodes of all updates, or the file of a recorder that was a callback of the same training; adds
            statistics of the texts, and the episodes to the alarms.
        rules: The rules.

    Returns:
        The alarms; ``Alarm.episodes`` are indices of ``episodes``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the table has no row or no numbers, two rules have one name, or the episodes are not those of the
            updates.

    >>> rows = [{"train/kl_reference": kl, "rollout/ep_len_mean": 20.0} for kl in (0.0, 0.4, 1.3, 2.1)]
    >>> [(alarm.name, alarm.update, alarm.value) for alarm in find_alarms(rows)]
    [('kl', 3, 1.3)]
    """
    rows = list(_read_rows(metrics)) if isinstance(metrics, str | PathLike) else [dict(row) for row in metrics]
    if not rows:
        raise ValueError("the metrics have no row: the run has no finished update")
    if isinstance(episodes, str | PathLike):
        episodes = read_episodes(episodes)
    ends = None if episodes is None else _last_episodes(rows, episodes)
    history, first = _History(_checked(rules), max(1, int(0.1 * len(rows)))), 0
    for number, row in enumerate(rows):
        part = None
        if ends is not None and episodes is not None:
            part = episodes[np.arange(first, ends[number])]
        history.add(Update(row, part), first)
        first += 0 if part is None else len(part)
    return history.alarms


def _read_rows(path: str | PathLike[str]) -> Iterator[dict[str, float]]:
    """Yield the finite or infinite numbers of each row of a CSV file; NaN stands for a missing one."""
    file = Path(path) / "metrics.csv" if Path(path).is_dir() else Path(path)
    with file.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            try:
                values = {name: float(text) for name, text in row.items() if text}
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}, line {number}: expected numbers, got {error}") from error
            yield {name: value for name, value in values.items() if not math.isnan(value)}


def _last_episodes(rows: Sequence[Mapping[str, float]], episodes: Episodes) -> list[int]:
    """Return for each update the number of episodes up to its end, by the tokens that were counted."""
    tokens = np.cumsum(episodes.num_steps.numpy())
    totals = np.array([row.get("time/total_timesteps", math.nan) for row in rows])
    before = totals[0] - tokens[-1] if len(rows) == 1 else 0
    ends = np.searchsorted(tokens, totals - before)
    if np.isnan(totals).any() or ends[-1] >= len(tokens) or (tokens[ends] != totals - before).any():
        raise ValueError(
            f"the episodes hold {tokens[-1]:,} tokens that do not add up to the {totals[-1]:,.0f} of the updates: give "
            "the file of an EpisodeRecorder that was a callback of the same training from its start"
        )
    return [int(end) + 1 for end in ends]


def _return_range(env: Any) -> tuple[float, float] | None:
    """Return the least and the largest possible return of an episode, or None if they are unknown."""
    components = text_env(env).core.components
    bounds = components.scorer.score_range
    is_known = isinstance(components.reward, Terminal) and components.kl is None and bounds is not None
    return bounds if is_known and bounds is not None and all(map(math.isfinite, bounds)) else None


def _most_extreme(measured: Measured, largest: bool) -> list[int]:
    """Return up to five episodes, the most extreme first."""
    if measured.by_episode is None:
        return []
    order = np.argsort(-measured.by_episode if largest else measured.by_episode, kind="stable")
    return [int(b) for b in order if not np.isnan(measured.by_episode[b])][:_MOST_SHOWN]


def _checked(rules: Sequence[Rule]) -> Sequence[Rule]:
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise ValueError(f"each rule needs a name of its own, got {names}")
    return rules


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the numbers that are not NaN, NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _updates(number: int) -> str:
    return "update" if number == 1 else f"{number} updates"
