"""``inspect``, which makes the report of some episodes and a policy."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

import textgym
from textgym.lm import log_prob
from textgym.tokenizers import Tokenizer
from textgym_agents.episodes import Episodes
from textgym_agents.inspection.advantages import advantage_mc, exact_values
from textgym_agents.inspection.arguments import (
    Checkpoints,
    as_episodes,
    check_columns,
    check_memory,
    check_numbers,
    check_same_width,
    check_vocabulary,
    env_of,
    name_of,
    named,
    return_name,
    tokenizer_of,
)
from textgym_agents.inspection.branches import branch_views
from textgym_agents.inspection.columns import (
    before_columns,
    distribution_columns,
    q_columns,
    ratio_columns,
    return_columns,
)
from textgym_agents.inspection.report import Report
from textgym_agents.inspection.subject import StateOutputs, Subject, as_policy, as_subject
from textgym_agents.inspection.table import COLUMNS, TokenTable
from textgym_agents.losses import normalized
from textgym_agents.policy import BasePolicy
from textgym_agents.run_folder import read_metrics

__all__ = ["episode_info", "inspect"]

_SHARE_OF_VALUES = 0.7
"""Share of the time for rollouts that values get; branches get the rest."""
_FEW_TOKENS = 64
"""Largest vocabulary for which exact values are tried."""
_LOGITS = 2**22
"""Logits of one micro-batch: 16 MB in float32, of which a few copies are made."""


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
    all of them. ``reward`` is that of the environment.

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
    check_numbers(num_alternatives, branches, seconds, gamma, gae_lambda)
    subject = as_subject(policy)
    env = env_of(policy, env)
    if branches and env is None:
        raise ValueError("branches needs the environment that the episodes are of: give env=...")
    episodes = as_episodes(subject, episodes, env, seed)
    decoder = tokenizer_of(tokenizer, env, subject)
    check_vocabulary(episodes, subject, decoder)
    others = named(checkpoints)
    check_memory(episodes, num_alternatives, len(others), memory_limit)
    before = subject.reference if reference is None else as_subject(as_policy(reference)).outputs

    table = TokenTable.of(episodes, decoder)
    alternatives = min(num_alternatives, subject.vocab_size)
    computed = _by_action(subject, before, episodes, alternatives)
    for name, values in computed.items():
        if name in COLUMNS:
            table.put_actions(name, values)
    if alternatives:
        table.add_texts(table.columns["top_ids"], decoder)
    gamma = subject.gamma if gamma is None else gamma
    gae_lambda = subject.gae_lambda if gae_lambda is None else gae_lambda
    _put_returns(table, episodes, subject, computed, gamma=gamma, gae_lambda=gae_lambda)
    if others:
        table.put_actions("biography", _biography(others.values(), episodes))
    about = {
        "textgym": textgym.__version__,
        "policy": type(policy).__name__,
        "reference": None if before is None else "the agent's own" if reference is None else name_of(reference),
        "return": return_name(subject, env, episodes),
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        "num_alternatives": alternatives,
        "checkpoints": list(others),
        "seed": seed,
    }
    report = Report(table, [episode_info(episodes, b, decoder) for b in range(len(episodes))], about)
    if branches:
        _put_rollouts(report, env, subject, episodes, num_rollouts=branches, seconds=seconds, gamma=gamma, seed=seed)
    if run is not None:
        report.metrics = read_metrics(run)
    if columns is not None:
        check_columns(table, columns)
        table.columns = {name: table.columns[name] for name in columns}
    return report


# Columns


def _by_action(
    subject: Subject,
    before: Callable[[Episodes, bool], StateOutputs] | None,
    episodes: Episodes,
    num_alternatives: int,
) -> dict[str, torch.Tensor]:
    """Return (A,) and (A, K) columns of all actions, computed in micro-batches of episodes.

    Besides, ``V`` of the policy and ``log pi_ref`` of the reference of its KL penalty, where there are such.
    """
    whole: dict[str, torch.Tensor] = {}
    start, total = 0, int(episodes.num_steps.sum())
    for part in _micro_batches(episodes, subject.vocab_size):
        own, actions = subject.outputs(part, False), part.actions()
        columns = distribution_columns(own.logits, actions, num_alternatives)
        if part.action_masks is not None:
            columns["mask_size"] = (own.logits > -torch.inf).sum(dim=1).float()
        reference = initial = None
        if before is not None:
            reference = before(part, False)
            check_same_width(reference.logits, own.logits)
            columns |= before_columns(own.logits, reference.logits, actions, columns.get("top_ids"))
        if subject.penalty and subject.reference is not None:
            if before is not subject.reference or reference is None:
                initial = subject.reference(part, False)
            else:
                initial = reference
            columns["log pi_ref"] = log_prob(initial.logits, actions)
        if own.values is not None:
            columns["V"] = own.values
        columns |= _q_columns(subject, own, initial, actions)
        # Written into one array at once: small tensors kept between the large ones would fragment the memory.
        for name, values in columns.items():
            if name not in whole:
                whole[name] = torch.empty((total, *values.shape[1:]), dtype=values.dtype)
            whole[name][start : start + len(values)] = values
        start += len(actions)
    return whole


def _q_columns(
    subject: Subject, own: StateOutputs, initial: StateOutputs | None, actions: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the columns of Q, if there is a Q."""
    if subject.soft_temperature is None or own.values is None:
        soft = {} if own.soft_values is None else {"soft_value": own.soft_values}
        return soft if own.q is None else q_columns(own.q, actions) | soft
    ratios = torch.log_softmax(own.logits, dim=1)
    if initial is not None:
        ratios = ratios - torch.log_softmax(initial.logits, dim=1)
    ratios = ratios.masked_fill(own.logits == -torch.inf, -torch.inf)
    q = own.values[:, None] + subject.soft_temperature * ratios
    return q_columns(q, actions) | {"soft_value": own.values}


