"""What one update does to the probability of each token, and why."""

import copy
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.rendering import display_token
from textgym_agents.agent import Agent
from textgym_agents.behaviour_cloning import BehaviourCloning
from textgym_agents.dqn import DQN
from textgym_agents.episodes import Episodes
from textgym_agents.expert_iteration import ExpertIteration
from textgym_agents.grpo import GRPO
from textgym_agents.inspection.inspector import episode_infos, episodes_of
from textgym_agents.inspection.pushes import PushRecorder
from textgym_agents.inspection.report import Report
from textgym_agents.inspection.subject import as_subject, env_of
from textgym_agents.inspection.table import TokenTable
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import BasePolicy
from textgym_agents.q_policy import QPolicy, behaviour_log_probs
from textgym_agents.reinforce import Reinforce
from textgym_agents.returns import discounted_returns, group_statistics
from textgym_agents.rollout import text_env

__all__ = ["UpdateReport", "copied", "indented", "inspect_update", "own_episodes", "token_cells"]

_DISPLACEMENTS = 1e-3, 0.02
"""Range of the change of the outputs by which their derivative is measured: root mean square, in nats or units of
return. Below, the rounding of float32 would be visible, above, the curvature."""


@dataclass(repr=False)
class UpdateReport(Report):
    """The result of ``inspect_update``; printed, the ten tokens with the largest push up and down."""

    reasons: list[str] = field(default_factory=list)
    """Of each row of the table, why the update pushed its token; empty for tokens of a user."""

    def most_pushed(self, count: int = 10) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of at most ``count`` tokens with the largest push up, and down, the largest first."""
        push = np.nan_to_num(self.table.columns["push"])
        order = np.argsort(push, kind="stable")
        return order[::-1][: min(count, int((push > 0).sum()))], order[: min(count, int((push < 0).sum()))]

    def __str__(self) -> str:
        columns, about = self.table.columns, self.about
        mean = float(np.nanmean(np.abs(columns["push"]))) or 1.0
        changed, correlation = about["change_of"], about["correlation"]
        after = "realized_q_change" if changed == "Q" else "realized_change"
        tabular = "" if changed == "Q" else f", push x |e_a - pi|^2 {correlation['tabular']:+.2f}"
        lines = [
            f"{about['agent']}, {about['gradient_steps']} gradient steps on {len(self.infos)} episodes of "
            f"{len(self.table.action_rows)} tokens",
            f"Correlation with the realized change of {changed}: to first order {correlation['predicted']:+.2f},",
            f"push {correlation['push']:+.2f}{tabular}",
            f"Push in units of its mean size, {mean:.2g}; clipped tokens: {int(np.nansum(columns['clipped']))}",
        ]
        if about["buffer_steps"]:
            lines.insert(1, f"{about['buffer_steps']} of them on texts of a buffer, which no push contains")
        for title, rows in zip(("Pushed up", "Pushed down"), self.most_pushed(), strict=True):
            heads = f"{'token':<14}{'pi':>7}{'push':>8}{'KL':>7}{'entropy':>8}{'change':>11}"
            lines += ["", f"{title}", f"{'episode':>9} {'at':>4}  {heads}"]
            for row in rows.tolist():
                parts = [columns[name][row] / mean for name in ("push", "push_kl", "push_entropy")]
                lines.append(
                    f"{token_cells(self.table, row)}{np.exp(columns['log_prob'][row]):>7.3f}"
                    f"{parts[0]:>+8.2f}{parts[1]:>+7.2f}{parts[2]:>+8.2f}"
                    f"{columns[after][row]:>+11.2e}"
                )
                lines += indented(self.reasons[row])
        return "\n".join(lines)


def inspect_update(agent: Agent, episodes: Any = None, *, tokenizer: Any = None) -> UpdateReport:
    """Take the next update of an agent on a copy, and report what it does to each token and why.

    The copy runs the agent's own ``update``, all its epochs and minibatches included. Of each token the report has

    - ``push``, ``push_policy``, ``push_kl``, ``push_entropy``: the negative derivative of the loss by log pi(a_t|s_t),
      see ``PushRecorder``; 0 for the KL penalty of estimator k1, which is in the rewards. Of DQN, whose gradient steps
      draw from the replay buffer, the derivative by Q(s_t, a_t) of the loss of these episodes, before the first step;
      of SoftQ that of its first step, which is on these episodes. Steps on texts drawn from a buffer, such as that of
      self-imitation, are in no push; ``report.about["buffer_steps"]`` is their number;
    - ``advantage``: A_t of the loss, 0 where it leaves a token out; ``return_to_go``: the return that it was made of,
      and in ``reasons``, from what;
    - ``ratio``: pi(a_t|s_t) / pi_old(a_t|s_t) in the last gradient step; ``clipped``: 1 where the clipping removed the
      gradient of the policy term in some step;
    - ``tabular_change``: push times |e_a - pi(.|s_t)|^2, e_a being 1 at a_t and 0 elsewhere: the cheapest prediction of
      the change, up to a factor, which says that a token that is nearly certain does not move;
    - ``predicted_change``: to first order, the directional derivative of log pi(a_t|s_t) along the change of the
      weights in the whole update, by a central finite difference that moves log pi by 0.001 to 0.02 nats (root mean
      square); NaN for a greedy ``QPolicy``;
    - ``realized_change``: log pi(a_t|s_t) after minus before, from two forwards. Tokens without a push change too,
      since all share the weights;
    - ``predicted_q_change``, ``realized_q_change`` of DQN and SoftQ: the same of Q(s_t, a_t).

    ``report.about["correlation"]`` has Pearson's correlation of prediction and push with the realized change, of Q for
    DQN and of log pi for the others.

    Args:
        agent: An agent with an ``LMPolicy`` or a ``QPolicy``. It is not changed, and neither is its environment.
        episodes: The episodes of the update, a file of ``EpisodeRecorder``, or a number to collect. By default those
            that ``learn`` would collect next, from a copy of the environment without its wrappers.
        tokenizer: Tokenizer of the episodes, by default that of the agent's environment, else that of its model.

    Raises:
        TypeError: If ``agent`` is no such agent or cannot be copied, or ``episodes`` are something else.
        ValueError: If there are no episodes, the scorer failed for all, they are of another vocabulary, or there is no
            tokenizer.
        FloatingPointError: If a gradient is not finite.
    """
    if not isinstance(agent, Agent):
        raise TypeError(f"inspect_update takes an agent of textgym_agents, got {type(agent).__name__}")
    subject, env = as_subject(agent), env_of(agent, None)
    twin = _copy(agent)
    given, decoder = episodes_of(subject, twin.collect() if episodes is None else episodes, env, tokenizer)
    own = own_episodes(given)
    pushes = PushRecorder(twin, own)
    last_values = subject.last_values(own)
    weights = [p.detach().clone() for p in twin.policy.parameters()]
    before = _outputs(twin, own)
    if isinstance(twin, DQN):
        pushes.record(own, twin.loss)
    metrics = twin.update(own)
    if hasattr(agent, "kl"):
        twin.kl.coef = agent.kl.coef  # the update adapted it, after its use
    after = _outputs(twin, own)
    changes = {name: after[name] - before[name] for name in after}
    predicted = {name: _derivative(twin, own, weights, name, float(_rms(changes[name][own.mask]))) for name in changes}
    table = TokenTable.of(own, decoder)
    columns = {
        "push": pushes.policy + pushes.kl + pushes.entropy,
        "push_policy": pushes.policy,
        "push_kl": pushes.kl,
        "push_entropy": pushes.entropy,
        "tabular_change": pushes.tabular,
        "ratio": pushes.ratio,
        "clipped": pushes.clipped.float(),
        "predicted_change": predicted["log_prob"],
        "realized_change": changes["log_prob"],
    }
    if "q" in changes:
        columns |= {"predicted_q_change": predicted["q"], "realized_q_change": changes["q"]}
    if own.advantages is not None:
        columns["advantage"] = own.advantages
    columns["return_to_go"] = returns = _returns_to_go(twin, own, last_values)
    for name, values in columns.items():
        table.put(name, values)
    judged = "q" if isinstance(twin, DQN) else "log_prob"
    about = {
        "agent": type(agent).__name__,
        "update": agent.num_updates,
        "gradient_steps": twin.num_updates - agent.num_updates,
        "buffer_steps": pushes.num_buffer_steps,
        "return": subject.return_name(env, own),
        "prediction": "central finite difference along the change of the weights",
        "change_of": "Q" if judged == "q" else "log pi",
        "correlation": {
            "predicted": _correlation(predicted[judged], changes[judged], own.mask),
            "push": _correlation(columns["push"], changes[judged], own.mask),
            "tabular": _correlation(columns["tabular_change"], changes[judged], own.mask),
        },
    }
    reasons = [""] * len(table)
    explain = _explanation(twin, own, pushes, returns)
    for row, (b, t) in zip(table.action_rows.tolist(), own.mask.nonzero().tolist(), strict=True):
        reasons[row] = explain(b, t)
    return UpdateReport(table, episode_infos(own, decoder), about, [metrics], reasons=reasons)


def copied(policy: BasePolicy, memo: dict[int, Any] | None = None, of: Any = None) -> Any:
    """Return an independent copy of a policy, or of an object with one, that shares frozen weights of the model."""
    backbone = policy.backbone
    frozen = {id(p): p for p in backbone.parameters() if not p.requires_grad}
    without_caches: dict[int, Any] = {id(backbone._streams): {}}
    return copy.deepcopy(policy if of is None else of, (memo or {}) | frozen | without_caches)


def _copy(agent: Agent) -> Any:
    """Return an independent copy of an agent, which shares only what no update changes."""
    shared = [getattr(agent, name) for name in ("env", "data", "episodes", "callbacks") if hasattr(agent, name)]
    try:
        twin = copied(agent.policy, {id(each): each for each in shared}, agent)
    except TypeError as error:
        raise TypeError(f"inspect_update works on a copy, and {type(agent).__name__} has none: {error}") from error
    if isinstance(twin, OnlineAgent):
        twin.env = text_env(twin.env).clone()
    return twin


def token_cells(table: TokenTable, row: int) -> str:
    """Return the first 30 columns of a row of a printed table: episode, position and token."""
    episode = int(np.searchsorted(table.offsets, row, side="right")) - 1
    token = display_token(table.texts[int(table.ids[row])])
    return f"{episode:>9} {row - int(table.offsets[episode]):>4}  {token[:13]:<14}"


def indented(reason: str) -> list[str]:
    """Return a reason in lines of at most 80 columns under a row of a printed table."""
    return textwrap.wrap(reason, 80, initial_indent=" " * 10, subsequent_indent=" " * 12)


def own_episodes(episodes: Episodes) -> Episodes:
    """Return the scored episodes, without results of earlier updates, each with an info object of its own."""
    scored = episodes.scored
    if not scored.any():
        raise ValueError(f"the scorer failed for every one of the {len(episodes)} episodes: there is no update of them")
    if not scored.all():
        episodes = episodes[np.flatnonzero(scored)]
    infos = [dict(info) for info in episodes.infos]
    unset: dict[str, Any] = {"advantages": None, "value_targets": None, "reference_log_probs": None}
    return replace(episodes, infos=infos, **unset)


def _parts(agent: Any, episodes: Episodes) -> Iterator[Episodes]:
    size = agent.config.micro_batch or len(episodes)
    for start in range(0, len(episodes), size):
        yield episodes[start : start + size]


@torch.no_grad()
def _outputs(agent: Any, episodes: Episodes) -> dict[str, torch.Tensor]:
    """Return (B, T) log pi(a_t|s_t) and, of value agents, Q(s_t, a_t)."""
    results = [_outputs_of(agent, part) for part in _parts(agent, episodes)]
    return {name: torch.cat([result[name] for result in results]) for name in results[0]}


def _outputs_of(agent: Any, episodes: Episodes) -> dict[str, torch.Tensor]:
    policy = agent.policy
    if isinstance(policy, QPolicy):
        q, preferences = policy.evaluate(episodes)
        actions = episodes.actions().to(q.device)[:, None]
        log_probs = behaviour_log_probs(preferences, policy.epsilon, policy.temperature)
        return {
            "log_prob": episodes.spread(log_probs.gather(1, actions)[:, 0]),
            "q": episodes.spread(q.gather(1, actions)[:, 0]),
        }
    results = {"log_prob": policy.evaluate(episodes).log_probs}
    if hasattr(agent, "consistency"):
        consistency = agent.consistency
        log_ratios, values, _ = consistency.evaluate(policy, consistency.reference_logits(episodes), episodes)
        results["q"] = values + agent.config.temperature * log_ratios
    return results


@torch.no_grad()
def _derivative(agent: Any, episodes: Episodes, before: list[torch.Tensor], name: str, size: float) -> torch.Tensor:
    """Return the (B, T) derivative of an output along the change of the weights, at the weights before."""
    policy = agent.policy
    if name == "log_prob" and isinstance(policy, QPolicy) and policy.temperature == 0:
        return torch.full(episodes.mask.shape, torch.nan)
    if size == 0:
        return torch.zeros(episodes.mask.shape)
    length = float(np.clip(size, *_DISPLACEMENTS)) / size
    after = [p.detach().clone() for p in policy.parameters()]
    ends = []
    try:
        for sign in (1, -1):
            for parameter, old, new in zip(policy.parameters(), before, after, strict=True):
                parameter.copy_(old + sign * length * (new - old))
            ends.append(_outputs(agent, episodes)[name])
    finally:
        for parameter, new in zip(policy.parameters(), after, strict=True):
            parameter.copy_(new)
    return (ends[0] - ends[1]) / (2 * length)


def _rms(values: torch.Tensor) -> torch.Tensor:
    finite = values[values.isfinite()]
    return finite.square().mean().sqrt() if len(finite) else torch.zeros(())


def _correlation(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor) -> float:
    """Return Pearson's correlation over the finite entries of the mask, NaN if one is constant."""
    mask = mask & first.isfinite() & second.isfinite()
    pair = torch.stack([first[mask], second[mask]]).double()
    return float(torch.corrcoef(pair)[0, 1]) if pair.shape[1] > 1 and (pair.std(dim=1) > 0).all() else float("nan")


