"""Scorers that are made of other scorers.

    composition    WeightedSum, Product, Minimum, Maximum, Gate, Sequential: several scores become one
    transforms     Affine, Clip, Schedule: fixed functions of a score
    adaptive       RunningNormalization, GroupPercentile, Constrained: learn from observed episodes
    wrappers       Cached, TimeLimit, AgentTurns: change how a scorer is called
    base           the base classes of all of them

Inner scorers are given as anything that ``textgym.scorers.as_scorer`` accepts; ``scorer.scorers`` is the tuple of
them.

Component names. A component is the score of an inner scorer; the total is what the combination computes from it.

- A composition of several, such as ``WeightedSum``, has one component per inner scorer, under its name, followed by
  the components of that scorer as ``"name/inner"``.
- A wrapper of one, such as ``Clip``, takes the name of its scorer and reports the components that this scorer has on
  its own, before the wrapper changes the score.

So ``Clip("sentiment")`` reports the unclipped score as ``"sentiment"``; as the component ``"mood"`` of a sum, the
clipped score is ``"mood"`` and the unclipped one ``"mood/sentiment"``.

A component that does not apply to an episode (NaN) is ignored. An episode for which an inner scorer fails has no total,
and the error names the component. Empty completions are scored like any other. Wrappers keep the range of their scorer,
and are deterministic if it is, unless they state otherwise.
"""