def _put_returns(
    table: TokenTable,
    episodes: Episodes,
    subject: Subject,
    computed: dict[str, torch.Tensor],
    *,
    gamma: float,
    gae_lambda: float | None,
) -> None:
    """Put the columns of returns, values and ratios."""
    spread = episodes.spread
    after, old = spread(computed["log_prob_after"]), episodes.log_probs
    is_known = not bool(old[episodes.mask].isnan().any())
    rewards = episodes.rewards
    if subject.penalty:
        initial = spread(computed["log pi_ref"]) if "log pi_ref" in computed else torch.zeros_like(after)
        rewards = rewards - subject.penalty * ((old if is_known else after) - initial)
    values: torch.Tensor | None = episodes.values
    if not bool(episodes.values.any()):
        values = spread(computed["V"]) if "V" in computed and bool(computed["V"].any()) else None
    last_values = None
    if subject.bootstraps and values is not None and bool(episodes.truncated.any()):
        last_values = _last_values(subject, episodes)
    # V of the Q-function that is inspected, which may have changed since it acted.
    current = spread(computed["V"]) if "q_value" in computed and "V" in computed else values
    columns = return_columns(
        rewards, current, episodes.num_steps, gamma=gamma, gae_lambda=gae_lambda, last_values=last_values,
        q_values=spread(computed["q_value"]) if "q_value" in computed else None,
    )  # fmt: skip
    if values is None:
        table.columns.pop("value")
    else:
        table.put("value", values)
    if is_known:
        used = episodes.advantages
        if used is None and (used := columns.get("gae_advantage")) is not None and subject.normalizes_advantage:
            used = normalized(used, episodes.mask)
        columns |= ratio_columns(after, old, subject.clip_range, used)
    for name, column in columns.items():
        table.put(name, column)


def _last_values(subject: Subject, episodes: Episodes) -> torch.Tensor:
    """Return (B,) V of the states in which the time limit cut episodes off, 0 of the others."""
    cut = episodes.truncated.nonzero()[:, 0]
    values = torch.zeros(len(episodes))
    for numbers in cut.split(64):
        part = episodes[numbers.numpy()]
        outputs = subject.outputs(part, True).values
        if outputs is not None:
            values[numbers] = outputs[int(part.num_steps.sum()) :]
    return values


def _biography(checkpoints: Any, episodes: Episodes) -> torch.Tensor:
    """Return (A, C) log-probabilities of the actions under C checkpoints, loaded one after the other."""
    columns = torch.empty(int(episodes.num_steps.sum()), len(checkpoints))
    for k, checkpoint in enumerate(checkpoints):
        subject, start = as_subject(as_policy(checkpoint)), 0
        for part in _micro_batches(episodes, subject.vocab_size):
            actions = part.actions()
            columns[start : start + len(actions), k] = log_prob(subject.outputs(part, False).logits, actions)
            start += len(actions)
    return columns


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


def _micro_batches(episodes: Episodes, vocab_size: int) -> Iterator[Episodes]:
    """Yield the episodes in parts of about ``_LOGITS`` logits."""
    ends = episodes.num_steps.cumsum(0)
    start = 0
    while start < len(episodes):
        limit = int(ends[start] - episodes.num_steps[start]) + max(1, _LOGITS // vocab_size)
        stop = max(start + 1, int(torch.searchsorted(ends, limit, right=True)))
        yield episodes[start:stop]
        start = stop


_INFO = ("prompt", "completion", "score", "scores", "end_reason", "group", "update", "kl", "scorer_error", "turns")


def episode_info(episodes: Episodes, b: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return ``EpisodeView.info`` of an episode."""
    start, end = int(episodes.prompt_lengths[b]), int(episodes.text_lengths[b])
    known = {name: _plain(episodes.infos[b][name]) for name in _INFO if name in episodes.infos[b]}
    if "prompt" not in known:
        known["prompt"] = tokenizer.decode(episodes.ids[b, :start].tolist())
    if "completion" not in known:
        known["completion"] = tokenizer.decode(episodes.ids[b, start:end].tolist())
    return known | {"return": float(episodes.returns[b]), "truncated": bool(episodes.truncated[b])}


def _plain(value: Any) -> Any:
    """Return numbers of NumPy as those of Python."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value
