"""``inspect``, which makes the report of some episodes and a policy."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import textgym
from textgym.errors import unknown_name
from textgym.tokenizers import Tokenizer, as_tokenizer
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes
from textgym_agents.inspection.advantages import advantage_mc, exact_values
from textgym_agents.inspection.branches import branch_views
from textgym_agents.inspection.columns import biography, policy_columns, put_returns
from textgym_agents.inspection.report import Report
from textgym_agents.inspection.subject import Subject, as_policy, as_subject, env_of, name_of
from textgym_agents.inspection.table import COLUMNS, TokenTable
from textgym_agents.policy import BasePolicy
from textgym_agents.recording import read_episodes
from textgym_agents.rollout import collect
from textgym_agents.run_folder import read_metrics

__all__ = ["episode_infos", "episodes_of", "inspect"]

Checkpoints = Mapping[str, Any] | Sequence[Any]
"""Policies, names or folders, by name or in order."""

_SHARE_OF_VALUES = 0.7
"""Share of the time for rollouts that values get; branches get the rest."""
_FEW_TOKENS = 64
"""Largest vocabulary for which exact values are tried."""
_BYTES_PER_TOKEN = 400
"""Memory of the columns of one token, without alternatives."""


def inspect(
    policy: Any,
    episodes: Episodes | str | os.PathLike[str] | int,
    *,
    env: Any = None,
    reference: Any = None,
    checkpoints: Checkpoints = (),
    num_alternatives: int = 5,
    gamma: float | None = None,
    gae_lambda: float | None = None,
    branches: int = 0,
    seconds: float | None = 30.0,
    columns: Sequence[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    memory_limit: int | None = None,
) -> Report:
    """Return a report of what each token of some episodes was worth, why it was chosen, and how it compares.

    Columns that the policy, the episodes or the arguments do not have are left out: without a reference those of
    before, without V those of V, without Q those of Q, without ``branches`` those of rollouts. ``COLUMNS`` describes
    them. Nothing is changed: neither the policy nor the environment.

    ``value``, ``return_to_go``, ``td_error``, ``gae_advantage`` and ``advantage_mc`` are all of one return, which
    ``report.about["return"]`` names: a KL penalty that an agent subtracts from its rewards, as its V foresees it, is in
    all of them. V of the state in which the time limit cut an episode, if the agent bootstraps with it, is in all but
    ``advantage_mc``, as the name then says: rollouts measure what V only predicts. ``reward`` is that of the
    environment.

    Args:
        policy: An ``LMPolicy``, ``QPolicy`` or ``ILQLPolicy``; an agent, of which policy, KL penalty, gamma and lambda
            are used; or an SB3 algorithm that acts on token ids, with textgym's policies or its own.
        episodes: Episodes, a file of ``EpisodeRecorder``, or a number of episodes to collect in ``env`` by the policy.
        env: The environment, for ``branches``, for collecting and for its tokenizer; by default the agent's.
        reference: The policy before: a policy, an agent, ``"tiny"`` or another name, or a folder. By default the
            reference of the agent's KL penalty, if it has one.
        checkpoints: Policies, names or folders, by name or in a list, for the column ``biography``: the log-probability
            of each token under each of them. ``report.about["checkpoints"]`` holds their names.
        num_alternatives: K, the likeliest tokens to keep of each state; 0 keeps none.
        gamma: Discount per step; by default the agent's, else 1.
        gae_lambda: Lambda of the advantages; by default the agent's, else 0.95 with an ``LMPolicy``.
        branches: Rollouts of each state at most, for ``advantage_mc``, the values with their standard errors, and
            ``report.branches``; 0 does none. Where texts can be enumerated, exact values stand beside them.
        seconds: Time for them; None sets no limit.
        columns: Names of the columns to keep, each of which must be known; by default all.
        run: Folder of a ``RunFolder``, whose metrics the report then holds.
        tokenizer: Tokenizer of the episodes; by default that of the environment, else that of the model.
        seed: Seed of rollouts and of collecting.
        memory_limit: Bytes that the columns may take; by default the memory that is available, where that is known.

    Raises:
        TypeError: If the policy has no probabilities of token ids, or another argument is of another type.
        ValueError: If a file has no episodes, episodes are of another vocabulary, the policy or the episodes lack what
            a named column needs, ``branches`` has no environment, or a number is out of range.
        FileNotFoundError: If there is no such file or folder.
        MemoryError: If the columns need more memory than ``memory_limit``.

    >>> import gymnasium, textgym
    >>> from textgym_agents import LMPolicy
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=2, max_new_tokens=4)
    >>> report = inspect(LMPolicy("tiny"), 2, env=env, reference="tiny-early")
    >>> len(report.episodes), report.episodes[1].tokens[0].kl > 0, report.about["return"]
    (2, True, 'score')
    """
    _check_numbers(num_alternatives, branches, seconds, gamma, gae_lambda)
    subject = as_subject(policy)
    env = env_of(policy, env)
    if branches and env is None:
        raise ValueError("branches needs the environment that the episodes are of: give env=...")
    episodes, decoder = episodes_of(subject, episodes, env, tokenizer, seed=seed)
    others = _named(checkpoints)
    _check_memory(episodes, num_alternatives, len(others), memory_limit)
    before = subject.reference if reference is None else as_subject(as_policy(reference)).outputs

    table = TokenTable.of(episodes, decoder)
    alternatives = min(num_alternatives, subject.vocab_size)
    computed = policy_columns(subject, before, episodes, alternatives)
    for name, values in computed.items():
        if name in COLUMNS:
            table.put_actions(name, values)
    if alternatives:
        table.add_texts(table.columns["top_ids"], decoder)
    gamma = subject.gamma if gamma is None else gamma
    gae_lambda = subject.gae_lambda if gae_lambda is None else gae_lambda
    put_returns(table, episodes, subject, computed, gamma=gamma, gae_lambda=gae_lambda)
    if others:
        table.put_actions("biography", biography(others.values(), episodes))
    about = {
        "textgym": textgym.__version__,
        "policy": type(policy).__name__,
        "reference": None if before is None else "the agent's own" if reference is None else name_of(reference),
        "return": subject.return_name(env, episodes),
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        "num_alternatives": alternatives,
        "checkpoints": list(others),
        "seed": seed,
    }
    report = Report(table, episode_infos(episodes, decoder), about)
    if branches:
        _put_rollouts(report, env, subject, episodes, num_rollouts=branches, seconds=seconds, gamma=gamma, seed=seed)
    if run is not None:
        report.metrics = read_metrics(run)
    if columns is not None:
        _check_columns(table, columns)
        table.columns = {name: table.columns[name] for name in columns}
    return report


def _put_rollouts(
    report: Report,
    env: Any,
    subject: Subject,
    episodes: Episodes,
    *,
    num_rollouts: int,
    seconds: float | None,
    gamma: float,
    seed: int,
) -> None:
    """Put the columns of values by rollouts, exact ones where texts are few, and the branches of some tokens."""
    started = time.monotonic()
    arguments: dict[str, Any] = {
        "num_rollouts": num_rollouts, "gamma": gamma, "kl_coef": subject.penalty, "reference": subject.kl_reference,
    }  # fmt: skip
    limit = None if seconds is None else _SHARE_OF_VALUES * seconds
    estimate = advantage_mc(env, subject.policy, episodes, **arguments, seconds=limit, seed=seed)
    for name, values in estimate.columns().items():
        report.table.put(name, values)
    report.about["rounds"] = estimate.num_rounds
    if not subject.penalty and subject.vocab_size <= _FEW_TOKENS:
        with contextlib.suppress(ValueError, TypeError):  # where texts cannot be enumerated
            exact = exact_values(env, subject.policy, episodes, gamma=gamma, max_transitions=200_000)
            for name, values in exact.items():
                report.table.put(name, values)
    if isinstance(subject.policy, BasePolicy):
        left = None if seconds is None else max(seconds - (time.monotonic() - started), 1e-3)
        report.branches = branch_views(
            env, subject.policy, episodes, **arguments, seconds=left, advantages=estimate.advantages, seed=seed + 1
        )
        actions = [action for branch in report.branches for action in branch.actions]
        report.table.add_texts(np.array(actions, dtype=np.int64), env.tokenizer)


def episodes_of(
    subject: Subject, episodes: Any, env: Any, tokenizer: Any = None, *, seed: int = 0
) -> tuple[Episodes, Tokenizer]:
    """Return the episodes that are inspected and their tokenizer, both checked against the policy's vocabulary.

    Args:
        subject: The policy.
        episodes: As in ``inspect``.
        env: The environment, if there is one.
        tokenizer: As in ``inspect``.
        seed: Seed of collecting.

    Raises:
        TypeError, ValueError: As ``inspect``.
    """
    found = _as_episodes(subject, episodes, env, seed)
    decoder = _tokenizer_of(tokenizer, env, subject)
    _check_vocabulary(found, subject, decoder)
    return found, decoder


_INFO = ("prompt", "completion", "score", "scores", "end_reason", "group", "update", "kl", "scorer_error", "turns")


def episode_infos(episodes: Episodes, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return ``EpisodeView.info`` of each episode."""
    returns, infos = episodes.returns, []
    for b, info in enumerate(episodes.infos):
        start, end = int(episodes.prompt_lengths[b]), int(episodes.text_lengths[b])
        known = {name: _plain(info[name]) for name in _INFO if name in info}
        if "prompt" not in known:
            known["prompt"] = tokenizer.decode(episodes.ids[b, :start].tolist())
        if "completion" not in known:
            known["completion"] = tokenizer.decode(episodes.ids[b, start:end].tolist())
        infos.append(known | {"return": float(returns[b]), "truncated": bool(episodes.truncated[b])})
    return infos


