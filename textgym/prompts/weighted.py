"""Prompts drawn by weights: given ones, or the spread of the scores that each prompt's texts got."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.prompts.base import IndexedPrompts, Sample
from textgym.prompts.resolve import as_prompts

__all__ = ["PrioritizedPrompts", "WeightedPrompts"]

FloatArray = npt.NDArray[np.float64]


class WeightedPrompts(IndexedPrompts):
    """Prompts of another source, drawn in proportion to given weights.

    Args:
        source: Anything that ``as_prompts`` makes an indexed source of, such as a list.
        weights: (N,) weight of each of its N prompts, at least 0; they need not add up to 1.

    Raises:
        TypeError: If the source has no indices.
        ValueError: If ``weights`` has another shape, an entry is negative or not finite, or all are 0.

    >>> prompts = WeightedPrompts(["rare", "frequent"], [1, 3])
    >>> prompts.probabilities()
    array([0.25, 0.75])
    """

    def __init__(self, source: Any, weights: npt.ArrayLike) -> None:
        self.source = _indexed(source, type(self).__name__)
        array = np.asarray(weights, dtype=np.float64)
        if array.shape != (len(self.source),):
            raise ValueError(f"weights must have shape ({len(self.source)},), one for each prompt, got {array.shape}")
        if not (np.isfinite(array) & (array >= 0)).all() or not array.any():
            raise ValueError(f"weights must be finite numbers of at least 0, and not all 0, got {weights!r:.60}")
        self._probabilities = array / array.sum()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]

    def probabilities(self) -> FloatArray:
        """Return (N,) float64, the probability of each prompt."""
        return self._probabilities.copy()


class PrioritizedPrompts(IndexedPrompts):
    """Prompts of another source, drawn the more often the more the scores of their texts vary.

    Formula::

        P(i) = (1 - uniform_share) d_i^exponent / sum_j d_j^exponent + uniform_share / N

    d_i is the standard deviation of the scores of prompt i, by running means over its last ``patience`` episodes. Texts
    that all score the same teach an algorithm that compares them nothing: the prompt is too easy or too hard. A prompt
    with fewer than two scores has the largest d of all; where every d is 0, all prompts are equally likely.

    The prompts depend on how earlier episodes ended, in a vector environment on those of all sub-environments. The
    state is part of snapshots and of agents' checkpoints. Samples of the same prompt share their statistics. Failed
    scorers (NaN) are ignored.

    Args:
        source: Anything that ``as_prompts`` makes an indexed source of, such as a list. Every prompt is read.
        exponent: Exponent of the deviations; 0 draws uniformly.
        uniform_share: Fraction of the draws that are uniform, in [0, 1], so that the scores of no prompt become stale.
        patience: Time constant of the running statistics, in episodes of a prompt.

    Raises:
        TypeError: If the source has no indices, or ``patience`` is not an integer.
        ValueError: If a number is out of range.

    Sources: Schaul et al. 2016, Prioritized experience replay (arXiv:1511.05952), for the formula; Jiang et al. 2021,
    Prioritized level replay (arXiv:2010.03934), for starting points; Ramamurthy et al. 2023, Is reinforcement learning
    (not) for natural language processing? (arXiv:2210.01241), for prompts of language models (RL4LMs).

    >>> prompts = PrioritizedPrompts(["easy", "useful"], uniform_share=0.2)
    >>> prompts.observe([prompts[0], prompts[0], prompts[1], prompts[1]], np.array([1.0, 1.0, 0.0, 1.0]))
    >>> prompts.probabilities()
    array([0.1, 0.9])
    """

    def __init__(self, source: Any, exponent: float = 1.0, uniform_share: float = 0.1, patience: int = 32) -> None:
        self.source = _indexed(source, type(self).__name__)
        if not (0 <= exponent < math.inf and 0 <= uniform_share <= 1):
            raise ValueError(
                f"expected a finite exponent >= 0 and 0 <= uniform_share <= 1, got {exponent} and {uniform_share}"
            )
        if isinstance(patience, bool) or not isinstance(patience, int):
            raise TypeError(f"patience must be an integer, got {patience!r}")
        if patience < 2:
            raise ValueError(f"patience must be at least 2 episodes, got {patience}")
        self.exponent = exponent
        self.uniform_share = uniform_share
        self.patience = patience
        self._indices: dict[str, list[int]] = {}
        for i in range(len(self.source)):
            self._indices.setdefault(self.source[i].prompt, []).append(i)
        self.set_state({"statistics": {}})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]

    def probabilities(self) -> FloatArray:
        """Return (N,) float64, the probability of each prompt."""
        known = self._deviations >= 0
        largest = self._deviations.max() if known.any() else 1.0
        weights = np.where(known, self._deviations, largest) ** self.exponent
        total = weights.sum()
        shares = weights / total if total > 0 else np.full(len(self), 1 / len(self))
        result: FloatArray = (1 - self.uniform_share) * shares + self.uniform_share / len(self)
        return result

    def observe(self, samples: Sequence[Sample], scores: FloatArray) -> None:
        """Update the statistics of the prompts of K samples from (K,) scores."""
        for sample, score in zip(samples, scores.tolist(), strict=True):
            if sample.prompt not in self._indices or math.isnan(score):
                continue
            count, mean, variance = self._statistics.get(sample.prompt, (0, 0.0, 0.0))
            rate = 1 / min(count + 1, self.patience)
            change = score - mean
            self._statistics[sample.prompt] = (
                count + 1,
                mean + rate * change,
                (1 - rate) * (variance + rate * change * change),
            )
            self._set_deviation(sample.prompt)

    def get_state(self) -> dict[str, Any]:
        """Return number, mean and variance of the scores of each prompt that has some, as JSON can hold them."""
        return {"statistics": dict(self._statistics)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state from ``get_state``.

        Raises:
            ValueError: If it has statistics of a prompt that the source does not have.
        """
        if unknown := state["statistics"].keys() - self._indices.keys():
            raise ValueError(
                f"the state has statistics of {len(unknown)} prompts that this source does not have, such as "
                f"{min(unknown)!r:.60}: give the prompts that it was saved with"
            )
        self._statistics = {
            prompt: (int(count), float(mean), float(variance))
            for prompt, (count, mean, variance) in state["statistics"].items()
        }
        self._deviations: FloatArray = np.full(len(self), -1.0)  # where it is unknown
        for prompt in self._statistics:
            self._set_deviation(prompt)

    def _set_deviation(self, prompt: str) -> None:
        count, _, variance = self._statistics[prompt]
        if count > 1:
            self._deviations[self._indices[prompt]] = math.sqrt(variance)


def _indexed(source: Any, name: str) -> IndexedPrompts:
    """Return the indexed source that ``as_prompts`` makes of something; raise a TypeError if it has no indices."""
    prompts = as_prompts(source)
    if not isinstance(prompts, IndexedPrompts):
        raise TypeError(f"{name} weighs the prompts of an indexed source, such as a list, got {type(prompts).__name__}")
    return prompts
