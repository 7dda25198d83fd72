"""Scorers that are made of other scorers.

    WeightedSum, Product, Minimum, Maximum    several scores become one
    Gate, Sequential                          one scorer decides whether another is asked
    Clip, Affine, Schedule                    a score is changed by a rule
    RunningNormalization, GroupPercentile     a score is compared with other texts' scores
    Constrained                               one score is maximised while another is kept high enough
    Cached, TimeLimit                         a score stays as it is, its cost changes
    AgentTurns                                a scorer sees less of the text

Inner scorers are given as anything that :func:`textgym.scorers.as_scorer` accepts, and ``scorer.scorers`` is the tuple
of them. ``set_progress`` and ``observe`` are passed on to all.

Names of components. A component is an inner scorer's own score; the total is what the combination makes of it.

- One made of several, such as ``WeightedSum``, has a component for each part, under the part's name, and the components
  of that part as ``"part/inner"``.
- A wrapper of one, such as ``Clip``, adds no name: it has the name of its scorer, and the components that its scorer
  has when it is called alone, before the wrapper changes the score.

So ``Clip("sentiment")`` shows what the sentiment was as ``"sentiment"``, and as the part ``"mood"`` of a sum it shows
its clipped score as ``"mood"`` and the sentiment as ``"mood/sentiment"``.

A part that does not apply to an episode (NaN) is left out of it. An episode for which a part that was asked fails has
no total, and the error names the part.
"""
