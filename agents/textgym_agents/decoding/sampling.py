"""Decoders that choose token by token: uniform, greedy, and temperature, top-k and top-p sampling."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from textgym.envs.interface import CoreInterface
from textgym_agents.decoding.base import Decoder, as_lm_policy
from textgym_agents.policy import ActionOutput, Policy, choose
from textgym_agents.token_stats import check_records

__all__ = ["Greedy", "RandomPolicy", "Sampling"]


class RandomPolicy(Decoder):
    """Uniform distribution over the valid tokens.

    Args:
        vocab_size: V.
        seed: Seed of its own generator.

    >>> RandomPolicy(8).act(np.array([[0, 8]]), np.eye(8, dtype=bool)[[3]]).actions
    array([3])
    """

    def __init__(self, vocab_size: int, *, seed: int = 0) -> None:
        super().__init__(vocab_size, seed)

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        num_alternatives: int | None = None,
    ) -> ActionOutput:
        """Draw the next token of N texts; ``deterministic`` has no effect; see ``BasePolicy.act``."""
        generator = generator or self.generator
        logits = torch.zeros(len(ids), self.vocab_size, device=generator.device)
        actions, log_probs, stats = choose(logits, action_masks, generator=generator, num_alternatives=num_alternatives)
        return ActionOutput(actions, log_probs, np.zeros(len(ids), dtype=np.float32), stats)


class Greedy(Decoder):
    """Greedy decoding: the policy's action with ``deterministic=True``.

    Args:
        policy: Any policy, including Q-functions.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.vocab_size, device=getattr(policy, "device", "cpu"))
        self.policy = policy

    def acting_in(self, env: CoreInterface) -> "Greedy":
        """Return a greedy decoder of a policy that looks ahead in another environment, if it looks ahead."""
        return Greedy(self.policy.acting_in(env)) if isinstance(self.policy, Decoder) else self

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
        num_alternatives: int | None = None,
    ) -> ActionOutput:
        """Choose the best next token of N texts; ``deterministic`` has no effect.

        Log-probabilities and statistics are those of the policy's distribution; see ``BasePolicy.act``.

        Raises:
            ValueError: If ``num_alternatives`` is given and the policy has no statistics.
        """
        check_records(self.policy, num_alternatives)
        keywords: dict[str, Any] = {} if num_alternatives is None else {"num_alternatives": num_alternatives}
        return self.policy.act(ids, action_masks, active=active, deterministic=True, generator=generator, **keywords)


class Sampling(Decoder):
    """Sampling from softmax(logits / temperature), restricted by top-k and top-p.

    Masks, temperature, ``top_k`` and ``top_p`` are applied in this order, the last three with transformers' own
    processors. The log-probabilities are those of the resulting distribution.

    Args:
        policy: An ``LMPolicy`` or what it takes, such as ``"tiny"`` or a loaded model.
        temperature: Above 0; below 1 sharpens.
        top_k: Number of most likely tokens to keep; None keeps all.
        top_p: Keep the smallest set of tokens whose probabilities add up to at least this (Holtzman et al. 2020, The
            curious case of neural text degeneration, arXiv:1904.09751); None keeps all.
        seed: Seed of its own generator.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        policy: Any,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> None:
        self.policy = as_lm_policy(policy)
        super().__init__(self.policy.vocab_size, seed, self.policy.device)
        self.warp = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
        if top_k is not None:
            self.warp.append(TopKLogitsWarper(top_k))
        if top_p is not None:
            self.warp.append(TopPLogitsWarper(top_p))

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        num_alternatives: int | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts; ``deterministic`` takes the most likely one; see ``BasePolicy.act``."""
        logits, values = self.policy.logits_and_values(ids, action_masks, active=active)
        logits = self.warp(torch.from_numpy(ids), logits)  # type: ignore[arg-type]
        actions, log_probs, stats = choose(
            logits,
            deterministic=deterministic,
            generator=generator or self.generator,
            num_alternatives=num_alternatives,
        )
        return ActionOutput(actions, log_probs, values.cpu().numpy(), stats)
