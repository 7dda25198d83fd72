"""From a probe to the keywords of an environment."""

from typing import Any

from textgym.errors import unknown_name
from textgym.probes.ladder import PROBES

__all__ = ["probe_keywords"]


def probe_keywords(*, probe: str, **keywords: Any) -> dict[str, Any]:
    """Return the keywords of a probe environment, which has a small vocabulary and a known optimum.

    ## Description
    The probes form a ladder, each rung of which takes one thing more. All have an optimal return of 1.

    | id | what to write | V | budget |
    |---|---|---|---|
    | ``ProbeConstant-v0`` | b, at every step | 5 | 4 |
    | ``ProbeBandit-v0`` | a, which pays 1 on average; b pays 1/2; a coin adds 1/2 or takes it | 5 | 1 |
    | ``ProbePrompt-v0`` | b after a, c after b, d after c, a after d | 5 | 1 |
    | ``ProbeStop-v0`` | any three letters and then EOS | 5 | 6 |
    | ``ProbeDelay-v0`` | c, and then anything up to the end of the budget | 5 | 8 |
    | ``ProbeMemory-v0`` | three letters of which the last is the first of the prompt | 5 | 3 |
    | ``ProbeCopy-v0`` | the prompt's two letters | 5 | 2 |
    | ``ProbeReverse-v0`` | the prompt's two letters in reverse order | 5 | 2 |
    | ``ProbeTrap-v0`` | at each step, of a to f, the first letter that is legal | 7 | 3 |

    ## Action Space
    ``Discrete(V)``: letters from a on, and then EOS. In Trap, two letters drawn at random are illegal at each step;
    only ``action_masks()`` tells which.

    ## Observation Space
    ``Box(0, V, (L,), int64)``: prompt and completion ids, right-padded with V. L is the length of the prompt, 4 in
    Memory, 2 in Copy and Reverse and 1 in all others, plus the budget.

    ## Rewards
    0 until the last step. There the share of the letters that are right (Constant, Prompt, Copy, Reverse, Trap), 1 or 0
    (Memory), 1 at the right length and 1/2 one letter off (Stop), the share of the budget that a text with the right
    beginning fills (Delay), or the arm's noisy pay (Bandit). In Trap an illegal letter ends the episode and costs 1.

    ## Starting State
    Prompts are equally likely: a letter of a to d (Prompt), two of them (Copy, Reverse), a or b and then three of a to
    d (Memory), always a (all others). The bandit's coins and the traps are drawn with the prompt and not observed.

    ## Episode End
    Terminated by EOS or at the end of the budget, which is part of the task; never truncated.

    ## Information
    As in ``TextGenEnv``.

    ## Arguments
    Those of ``TextGenEnv``; those that make the probe what it is can be overridden, at the price of its known optimum.

    ## References
    Jones 2021, Debugging RL, Without the Agonizing Pain (andyljones.com/posts/rl-debugging.html), on probe
    environments; Osband et al. 2020, Behaviour Suite for Reinforcement Learning (arXiv:1908.03568).

    ## Version History
    * v0: initial version.

    >>> from textgym import TextGenEnv
    >>> env = TextGenEnv(id="ProbeCopy-v0")
    >>> env.reset(seed=0, options={"prompt": "ca"})[0]
    array([2, 0, 5, 5])

    Raises:
        ValueError: If there is no such probe.
    """
    if probe not in PROBES:
        raise unknown_name("probe", probe, PROBES)
    return {**PROBES[probe].keywords, **keywords}
