"""Best-of-n: let the policy finish the text n times and play the completion that the environment pays best."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.decoding.planner import Planner, Plans, empty_plans
from textgym_agents.decoding.simulation import Simulation
from textgym_agents.policy import Policy

__all__ = ["BestOfN"]


class BestOfN(Planner):
    """Plays the best of n sampled completions.

    From the present state each text is finished n times in copies of the environment's episodes, all at once; the one
    of the highest return from here on is played. Its policy is about log(n) - (n - 1) / n nats away from the one that
    samples (Stiennon et al. 2020, Learning to summarize from human feedback, arXiv:2009.01325, appendix G.3).

    Args:
        policy: Any policy that samples, as ``LMPolicy`` and ``Sampling`` do.
        env: The environment that is being played, of any interface.
        n: Completions per text.
        seed: Of its own generator.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If ``n`` is below 1, or the actions are not the policy's tokens.
    """

    def __init__(self, policy: Policy, env: Any, n: int = 8, *, seed: int = 0) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        super().__init__(policy, env, seed, getattr(policy, "device", "cpu"))
        self.policy, self.n = policy, n

    def plan(self, slots: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Finish each text n times and return the best completions; see ``Planner.plan``."""
        num_slots = len(slots)
        texts = Simulation(self.env, np.repeat(np.arange(num_slots), self.n))
        plans = empty_plans(texts.ids.shape, self.env.pad_token_id)
        returns = np.zeros(len(texts.ids))
        unfinished = texts.running & np.repeat(slots, self.n)
        while unfinished.any():
            choice = self.policy.act(texts.ids, texts.masks(), active=unfinished, generator=generator)
            here = np.flatnonzero(unfinished), texts.lengths[unfinished]
            plans.log_probs[here], plans.values[here] = choice.log_probs[unfinished], choice.values[unfinished]
            plans.is_action[here] = True
            returns += texts.step(choice.actions, choice.log_probs, unfinished)
            unfinished &= texts.running
        best = np.arange(num_slots) * self.n + returns.reshape(num_slots, self.n).argmax(axis=1)
        return Plans(texts.ids[best], *(part[best] for part in plans[1:]))
