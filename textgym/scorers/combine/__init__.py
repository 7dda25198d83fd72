"""Scorers that are made of other scorers.

    WeightedSum, Product, Minimum, Maximum    several scores become one
    Gate, Sequential                          one scorer decides whether another is asked
    Clip, Affine, Schedule                    a score is changed by a rule
    RunningNormalization, GroupPercentile     a score is compared with other texts' scores
    Constrained                               one score is maximised while another is kept high enough
    Cached, TimeLimit                         a score stays as it is, its cost changes
    AgentTurns                                a scorer sees less of the text

Inner scorers are given as anything that :func:`textgym.scorers.as_scorer` accepts, and ``scorer.scorers`` is the tuple
of them. ``set_progress`` is passed on to all.

Names of components. A component is what an inner scorer itself said; what the combination makes of it is the total.

- One made of several, such as ``WeightedSum``, has a component for each part, under the part's name, and the components
  of that part as ``"part/inner"``. ``parts`` has the names as keys; a value is the part's scorer, or a tuple that
  begins with it, such as ``(scorer, weight)``.
- A wrapper of one, such as ``Clip``, adds no name: it is called what its scorer is called, and has the components
  that its scorer has when it is asked alone, before the wrapper changes the score. Its ``parts`` are its scorer's.

So ``Clip("sentiment")`` shows what the sentiment was as ``"sentiment"``, and as the part ``"mood"`` of a sum it shows
its clipped score as ``"mood"`` and the sentiment as ``"mood/sentiment"``.

A part that does not apply to an episode (NaN) is left out of it. An episode for which a part that was asked fails has
no total, and the error names the part.
"""

from textgym.scorers.combine.agent_turns import AgentTurns
from textgym.scorers.combine.cached import Cached
from textgym.scorers.combine.constrained import Constrained
from textgym.scorers.combine.gate import Gate
from textgym.scorers.combine.group_percentile import GroupPercentile
from textgym.scorers.combine.pooled import Maximum, Minimum, Product
from textgym.scorers.combine.rescaled import Affine, Clip
from textgym.scorers.combine.running_normalization import RunningNormalization
from textgym.scorers.combine.schedule import Schedule
from textgym.scorers.combine.sequential import Sequential
from textgym.scorers.combine.time_limit import TimeLimit
from textgym.scorers.combine.weighted_sum import WeightedSum

__all__ = [
    "Affine",
    "AgentTurns",
    "Cached",
    "Clip",
    "Constrained",
    "Gate",
    "GroupPercentile",
    "Maximum",
    "Minimum",
    "Product",
    "RunningNormalization",
    "Schedule",
    "Sequential",
    "TimeLimit",
    "WeightedSum",
]
