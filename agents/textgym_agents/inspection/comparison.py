"""Comparison of two policies on the same prompts with the same random numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes
from textgym_agents.inspection.inspector import inspect
from textgym_agents.inspection.report import Report
from textgym_agents.inspection.subject import as_policy, as_subject, name_of
from textgym_agents.rollout import collect, text_env

__all__ = ["compare"]


def compare(
    before: Any,
    after: Any,
    env: Any,
    num_episodes: int = 64,
    *,
    seed: int = 0,
    deterministic: bool = False,
    **keywords: Any,
) -> Report:
    """Return a report of episodes of two policies, on the same prompts with the same random numbers.

    The episodes of ``before`` come first; ``info["policy"]`` says whose an episode is, ``info["pair"]`` is the number
    of the other policy's episode on the same prompt. In all of them the columns of before are those of ``before``, the
    others those of ``after``. The environment is left in the state it was in.

    Args:
        before: A policy, an agent, a name such as ``"tiny"``, or a folder.
        after: The same.
        env: A vector environment of the TextGen family.
        num_episodes: Episodes of each policy.
        seed: Seed of prompts and sampling.
        deterministic: Choose the likeliest token instead of sampling.
        **keywords: Further arguments of ``inspect``.

    Raises:
        TypeError: As ``inspect``, or if ``reference`` or ``env`` is given twice.
        ValueError: As ``inspect`` and ``collect``.
    """
    num_episodes = check_count("num_episodes", num_episodes)
    after = after if hasattr(after, "policy") else as_policy(after)
    subjects = [as_subject(before if hasattr(before, "policy") else as_policy(before)), as_subject(after)]
    halves = [_collect_alike(each.policy, env, num_episodes, seed, deterministic) for each in subjects]
    episodes = _joined(halves)
    episodes.values = torch.zeros_like(episodes.values)  # then V is that of `after` in all of them
    report = inspect(after, episodes, env=env, reference=subjects[0].policy, seed=seed, **keywords)
    for number, info in enumerate(report.infos):
        info["policy"] = "before" if number < num_episodes else "after"
        info["pair"] = (number + num_episodes) % (2 * num_episodes)
    report.about |= {"policy": name_of(after), "reference": name_of(before), "deterministic": deterministic}
    return report


def _collect_alike(policy: Any, env: Any, num_episodes: int, seed: int, deterministic: bool) -> Episodes:
    """Collect episodes whose prompts and random numbers do not depend on the lengths of others."""
    copy, parts = text_env(env).clone(), []
    for start in range(0, num_episodes, copy.num_envs):  # in each round no environment is reset
        size = min(copy.num_envs, num_episodes - start)
        generator = torch.Generator(policy.device).manual_seed(seed + start)
        parts.append(collect(copy, policy, size, seed=seed + start, deterministic=deterministic, generator=generator))
    return _joined(parts)


def _joined(parts: Sequence[Episodes]) -> Episodes:
    """Return episodes one after the other, without what an update has written into them."""
    width = max(part.ids.shape[1] for part in parts)
    steps = max(part.rewards.shape[1] for part in parts)

    def joined(name: str, size: int) -> torch.Tensor:
        arrays = [getattr(part, name) for part in parts]
        return torch.cat([F.pad(array, (0, size - array.shape[1])) for array in arrays])

    def flat(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    def entries(name: str) -> list[Any] | None:
        lists = [getattr(part, name) for part in parts]
        return None if None in lists else [entry for each in lists for entry in each]

    masks = [part.action_masks for part in parts if part.action_masks is not None]
    padded = [np.pad(mask, [(0, 0), (0, steps - mask.shape[1]), (0, 0)]) for mask in masks]
    return Episodes(
        ids=joined("ids", width),
        prompt_lengths=flat("prompt_lengths"),
        num_steps=flat("num_steps"),
        rewards=joined("rewards", steps),
        log_probs=joined("log_probs", steps),
        values=joined("values", steps),
        truncated=flat("truncated"),
        action_masks=np.concatenate(padded) if padded else None,
        infos=[info for part in parts for info in part.infos],
        positions=joined("positions", steps),
        text_lengths=flat("text_lengths"),
        starts=entries("starts"),
        tokenizer=parts[0].tokenizer,
        vocabulary=parts[0].vocabulary,
        texts=parts[0].texts,
    )
