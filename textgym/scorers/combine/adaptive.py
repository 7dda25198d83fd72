"""Scores that depend on earlier episodes: normalised, ranked or traded off against a constraint.

The statistics change in ``observe`` and are part of the saved state; scoring does not change them.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.arguments import as_count, as_finite
from textgym.scorers.base import FloatArray, Range, Scores
from textgym.scorers.combine.base import Composite, Wrapper, hull, named_scorer

__all__ = ["Constrained", "GroupPercentile", "RunningNormalization"]


class RunningNormalization(Wrapper):
    """A score minus the running mean of finished texts, divided by their standard deviation.

    Formula: ``clip((score - mean) / std, -c, c)``, NaN where the scorer does not apply. The statistics cover the
    observed episodes and the finished texts of the scored batch, however divided into batches; unfinished and failed
    texts are not counted. The divisor is 1 while all scores are equal. Range: [-c, c]. Not incremental; not
    deterministic, unless the attribute ``frozen`` is set, as for evaluation. The mean follows the policy: monitor the
    component to see whether the policy improves.

    Source: Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, The American Statistician 1983;
    for rewards Engstrom et al., Implementation Matters in Deep RL, ICLR 2020, https://arxiv.org/abs/2005.12729

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        center: Whether to subtract the mean.
        scale: Whether to divide by the standard deviation.
        clip: c, the greatest absolute value; None for no limit.

    Raises:
        ValueError: If clip is not a positive finite number.

    >>> scorer = RunningNormalization(len)
    >>> batch = TextBatch.from_texts(["a", "abc"])
    >>> scorer.observe(batch, scorer.score_components(batch))
    >>> scorer(batch), scorer.mean, scorer.std
    (array([-1.,  1.]), 2.0, 1.0)
    >>> scorer.frozen = True
    >>> scorer(TextBatch.from_texts(["abcd"])), scorer.get_state()
    (array([2.]), {'count': 2, 'mean': 2.0, 'sum_of_squares': 2.0})
    """

    def __init__(self, scorer: Any, center: bool = True, scale: bool = True, clip: float | None = 10.0) -> None:
        super().__init__(scorer)
        self.center = center
        self.scale = scale
        self.clip = None if clip is None else as_finite(clip, "clip")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is {clip!r}, expected a positive number or None")
        self.frozen = False
        self._statistics = _Statistics(0, 0.0, 0.0)

    @property
    def count(self) -> int:
        """Number of observed episodes."""
        return self._statistics.count

    @property
    def mean(self) -> float:
        """Mean score of the observed episodes."""
        return self._statistics.mean

    @property
    def std(self) -> float:
        """Standard deviation of the observed scores, 1 while they do not differ."""
        return self._statistics.std

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the statistics are frozen and the scorer is deterministic."""
        return self.frozen and super().deterministic

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """[-c, c], None without a limit."""
        return None if self.clip is None else (-self.clip, self.clip)

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the normalised scores."""
        scores = totals[0]
        statistics = self._statistics if self.frozen else self._statistics.with_scores(scores[batch.done])
        result = scores - statistics.mean if self.center else scores
        result = result / statistics.std if self.scale else result
        return result if self.clip is None else np.clip(result, -self.clip, self.clip)

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Update the statistics with finished episodes, unless frozen."""
        if not self.frozen:
            self._statistics = self._statistics.with_scores(scores.inner[0].total[batch.done])

    def get_state(self) -> dict[str, Any]:
        """Return the statistics as JSON values."""
        return asdict(self._statistics)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the statistics.

        Raises:
            KeyError: If one is missing.
            ValueError: If one is out of range.
        """
        count, mean = as_count(state["count"], "count", 0), as_finite(state["mean"], "mean")
        sum_of_squares = as_finite(state["sum_of_squares"], "sum_of_squares")
        if sum_of_squares < 0:
            raise ValueError(f"sum_of_squares is {sum_of_squares!r}, expected a number >= 0")
        self._statistics = _Statistics(count, mean, sum_of_squares)


@dataclass(frozen=True)
class _Statistics:
    """Count, mean and sum of squared deviations from the mean."""

    count: int
    mean: float
    sum_of_squares: float

    @property
    def std(self) -> float:
        std = sqrt(self.sum_of_squares / self.count) if self.count > 0 else 0.0
        return std if std > 1e-8 * max(1.0, abs(self.mean)) else 1.0  # equal scores differ by rounding in the mean

    def with_scores(self, scores: FloatArray) -> "_Statistics":
        """Return the statistics with more scores merged in; NaN is ignored."""
        scores = scores[~np.isnan(scores)]
        added = len(scores)
        if added == 0:
            return self
        mean = float(scores.mean())
        difference = mean - self.mean
        total = self.count + added
        squares = float(((scores - mean) ** 2).sum()) + difference**2 * self.count * added / total
        return _Statistics(total, self.mean + difference * added / total, self.sum_of_squares + squares)


class GroupPercentile(Wrapper):
    """The percentile rank of a score among those of other texts for the same prompt, in [0, 1].

    Formula: ``(lower + equal / 2) / others``, over the other finished texts for the prompt: those of the same batch,
    and the last ``memory_size`` observed ones. 0.5 if there are none; NaN where the scorer does not apply. Unfinished
    texts are ranked, but not compared with. Range: [0, 1]. Not deterministic; not incremental.

    Episodes are ranked when they end, and ranks are not revised: texts that end early, the short ones, are compared
    with those of an older policy. ``memory_size=0`` ranks within the batch alone, for scoring whole groups at once.
    Ranks are robust to outliers and weight all prompts equally, but also reward the best of equally useless texts.

    Source: Shao et al., DeepSeekMath, 2024, https://arxiv.org/abs/2402.03300 (GRPO), with ranks instead of z-scores.

    Args:
        scorer: Anything that ``textgym.scorers.as_scorer`` accepts.
        memory_size: Number of latest scores stored per prompt.
        max_prompts: Number of prompts stored; the least recently observed one is dropped first.

    Raises:
        ValueError: If ``memory_size`` is not an integer >= 0, or ``max_prompts`` not one >= 1.

    >>> scorer = GroupPercentile(len)
    >>> batch = TextBatch.from_texts(["a", "abc", "abc", "ab"], prompts=["p", "p", "p", "q"])
    >>> scorer(batch)
    array([0.  , 0.75, 0.75, 0.5 ])
    >>> scorer.observe(batch, scorer.score_components(batch))
    >>> scorer(TextBatch.from_texts(["abcd"], prompts=["p"]))
    array([1.])
    """

    score_range = (0.0, 1.0)
    deterministic = False

    def __init__(self, scorer: Any, memory_size: int = 64, max_prompts: int = 1024) -> None:
        super().__init__(scorer)
        self.memory_size = as_count(memory_size, "memory_size", 0)
        self.max_prompts = as_count(max_prompts, "max_prompts")
        self._stored: OrderedDict[str, deque[float]] = OrderedDict()

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the ranks."""
        scores: list[float] = totals[0].tolist()
        done = (batch.done & ~np.isnan(totals[0])).tolist()
        prompts = batch.prompts
        finished = _finished(totals[0], batch)
        known = {prompt: sorted([*self._stored.get(prompt, ()), *finished[prompt]]) for prompt in set(prompts)}
        ranks = [_rank(score, known[prompt], own) for prompt, score, own in zip(prompts, scores, done, strict=True)]
        return np.array(ranks, dtype=np.float64)

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Store the scores of finished episodes."""
        self._store(_finished(scores.inner[0].total, batch))

    def get_state(self) -> dict[str, Any]:
        """Return the stored scores by prompt, the least recently observed one first, as JSON values."""
        return {"scores": [[prompt, list(scores)] for prompt, scores in self._stored.items()]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the stored scores.

        Raises:
            KeyError: If they are missing.
            ValueError: If a score is not finite.
        """
        finished = {prompt: [as_finite(score, "a score") for score in scores] for prompt, scores in state["scores"]}
        self._stored.clear()
        self._store(finished)

    def _store(self, finished: Mapping[str, list[float]]) -> None:
        for prompt, scores in finished.items():
            if scores and self.memory_size > 0:
                self._stored.setdefault(prompt, deque(maxlen=self.memory_size)).extend(scores)
                self._stored.move_to_end(prompt)
        while len(self._stored) > self.max_prompts:
            self._stored.popitem(last=False)


