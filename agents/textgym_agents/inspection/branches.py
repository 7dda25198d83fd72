"""What would have followed other actions in a few states of past episodes."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.envs.interface import CoreInterface, select_slots
from textgym_agents.branching import branch, check_rollout_env
from textgym_agents.config import check_count
from textgym_agents.decoding.base import Simulation
from textgym_agents.episodes import Episodes
from textgym_agents.inspection.advantages import check_budget
from textgym_agents.inspection.report import Branch
from textgym_agents.losses import entropies
from textgym_agents.policy import BasePolicy
from textgym_agents.state_replay import env_with_kl, replay

__all__ = ["branch_views"]


def branch_views(
    env: Any,
    policy: BasePolicy,
    episodes: Episodes,
    *,
    num_positions: int = 5,
    num_actions: int = 5,
    num_rollouts: int = 64,
    num_samples: int = 2,
    advantages: npt.ArrayLike | None = None,
    gamma: float = 1.0,
    kl_coef: float = 0.0,
    reference: Any = None,
    seconds: float | None = None,
    seed: int = 0,
) -> list[Branch]:
    """Return Q of the likeliest actions in a few states of each episode, with sample continuations, by rollouts.

    The states are those of the largest |A_t|, or without ``advantages`` of the largest entropy of pi(.|s_t). Besides
    the likeliest actions there is the one that was taken, last, if it is not among them.

    Args:
        env: The environment of the episodes.
        policy: A policy with probabilities of all tokens: ``LMPolicy``, ``QPolicy`` or ``ILQLPolicy``.
        episodes: B episodes.
        num_positions: States of each episode, at most.
        num_actions: Likeliest actions of each state, at most; invalid ones are left out.
        num_rollouts: Rollouts of each action, at least 2.
        num_samples: Continuations to keep of each action.
        advantages: (B, T) A_t, such as those of ``advantage_mc``.
        gamma: Discount per step.
        kl_coef: As in ``advantage_mc``.
        reference: As in ``advantage_mc``.
        seconds: Time after which no further state is branched, though one always is. None sets no limit.
        seed: Seed of the rollouts; another one than that of ``advantage_mc``, for independent estimates.

    Returns:
        One ``Branch`` for each state, in the order of the episodes and their tokens.

    Raises:
        TypeError: If the policy gives no probabilities of all tokens.
        ValueError, ScorerError: As ``advantage_mc``.
    """
    for name, count in (("num_positions", num_positions), ("num_actions", num_actions)):
        check_count(name, count)
    if not isinstance(policy, BasePolicy):
        raise TypeError(f"branch_views needs the probabilities of all tokens, which {type(policy).__name__} lacks")
    check_budget(num_rollouts, seconds, None, gamma, seed)
    started = time.monotonic()
    base = env_with_kl(check_rollout_env(env, policy, has_actions=True), kl_coef, reference)
    states, index, _ = replay(base, episodes)
    log_probs = _log_probs(base, policy, states)
    if advantages is None:
        weights = entropies(log_probs).numpy()[index[:, :-1]]
    else:
        weights = np.abs(np.asarray(advantages, dtype=np.float64))
    weights = np.where(index[:, :-1] >= 0, np.nan_to_num(weights), -1.0)
    branches: list[Branch] = []
    for b in range(len(episodes)):
        order = np.argsort(-weights[b], kind="stable")[: min(num_positions, int(episodes.num_steps[b]))]
        for t in sorted(order.tolist()):
            if branches and seconds is not None and time.monotonic() - started >= seconds:
                return branches
            column = int(episodes.positions[b, t])
            own, state = log_probs[index[b, t]], int(index[b, t])
            best = own.topk(min(num_actions, int((own > -torch.inf).sum()))).indices.tolist()
            taken = int(episodes.ids[b, column])
            actions = best if taken in best else [*best, taken]
            result = branch(
                base, policy, num_rollouts, states=select_slots(states, np.array([state])), actions=[actions],
                gamma=gamma, seed=int(np.random.SeedSequence((seed, state)).generate_state(1)[0]), return_ids=True,
            )  # fmt: skip
            assert result.ids is not None
            texts = result.ids[0, :, :num_samples, column + 1 :]
            samples = tuple(
                tuple(base.tokenizer.decode(text[text != base.pad_token_id].tolist()) for text in each)
                for each in texts
            )
            branches.append(
                Branch(
                    episode=b,
                    token=column - int(episodes.prompt_lengths[b]),
                    actions=tuple(actions),
                    probs=tuple(own[actions].exp().tolist()),
                    q_values=tuple(result.values[0].tolist()),
                    standard_errors=tuple(result.standard_errors[0].tolist()),
                    samples=samples,
                )
            )
    return branches


def _log_probs(env: CoreInterface, policy: BasePolicy, states: dict[str, Any]) -> torch.Tensor:
    """Return (M, V) log pi(.|s) of the M states."""
    size, parts = min(len(states["lengths"]), 256), []
    simulation = Simulation(env, np.zeros(size, dtype=np.int64))
    for start in range(0, len(states["lengths"]), size):
        rows = np.minimum(np.arange(start, start + size), len(states["lengths"]) - 1)
        simulation.restart(np.arange(size), select_slots(states, rows))
        masks = simulation.masks()
        with torch.no_grad():
            logits, hidden = policy.backbone.step(simulation.ids)
            valid = None if masks is None else torch.tensor(masks, device=logits.device)
            behaviour = policy.action_preferences(simulation.ids, logits, hidden, valid)[0]
        parts.append(torch.log_softmax(behaviour.float(), dim=1).cpu())
    return torch.cat(parts)[: len(states["lengths"])]
