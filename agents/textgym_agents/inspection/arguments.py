"""The arguments of ``inspect``: their defaults, and one message for each that does not fit."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textgym.envs.interface import CoreInterface
from textgym.errors import unknown_name
from textgym.tokenizers import Tokenizer, as_tokenizer
from textgym_agents.episodes import Episodes
from textgym_agents.inspection.subject import Subject
from textgym_agents.inspection.table import COLUMNS, TokenTable
from textgym_agents.recording import read_episodes
from textgym_agents.rollout import collect

__all__ = [
    "Checkpoints",
    "as_episodes",
    "check_columns",
    "check_memory",
    "check_numbers",
    "check_same_width",
    "check_vocabulary",
    "env_of",
    "name_of",
    "named",
    "return_name",
    "tokenizer_of",
]

Checkpoints = Mapping[str, Any] | Sequence[Any]
"""Policies, names or folders, by name or in order."""
_BYTES_PER_TOKEN = 400
"""Memory of the columns of one token, without alternatives."""


def check_numbers(
    num_alternatives: int, branches: int, seconds: float | None, gamma: float | None, gae_lambda: float | None
) -> None:
    """Raise a TypeError or ValueError if a number is out of its range."""
    for name, count in (("num_alternatives", num_alternatives), ("branches", branches)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {count!r}")
        if count < 0:
            raise ValueError(f"{name} must be at least 0, got {count}")
    if branches == 1:
        raise ValueError("branches must be 0 or at least 2, got 1: a standard error needs two rollouts")
    if branches and seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be above 0, got {seconds!r}; branches=0 does no rollouts, None sets no limit")
    for name, fraction in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {fraction!r}")


def env_of(policy: Any, env: Any) -> Any:
    """Return the unwrapped environment, by default that of the agent or SB3 algorithm; None if there is none."""
    given = getattr(policy, "env", None) if env is None else env
    base = getattr(given, "unwrapped", given)
    if isinstance(base, CoreInterface):
        return base
    if env is not None:
        raise TypeError(f"env must be an environment of the TextGen family, got {type(base).__name__}")
    return None


def as_episodes(subject: Subject, episodes: Any, env: Any, seed: int) -> Episodes:
    """Return episodes, read from a file or collected in a copy of the environment where they are a path or a number."""
    if isinstance(episodes, int | np.integer) and not isinstance(episodes, bool):
        if env is None:
            raise ValueError(f"to collect {episodes} episodes, give the environment: env=...")
        generator = torch.Generator(subject.policy.device).manual_seed(seed)
        return collect(env.clone(), subject.policy, int(episodes), seed=seed, generator=generator)
    if isinstance(episodes, str | os.PathLike):
        return read_episodes(episodes)
    if not isinstance(episodes, Episodes):
        kind = type(episodes).__name__
        raise TypeError(f"episodes must be Episodes, a file of EpisodeRecorder or a number to collect, got {kind}")
    if len(episodes) == 0:
        raise ValueError("episodes must hold at least 1 episode, got none")
    return episodes


def tokenizer_of(tokenizer: Any, env: Any, subject: Subject) -> Tokenizer:
    """Return the tokenizer of the episodes: the given one, the environment's or the model's."""
    if tokenizer is not None:
        return as_tokenizer(tokenizer, subject.vocab_size)
    if env is not None:
        return env.tokenizer
    model = getattr(subject.policy, "model", None)
    source = getattr(getattr(model, "config", None), "_name_or_path", "")
    if not source:
        raise ValueError("the tokenizer of the episodes is not known: give tokenizer=... or env=...")
    return as_tokenizer(source, subject.vocab_size)


def check_vocabulary(episodes: Episodes, subject: Subject, tokenizer: Tokenizer) -> None:
    """Raise a ValueError if the episodes hold ids that the policy does not have, or ids of other texts than theirs."""
    size = min(subject.vocab_size, tokenizer.vocab_size)
    least, most = int(episodes.ids.min()), int(episodes.ids.max())
    if least < 0 or most >= size:
        raise ValueError(
            f"the episodes hold ids from {least} to {most}, the policy's vocabulary ends at {size - 1}: they were "
            "written with another tokenizer; inspect them with a policy of that vocabulary"
        )
    bits, width = episodes.action_masks, -(-subject.vocab_size // 8)
    if bits is not None and bits.shape[2] != width:
        raise ValueError(
            f"the episodes' action masks have {bits.shape[2]} bytes a step, a vocabulary of {subject.vocab_size} needs "
            f"{width}: they are of another vocabulary"
        )
    pairs = []
    for b, info in enumerate(episodes.infos[:8]):
        if info.get("completion") and "turns" not in info:
            ids = episodes.ids[b, int(episodes.prompt_lengths[b]) : int(episodes.text_lengths[b])]
            pairs.append((info["completion"], tokenizer.decode(ids.tolist())))
    if pairs and not any(decoded.startswith(text) or text.startswith(decoded) for text, decoded in pairs):
        text, decoded = pairs[0]
        raise ValueError(
            f"the episodes are of another vocabulary: the ids of the completion {text[:40]!r} mean {decoded[:40]!r} "
            "here; inspect them with a policy of their vocabulary, or give their tokenizer=..."
        )


def check_same_width(reference: torch.Tensor, own: torch.Tensor) -> None:
    """Raise a ValueError unless (M, V) logits of the reference and the policy have the same V."""
    if reference.shape != own.shape:
        raise ValueError(
            f"the reference has a vocabulary of {reference.shape[1]}, the policy one of {own.shape[1]}; give a "
            "reference of the policy's vocabulary"
        )


def check_memory(episodes: Episodes, num_alternatives: int, num_checkpoints: int, limit: int | None) -> None:
    """Raise a MemoryError if the columns take more bytes than the limit, by default those that are available."""
    tokens = int((episodes.text_lengths - episodes.prompt_lengths).sum())
    needed = tokens * (_BYTES_PER_TOKEN + 32 * num_alternatives + 8 * num_checkpoints)
    limit = _available_memory() if limit is None else limit
    if limit is not None and needed > limit:
        raise MemoryError(
            f"the columns of {len(episodes):,} episodes, {tokens:,} tokens, take about {needed / 1e6:,.0f} MB, but "
            f"{limit / 1e6:,.0f} MB are available: inspect fewer, such as episodes[:{len(episodes) * limit // needed}]"
        )


def _available_memory() -> int | None:
    """Return the bytes of memory that are available, or None where the system does not say."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def named(checkpoints: Checkpoints) -> dict[str, Any]:
    """Return the checkpoints by name."""
    if isinstance(checkpoints, Mapping):
        return dict(checkpoints)
    if isinstance(checkpoints, str):
        raise TypeError(f"checkpoints must be a list or a mapping, got one text; write [{checkpoints!r}]")
    names = [name_of(checkpoint) for checkpoint in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return dict(zip(names, checkpoints, strict=True))


def name_of(model: Any) -> str:
    """Return the name of a model in a report: that of its folder, or of its class."""
    return Path(model).name if isinstance(model, str | Path) else type(model).__name__


def return_name(subject: Subject, env: Any, episodes: Episodes) -> str:
    """Return the return that the columns are of."""
    in_env = env is not None and env.config.kl_penalty
    if in_env or (env is None and not math.isnan(episodes.infos[0].get("kl", math.nan))):
        coef = f"{env.core.components.kl.coefficient.coef:.4g}" if in_env else "a coefficient"
        return f"score minus {coef} x KL to the reference, as the environment rewards it"
    return subject.return_name


_NEEDS = {
    "value": "a policy with V: here it is 0 in every state, untrained or not there",
    "td_error": "a policy with V: here it is 0 in every state, untrained or not there",
    "gae_advantage": "a policy with V, not 0 in every state as here, and gae_lambda",
    "q_value": "a policy with a Q-function",
    "max_q": "a policy with a Q-function",
    "soft_value": "a policy with a Q-function of a temperature",
    "ratio": "episodes with the log-probabilities of the policy that acted",
    "clipped": "an agent with a clip_range, and episodes with log-probabilities",
    "biography": "checkpoints",
    "top_ids": "num_alternatives above 0",
    "top_log_probs": "num_alternatives above 0",
}


def check_columns(table: TokenTable, names: Sequence[str]) -> None:
    """Raise a ValueError if a column is not there."""
    for name in names:
        if name not in table.columns:
            if name not in COLUMNS:
                raise unknown_name("column", name, {*COLUMNS, *table.columns})
            needs = "a reference" if name.endswith("_before") or name.startswith("kl") else "branches and env"
            raise ValueError(f"the column {name!r} needs {_NEEDS.get(name, needs)}")