def _returns_to_go(agent: Any, episodes: Episodes, last_values: torch.Tensor | None) -> torch.Tensor:
    """Return the (B, T) discounted returns of the rewards that the agent learns from.

    Those of truncated episodes end with their (B,) ``last_values``, if the agent bootstraps.
    """
    rewards = agent.kl.penalized_rewards(episodes) if hasattr(agent, "kl") else episodes.rewards
    return discounted_returns(rewards, episodes.num_steps, getattr(agent.config, "gamma", 1.0), last_values)


def _explanation(
    agent: Any, episodes: Episodes, pushes: PushRecorder, returns: torch.Tensor
) -> Callable[[int, int], str]:
    """Return a function of episode and step that gives the reason of a push in words."""
    origin = _origin(agent, episodes, pushes, returns)
    left_out = _left_out(agent, pushes)

    def explain(b: int, t: int) -> str:
        words = [left_out(b, t) or origin(b, t)]
        if pushes.clipped[b, t]:
            words.append(_clip_reason(agent, episodes, pushes, b, t))
        terms = {"KL": float(pushes.kl[b, t]), "entropy": float(pushes.entropy[b, t])}
        policy = float(pushes.policy[b, t])
        for name, push in terms.items():
            if push != 0 and abs(push) > 0.1 * abs(policy):
                words.append(f"{name} pushes {'up' if push > 0 else 'down'}")
        return "; ".join(words)

    return explain


