"""Beam search: the likeliest completion that is found by keeping the k likeliest beginnings."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym_agents.decoding.decoder import as_lm_policy
from textgym_agents.decoding.planner import Planner, Plans, empty_plans
from textgym_agents.decoding.simulation import Simulation

__all__ = ["BeamSearch"]


class BeamSearch(Planner):
    """Plays the completion of the highest log-probability under the policy that a beam of width k finds.

    In each step the k beginnings of each text have k V continuations. Of the 2k likeliest, those that end the text
    and are among the first k are compared with the likeliest whole completion so far; the first k of the others go on
    while they are likelier than that. Without masks this is ``generate(num_beams=k, length_penalty=0.0)`` of
    transformers; here constraints, stop strings and budget are the environment's. The rewards play no role.

    Args:
        policy: An ``LMPolicy`` or what it takes, such as ``"tiny"`` or a loaded model.
        env: The environment that is being played, of any interface.
        num_beams: k; 1 is greedy decoding.

    Raises:
        TypeError: If the environment is not of the TextGen family.
        ValueError: If ``num_beams`` is below 1, or the actions are not the policy's tokens.
    """

    def __init__(self, policy: Any, env: Any, num_beams: int = 4) -> None:
        if num_beams < 1:
            raise ValueError(f"num_beams must be at least 1, got {num_beams}")
        self.policy = as_lm_policy(policy)
        super().__init__(self.policy, env)
        self.num_beams = num_beams

    def plan(self, slots: npt.NDArray[np.bool_], generator: torch.Generator) -> Plans:
        """Return the likeliest completions found; see ``Planner.plan``."""
        num_slots, width = len(slots), 2 * self.num_beams
        texts = Simulation(self.env, np.repeat(np.arange(num_slots), width))
        best = empty_plans(self.plans.ids.shape, self.env.pad_token_id)
        plans = empty_plans(texts.ids.shape, self.env.pad_token_id)
        best_score = np.full(num_slots, -np.inf)
        scores = np.full((num_slots, width), -np.inf)  # (N, 2k) log-probabilities of the beginnings; -inf: no beam
        scores[slots & texts.running.reshape(num_slots, width)[:, 0], 0] = 0.0
        while (is_beam := np.isfinite(scores)).any():
            parents, tokens, new, state_values, scores = self._continuations(texts, scores, is_beam)
            texts.rearrange(parents)
            plans = Plans(*(part[parents] for part in plans))
            written = np.isfinite(scores).ravel()
            here = np.flatnonzero(written), texts.lengths[written]
            plans.log_probs[here], plans.values[here] = new[written], state_values[parents][written]
            plans.is_action[here] = True
            texts.step(tokens, new, written)
            running = texts.running.reshape(num_slots, width)
            whole = np.where(~running & (np.arange(width) < self.num_beams), scores, -np.inf)
            better = whole.max(axis=1) > best_score
            chosen = (np.arange(num_slots) * width + whole.argmax(axis=1))[better]
            best.take_over(better, plans._replace(ids=texts.ids), chosen)
            best_score = np.maximum(best_score, whole.max(axis=1))
            goes_on = running & (scores > best_score[:, None])
            goes_on &= goes_on.cumsum(axis=1) <= self.num_beams
            scores = np.where(goes_on, scores, -np.inf)
        if np.isinf(best_score[slots]).any():
            raise FloatingPointError("the model's logits are NaN, so no completion is likelier than another")
        return best

    def _continuations(
        self, texts: Simulation, scores: npt.NDArray[np.float64], is_beam: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[Any], ...]:
        """Find the 2k likeliest continuations of each slot's beams.

        Returns:
            (2kN,) copies that they continue, tokens, log-probabilities of the tokens; (2kN,) V of the copies; (N, 2k)
            log-probabilities of the continued beginnings, falling, -inf where there are not so many.
        """
        num_slots, width = scores.shape
        logits, values = self.policy.step(texts.ids, texts.masks(), active=is_beam.ravel())
        new = torch.log_softmax(logits, dim=-1)
        totals = new + torch.from_numpy(scores.reshape(-1, 1)).to(new)
        best, index = totals.reshape(num_slots, -1).topk(width, dim=1)
        flat = (torch.arange(num_slots, device=index.device)[:, None] * width * self.vocab_size + index).ravel()
        parents, tokens = flat // self.vocab_size, flat % self.vocab_size
        parts = (parents, tokens, new[parents, tokens], values, best.double())
        return tuple(part.cpu().numpy() for part in parts)
