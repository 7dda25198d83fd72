"""Documentation page of a probe."""

from textgym.probes.ladder import PROBES

__all__ = ["probe_page"]

PAGE = """{aim}

## Description
One of the probe environments, each of which requires one more ability than the one before. All have an optimal return
of 1.

| id | aim | V | budget |
|---|---|---|---|
{rows}

## Action Space
``Discrete({V})``: letters from a on, then EOS. In Trap, two letters drawn at random are invalid at each step; only
``action_masks()`` shows which.

## Observation Space
``Box(0, {V}, ({window},), int64)``: prompt and completion ids, right-padded with {V}. The window is the length of the
prompt, {prompt}, plus the budget, {budget}.

## Rewards
0 until the last step. There the share of correct letters (Constant, Prompt, Copy, Reverse, Trap), 1 or 0 (Memory), 1 at
the right length and 1/2 one letter off (Stop), length / budget if the first letter is right (Delay), or the arm's noisy
reward (Bandit). In Trap an invalid letter ends the episode and costs 1.

## Starting State
Prompts are equally likely: a letter of a to d (Prompt), two of them (Copy, Reverse), a or b and then three of a to d
(Memory), always a (all others). The bandit's noise and the traps are drawn with the prompt and not observed.

## Episode End
Terminated by EOS or at the end of the budget, which is part of the task; never truncated.

## Information
As in ``TextGenEnv``.

## Arguments
Those of ``TextGenEnv``. Overriding those that define the probe invalidates the known optimum.

## References
Jones 2021, Debugging RL, Without the Agonizing Pain (andyljones.com/posts/rl-debugging.html), on probe environments;
Osband et al. 2020, Behaviour Suite for Reinforcement Learning (arXiv:1908.03568).

## Version History
* v0: initial version.
"""


def probe_page(probe_id: str) -> str:
    """Return a probe's page in Markdown, under the headings of ``TextGenEnv``.

    >>> print(probe_page("ProbeCopy-v0").splitlines()[0])
    Write the prompt's two letters.
    """
    probe = PROBES[probe_id]
    sizes = {one.id: (one.keywords["tokenizer"].vocab_size, one.keywords["max_new_tokens"]) for one in PROBES.values()}
    rows = [f"| ``{one.id}`` | {one.aim} | {sizes[one.id][0]} | {sizes[one.id][1]} |" for one in PROBES.values()]
    (size, budget), prompt = sizes[probe.id], probe.keywords["max_prompt_tokens"]
    return PAGE.format(
        aim=probe.aim, rows="\n".join(rows), V=size, window=prompt + budget, prompt=prompt, budget=budget
    )
