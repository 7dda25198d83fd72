"""Percentile rank of a score among those of other texts for the same prompt."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import FloatArray, Scores
from textgym.scorers.combine.arguments import as_count, as_finite
from textgym.scorers.combine.composite import Wrapper

__all__ = ["GroupPercentile"]


class GroupPercentile(Wrapper):
    """The share of other texts for the same prompt whose score is lower, ties counting half.

    Formula: ``(lower + equal / 2) / others``, over the other finished texts for the prompt: those of the same batch,
    and the last ``memory`` that were observed before. 0.5 where there are none; NaN where the scorer does not apply.
    Unfinished texts (``~batch.done``) are ranked, and neither compared with nor remembered. Range: [0, 1]. An empty
    completion is ranked by what the scorer gives it. Not deterministic: the same text ranks differently in other
    company, and once it was observed it is compared with itself. Not incremental. Scores are remembered by
    :meth:`observe`, scoring remembers none.

    Episodes of one prompt that end in different steps are scored one after another, as they end: the first is ranked
    among the texts remembered from earlier (0.5 at the very first), the last among all, and no rank is revised.
    Texts that end first, which are the short ones, are thus judged by the policy of a while ago. ``memory=0`` ranks
    within the batch alone, for scoring whole groups at once.

    A rank forgets how large differences are, which protects from scores with outliers and makes prompts equally
    important; it also rewards the best of equally useless texts.

    Source: the normalisation by prompt of Shao et al., DeepSeekMath, 2024, https://arxiv.org/abs/2402.03300 (GRPO),
    with ranks instead of z-scores.

    Args:
        scorer: Anything that :func:`textgym.scorers.as_scorer` accepts.
        memory: The most scores that are remembered of a prompt.
        prompts: The most prompts that are remembered; the one that was not seen for longest is forgotten first.

    Raises:
        ValueError: If ``memory`` is not a whole number from 0 on, or ``prompts`` not one from 1 on.

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

    def __init__(self, scorer: Any, memory: int = 64, prompts: int = 1024) -> None:
        super().__init__(scorer)
        self.memory = as_count(memory, "memory", 0)
        self.prompts = as_count(prompts, "prompts")
        self._remembered: OrderedDict[str, deque[float]] = OrderedDict()

    def combined(self, totals: Sequence[FloatArray], batch: TextBatch) -> FloatArray:
        """Return (B,) float64, the ranks."""
        scores: list[float] = totals[0].tolist()
        done = (batch.done & ~np.isnan(totals[0])).tolist()
        prompts = batch.prompts
        finished = _finished(totals[0], batch)
        known = {prompt: sorted([*self._remembered.get(prompt, ()), *finished[prompt]]) for prompt in set(prompts)}
        ranks = [_rank(score, known[prompt], own) for prompt, score, own in zip(prompts, scores, done, strict=True)]
        return np.array(ranks, dtype=np.float64)

    def observe(self, batch: TextBatch, scores: Scores) -> None:
        """Remember the scores of finished episodes."""
        self._remember(_finished(scores.inner[0].total, batch))

    def get_state(self) -> dict[str, Any]:
        """Return the remembered scores by prompt, the one not seen for longest first, as JSON can hold them."""
        return {"remembered": [[prompt, list(scores)] for prompt, scores in self._remembered.items()]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`get_state` returned.

        Raises:
            KeyError: If it is missing.
            ValueError: If a score is not finite.
        """
        finished = {prompt: [as_finite(score, "a score") for score in scores] for prompt, scores in state["remembered"]}
        self._remembered.clear()
        self._remember(finished)

    def _remember(self, finished: Mapping[str, list[float]]) -> None:
        for prompt, scores in finished.items():
            if scores and self.memory > 0:
                self._remembered.setdefault(prompt, deque(maxlen=self.memory)).extend(scores)
                self._remembered.move_to_end(prompt)
        while len(self._remembered) > self.prompts:
            self._remembered.popitem(last=False)


def _finished(scores: FloatArray, batch: TextBatch) -> defaultdict[str, list[float]]:
    """Return the scores of the finished texts that have one, by prompt."""
    finished: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, score, done in zip(batch.prompts, scores.tolist(), batch.done.tolist(), strict=True):
        if done and score == score:
            finished[prompt].append(score)
    return finished


def _rank(score: float, known: Sequence[float], own: bool) -> float:
    """Return the rank of ``score`` in sorted ``known``, among which it is itself if ``own``."""
    if score != score:
        return score
    others = len(known) - own
    if others == 0:
        return 0.5
    lower = bisect_left(known, score)
    return (lower + (bisect_right(known, score) - lower - own) / 2) / others
