"""A chain of checks that ends at the first one that is not passed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from textgym.batch import TextBatch
from textgym.scorers.base import Scores
from textgym.scorers.combine.arguments import as_pairs
from textgym.scorers.combine.composite import Composite, Gathered

__all__ = ["Sequential"]


class Sequential(Composite):
    """The share of steps that a text passes before the first that it does not, as in compile, then test, then lint.

    Formula: ``passed / steps``, where a step passes if its score is at least its threshold. Steps after the first that
    is not passed are not called for that text. A step that does not apply is skipped, and not among the steps; NaN
    where none applies. Range: [0, 1]. Components are the steps' scores, NaN where they were not asked.

    All steps weigh the same, and how well one is passed does not matter: the reward rises at each step, and never by
    doing well what comes later. To grade the last one, such as the share of tests, put it behind a gate:
    ``Gate(Sequential({...}), 1.0, tests)``. An empty completion scores what the first step makes of it;
    deterministic if the steps are. Not incremental.

    Args:
        parts: ``{name: (scorer, threshold)}`` in order.

    Raises:
        ValueError: If there are no steps, a threshold is not finite, or a name is empty or has a ``/`` in it.
        TypeError: If ``parts`` is no mapping, a value not a pair, or a threshold not a number.

    >>> from textgym.scorers import Keywords
    >>> scorer = Sequential({"long enough": ("length_band", 1.0), "cat": (Keywords(["cat"]), 1.0)})
    >>> scorer(TextBatch.from_texts(["the old cat", "the old dog", "cat"]))
    array([1. , 0.5, 0. ])
    """

    score_range = (0.0, 1.0)

    def __init__(self, parts: Mapping[str, tuple[Any, float]]) -> None:
        self.parts = as_pairs(parts, "threshold")

    def score_components(self, batch: TextBatch) -> Scores:
        """Return total and components; an episode for which a step that was asked failed has no total."""
        gathered = Gathered(batch)
        going = np.ones(len(batch), dtype=np.bool_)
        passed = np.zeros(len(batch))
        skipped = np.zeros(len(batch))
        for name, (scorer, threshold) in self.parts.items():
            score = gathered.call(name, scorer, going)
            skips = going & np.isnan(score)
            passes = score >= threshold
            passed += passes
            skipped += skips
            going = (passes | skips) & ~gathered.failed
        steps = len(self.parts) - skipped
        return gathered.scores(np.where(steps > 0, passed / np.maximum(steps, 1), np.nan))