def _finished(scores: FloatArray, batch: TextBatch) -> defaultdict[str, list[float]]:
    """Return the scores of the finished texts that have one, by prompt."""
    finished: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, score, done in zip(batch.prompts, scores.tolist(), batch.done.tolist(), strict=True):
        if done and score == score:
            finished[prompt].append(score)
    return finished


def _rank(score: float, known: Sequence[float], own: bool) -> float:
    """Return the rank of ``score`` in sorted ``known``, which includes it if ``own``."""
    if score != score:
        return score
    others = len(known) - own
    if others == 0:
        return 0.5
    lower = bisect_left(known, score)
    return (lower + (bisect_right(known, score) - lower - own) / 2) / others


class Constrained(Composite):
    """The objective plus the constraint times a Lagrange multiplier, which rises while the constraint is violated.

    Maximises the mean of the objective A subject to ``mean of the constraint B >= b``. Formula::

        total = (A + multiplier * (B - b)) / (1 + multiplier)
        multiplier <- max(0, multiplier - learning_rate * (mean(B) - b))     after every n observed episodes

    The mean is that of n episodes in the order in which they end. Dividing by ``1 + multiplier`` does not change the
    ranking of policies and keeps the total in the range of A, B - b and 0. Where the constraint does not apply,
    ``B - b`` is 0; where the objective does not apply, neither does the total. Components are ``"objective"`` and
    ``"constraint"``. Not incremental; not deterministic, unless the attribute ``frozen`` is set, as for evaluation. A
    constraint that no text can meet increases the multiplier without bound: monitor it.

    Sources: Tessler et al., Reward Constrained Policy Optimization, ICLR 2019, https://arxiv.org/abs/1805.11074; Stooke
    et al., Responsive Safety in RL by PID Lagrangian Methods, ICML 2020, https://arxiv.org/abs/2007.03964 (the
    division); Moskovitz et al., Confronting Reward Model Overoptimization with Constrained RLHF, ICLR 2024,
    https://arxiv.org/abs/2310.04373

    Args:
        objective: A, anything that ``textgym.scorers.as_scorer`` accepts.
        constraint: B, likewise.
        at_least: b.
        learning_rate: Step size of the multiplier.
        episodes_per_update: n.

    Raises:
        ValueError: If ``at_least`` is not finite, ``learning_rate`` not positive, or ``episodes_per_update`` not a
            positive integer.
        TypeError: If a value is not a number.

    >>> scorer = Constrained(len, "length_band", 0.5, learning_rate=2.0, episodes_per_update=2)
    >>> batch = TextBatch.from_texts(["ab", "abcd"])
    >>> scores = scorer.score_components(batch)
    >>> scorer.observe(batch, scores)
    >>> scores.total, scorer.multiplier
    (array([2., 4.]), 0.25)
    >>> scorer(TextBatch.from_texts(["abcdefgh"]))
    array([6.5])
    """

    def __init__(
        self,
        objective: Any,
        constraint: Any,
        at_least: float,
        learning_rate: float = 0.05,
        episodes_per_update: int = 64,
    ) -> None:
        self.named_scorers = {
            "objective": named_scorer(objective, "objective"),
            "constraint": named_scorer(constraint, "constraint"),
        }
        self.at_least = as_finite(at_least, "at_least")
        self.learning_rate = as_finite(learning_rate, "learning_rate")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {learning_rate!r}, expected a positive number")
        self.episodes_per_update = as_count(episodes_per_update, "episodes_per_update")
        self.frozen = False
        self.multiplier = 0.0
        """Weight of the constraint, never negative."""
        self._pending: list[float] = []

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether the multiplier is frozen and the inner scorers are deterministic."""
        return self.frozen and super().deterministic

    @property
    def score_range(self) -> Range | None:  # type: ignore[override]
        """Range of A, B - b and 0 together; None if that of A or B is unknown."""
        objective, constraint = (scorer.score_range for scorer in self.scorers)
        if objective is None or constraint is None:
            return None
        low, high = constraint
        return hull([objective, (low - self.at_least, high - self.at_least), (0.0, 0.0)])

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the weighted means."""
        objective, constraint = totals
        slack = np.where(np.isnan(constraint), 0.0, constraint - self.at_least)
        result: FloatArray = (objective + self.multiplier * slack) / (1.0 + self.multiplier)
        return result

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Update the multiplier with the constraint's scores of finished episodes, unless frozen."""
        if self.frozen:
            return
        constraint = scores.inner[1].total
        self._pending += constraint[batch.done & ~np.isnan(constraint)].tolist()
        size = self.episodes_per_update
        while len(self._pending) >= size:
            mean = float(np.mean(self._pending[:size]))
            del self._pending[:size]
            self.multiplier = max(0.0, self.multiplier - self.learning_rate * (mean - self.at_least))

    def get_state(self) -> dict[str, Any]:
        """Return the multiplier, and the scores collected for its next update, as JSON values."""
        return {"multiplier": self.multiplier, "pending": list(self._pending)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the multiplier and the collected scores.

        Raises:
            KeyError: If one is missing.
            ValueError: If the multiplier is negative, or a number not finite.
        """
        multiplier = as_finite(state["multiplier"], "multiplier")
        if multiplier < 0:
            raise ValueError(f"multiplier is {multiplier!r}, expected a number >= 0")
        self._pending = [as_finite(score, "a pending score") for score in state["pending"]]
        self.multiplier = multiplier