def _left_out(agent: Any, pushes: PushRecorder) -> Callable[[int, int], str]:
    """Return a function of episode and step that says why the policy term leaves a token out, if it does."""
    drops = isinstance(agent, GRPO) and agent.config.equal_groups != "keep"
    kept = agent.credit.last_kept if hasattr(agent, "credit") else None

    def reason(b: int, t: int) -> str:
        if drops and pushes.ratio[b, t].isnan():
            return "left out: the returns of its group all but agree"
        if kept is not None and not kept[b, t]:
            return f"left out: its entropy is not among the highest {100 * agent.config.entropy_share:.3g} %"
        return ""

    return reason


def _clip_reason(agent: Any, episodes: Episodes, pushes: PushRecorder, b: int, t: int) -> str:
    """Return the ratio at which a token was clipped, of GSPO that of its text."""
    if getattr(agent.config, "variant", None) != "gspo":
        return f"clipped at ratio {float(pushes.ratio[b, t]):.2f}"
    ratios = pushes.ratio[b, : int(episodes.num_steps[b])]
    return f"its text clipped at ratio {float(ratios.log().mean().exp()):.4f}"


def _origin(agent: Any, episodes: Episodes, pushes: PushRecorder, returns: torch.Tensor) -> Callable[[int, int], str]:
    """Return a function of episode and step that says where the advantage, or what it has instead, comes from."""
    used = episodes.advantages
    by_rollouts = agent.credit.last_branched if hasattr(agent, "credit") else None
    if isinstance(agent, GRPO):
        mean, deviation, _ = group_statistics(returns[:, 0], episodes.groups())

        def of_group(b: int, t: int) -> str:
            if by_rollouts is not None and by_rollouts[b, t]:
                return f"by rollouts, in the loss {float(used[b, t]):+.2f}"
            if float(used[b, t]) == float(deviation[b]) == 0:
                return f"no signal: all returns of the group are {float(mean[b]):.2f}"
            if agent.config.return_to_go:
                return f"return to go {float(returns[b, t]):.2f}, against its group's: A {float(used[b, t]):+.2f}"
            return (
                f"return {float(returns[b, 0]):.2f}, its group {float(mean[b]):.2f} +- {float(deviation[b]):.2f}: "
                f"A {float(used[b, t]):+.2f}"
            )

        return of_group
    if isinstance(agent, (ExpertIteration, BehaviourCloning)):
        return lambda b, t: (
            f"return {float(episodes.returns[b]):.2f}, "
            f"{'imitated' if pushes.policy[b, t] != 0 else 'not among the best'}"
        )
    if isinstance(agent, DQN):
        total = int(episodes.num_steps.sum())

        def of_target(b: int, t: int) -> str:
            error = float(pushes.policy[b, t]) * total
            bound = "at least " if agent.config.loss_type == "huber" and abs(error) > 0.999 else ""
            return f"the target is {bound}{abs(error):.3f} {'above' if error > 0 else 'below'} Q"

        return of_target
    if hasattr(agent, "consistency"):
        return lambda b, t: (
            f"up to here, the return minus T log(pi / pi_ref) is {'above' if pushes.policy[b, t] > 0 else 'below'} V"
        )
    if used is None:
        return lambda b, t: f"return {float(episodes.returns[b]):.2f}"
    values, targets = episodes.values, episodes.value_targets

    def of_value(b: int, t: int) -> str:
        words = f"return to go {float(returns[b, t]):.2f}"
        if by_rollouts is not None and by_rollouts[b, t]:
            words += ", A by rollouts"
        elif targets is not None and (not isinstance(agent, Reinforce) or agent.config.baseline == "value"):
            words += f", V {float(values[b, t]):.2f}, A {float(targets[b, t] - values[b, t]):+.3f}"
        return f"{words}, in the loss {float(used[b, t]):+.2f}"

    return of_value