def _plain(value: Any) -> Any:
    """Return numbers of NumPy as those of Python."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _check_numbers(
    num_alternatives: int, branches: int, seconds: float | None, gamma: float | None, gae_lambda: float | None
) -> None:
    """Raise a TypeError or ValueError if a number is out of its range."""
    for name, count in (("num_alternatives", num_alternatives), ("branches", branches)):
        check_count(name, count, least=0)
    if branches == 1:
        raise ValueError("branches must be 0 or at least 2, got 1: a standard error needs two rollouts")
    if branches and seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be above 0, got {seconds!r}; branches=0 does no rollouts, None sets no limit")
    for name, fraction in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {fraction!r}")


def _named(checkpoints: Checkpoints) -> dict[str, Any]:
    """Return the checkpoints by name."""
    if isinstance(checkpoints, Mapping):
        return dict(checkpoints)
    if isinstance(checkpoints, str):
        raise TypeError(f"checkpoints must be a list or a mapping, got one text; write [{checkpoints!r}]")
    names = [name_of(checkpoint) for checkpoint in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return dict(zip(names, checkpoints, strict=True))


def _as_episodes(subject: Subject, episodes: Any, env: Any, seed: int) -> Episodes:
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


def _tokenizer_of(tokenizer: Any, env: Any, subject: Subject) -> Tokenizer:
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


def _check_vocabulary(episodes: Episodes, subject: Subject, tokenizer: Tokenizer) -> None:
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


def _check_memory(episodes: Episodes, num_alternatives: int, num_checkpoints: int, limit: int | None) -> None:
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


def _check_columns(table: TokenTable, names: Sequence[str]) -> None:
    """Raise a ValueError if a column is not there."""
    for name in names:
        if name not in table.columns:
            if name not in COLUMNS:
                raise unknown_name("column", name, {*COLUMNS, *table.columns})
            needs = "a reference" if name.endswith("_before") or name.startswith("kl") else "branches and env"
            raise ValueError(f"the column {name!r} needs {_NEEDS.get(name, needs)}")
