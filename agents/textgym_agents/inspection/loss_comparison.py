"""One batch of episodes through the losses of five algorithms: which tokens each pushes, and why they differ."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.tokenizers import CharTokenizer, PaddedTokenizer
from textgym_agents.episodes import Episodes
from textgym_agents.grpo import GRPO
from textgym_agents.inspection.inspector import episode_infos, episodes_of
from textgym_agents.inspection.pushes import PushRecorder
from textgym_agents.inspection.report import Report
from textgym_agents.inspection.subject import as_subject
from textgym_agents.inspection.table import TokenTable
from textgym_agents.inspection.updates import copied, indented, own_episodes, token_cells
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import LMPolicy
from textgym_agents.ppo import PPO
from textgym_agents.reference import ReferencePolicy
from textgym_agents.reinforce import Reinforce
from textgym_agents.returns import group_statistics
from textgym_agents.rollout import make_env

__all__ = ["LossComparison", "compare_losses"]

_ONE_STEP: dict[str, Any] = {"n_epochs": 1, "batch_size": None, "imitation_coef": 0.0}
_AGENTS: dict[str, tuple[str, type[OnlineAgent], dict[str, Any]]] = {
    "reinforce": ("REINFORCE", Reinforce, {}),
    "ppo": ("PPO", PPO, _ONE_STEP),
    "grpo": ("GRPO", GRPO, _ONE_STEP | {"variant": "grpo"}),
    "dr_grpo": ("Dr. GRPO", GRPO, _ONE_STEP | {"variant": "dr_grpo", "kl_coef": 0.0}),
    "dapo": ("DAPO", GRPO, _ONE_STEP | {"variant": "dapo", "clip_range_high": 0.28, "kl_coef": 0.0}),
}
"""Label, class and settings by the name of the loss; the KL penalties are those of the papers, none in the last two."""


@dataclass(repr=False)
class LossComparison(Report):
    """The result of ``compare_losses``; printed, the ten tokens that the losses push most differently."""

    reasons: list[str] = field(default_factory=list)
    """Of each row of the table, why the losses push its token differently; empty for tokens of a user."""

    def most_different(self, count: int = 10) -> npt.NDArray[np.int64]:
        """Return the rows of at most ``count`` tokens with the largest deviation between the losses, largest first."""
        pushes = np.stack([self.table.columns[f"push_{name}"] for name in _AGENTS])
        deviation = np.nan_to_num(pushes.std(axis=0))
        order = np.argsort(-deviation, kind="stable")
        return order[: min(count, int((deviation > 1e-6).sum()))]

    def __str__(self) -> str:
        columns = self.table.columns
        lines = [
            f"{len(self.infos)} episodes of {len(self.table.action_rows)} tokens through five losses",
            "Push of each token, in units of its mean size in that loss",
            "",
            f"{'episode':>9} {'at':>4}  {'token':<14}" + "".join(f"{label:>10}" for label, _, _ in _AGENTS.values()),
        ]
        for row in self.most_different().tolist():
            pushes = "".join(f"{columns[f'push_{name}'][row]:>+10.2f}" for name in _AGENTS)
            lines.append(token_cells(self.table, row) + pushes)
            lines += indented(self.reasons[row])
        return "\n".join(lines)


def compare_losses(
    policy: LMPolicy,
    episodes: Episodes,
    reference: LMPolicy | None = None,
    *,
    tokenizer: Any = None,
    micro_batch: int | None = None,
) -> LossComparison:
    """Return what the first gradient step of five algorithms on the same episodes does to each token.

    ``Reinforce`` with V as baseline, ``PPO``, and the variants ``"grpo"``, ``"dr_grpo"`` and ``"dapo"`` of ``GRPO``,
    the last one with ``clip_range_high=0.28``, compute the gradient of all episodes by their own ``update``, with their
    default settings otherwise and without self-imitation. The columns ``push_reinforce``, ``push_ppo``, ``push_grpo``,
    ``push_dr_grpo`` and ``push_dapo`` hold ``-dL / d log pi(a_t|s_t)``, see ``PushRecorder``, divided by its mean
    absolute value over the tokens, which ``report.about["scale"]`` holds: the size of a loss does not matter to Adam,
    its distribution over the tokens does.

    The losses clip only if ``policy`` is not the one that collected the episodes any more.

    Args:
        policy: The policy; it is not changed.
        episodes: At least 2, of which those of one group (``group_size`` of the environment) have one prompt; without
            groups all count as one. V and log pi are those recorded when the policy acted; V is 0 everywhere if it had
            no trained critic, as with ``GRPO``.
        reference: The initial policy. If given, REINFORCE and PPO subtract the KL from the rewards, and GRPO adds it to
            the loss, with their default coefficients. Dr. GRPO and DAPO have no KL penalty.
        tokenizer: Tokenizer of the episodes, by default that of the model.
        micro_batch: Episodes per forward and backward pass.

    Raises:
        TypeError: If ``policy`` is not an ``LMPolicy``, ``episodes`` are no ``Episodes``, or there is no tokenizer.
        ValueError: If there are fewer than 2 episodes, or they are of another vocabulary.
    """
    for name, given in (("policy", policy), ("reference", reference)):
        if not isinstance(given, LMPolicy) and not (name == "reference" and given is None):
            raise TypeError(f"{name} must be an LMPolicy, got {type(given).__name__}")
    episodes, decoder = episodes_of(as_subject(policy), episodes, None, tokenizer)
    episodes = own_episodes(episodes)
    if len(episodes) < 2:
        raise ValueError(f"compare_losses needs at least 2 scored episodes of one prompt, got {len(episodes)}")
    twin = copied(policy)
    env = _stand_in(episodes, policy.vocab_size)
    table = TokenTable.of(episodes, decoder)
    recorders: dict[str, PushRecorder] = {}
    advantages: dict[str, torch.Tensor] = {}
    scale: dict[str, float] = {}
    for name, (_, agent_class, settings) in _AGENTS.items():
        own = own_episodes(episodes)
        no_kl = {"kl_coef": 0.0} if reference is None else {}
        agent: Any = agent_class(twin, env, **{"num_episodes": len(own), "micro_batch": micro_batch} | settings | no_kl)
        if reference is not None:
            agent.kl.reference = ReferencePolicy(reference)
        recorders[name] = recorder = PushRecorder(agent, own, take_steps=False)
        agent.update(own)
        recorder.detach()
        push = recorder.policy + recorder.kl + recorder.entropy
        scale[name] = float(push[own.mask].abs().mean())
        table.put(f"push_{name}", push / scale[name] if scale[name] > 0 else push)
        advantages[name] = own.advantages
    reasons = [""] * len(table)
    explain = _explanation(episodes, table, recorders, advantages)
    for row, (b, t) in zip(table.action_rows.tolist(), episodes.mask.nonzero().tolist(), strict=True):
        reasons[row] = explain(row, b, t)
    about = {"losses": {name: label for name, (label, _, _) in _AGENTS.items()}, "scale": scale}
    return LossComparison(table, episode_infos(episodes, decoder), about, reasons=reasons)


def _stand_in(episodes: Episodes, vocab_size: int) -> Any:
    """Return an environment for the constructors of the agents, of which they use vocabulary, groups and budget."""
    tokenizer = PaddedTokenizer(CharTokenizer("a"), vocab_size)
    settings = {"tokenizer": tokenizer, "prompts": ["a"], "scorer": _no_score, "max_prompt_tokens": 1}
    groups = {"group_size": len(episodes), "max_new_tokens": episodes.mask.shape[1]}
    return make_env("TextGen-v0", 1, settings | groups)


def _no_score(completion: str) -> float:
    return 0.0


def _explanation(
    episodes: Episodes,
    table: TokenTable,
    recorders: dict[str, PushRecorder],
    advantages: dict[str, torch.Tensor],
) -> Callable[[int, int, int], str]:
    """Return a function of row, episode and step that says why the losses push a token differently."""
    returns = episodes.returns
    mean, deviation, count = group_statistics(returns, episodes.groups())
    columns = {name: table.columns[f"push_{name}"] for name in _AGENTS}
    labels = {name: label for name, (label, _, _) in _AGENTS.items()}

    def explain(row: int, b: int, t: int) -> str:
        reasons = []
        own = f"return {float(returns[b]):.2f}"
        if int(count[b]) < 2:
            reasons.append(f"{own}, alone in its group: no signal in GRPO, Dr. GRPO, DAPO")
        elif float(deviation[b]) == 0:
            reasons.append(f"{own}, as all of its group: no signal in GRPO, Dr. GRPO, DAPO")
        else:
            group = f"its group {float(mean[b]):.2f} +- {float(deviation[b]):.2f}"
            reasons.append(f"{own}, {group}, V {float(episodes.values[b, t]):.2f}")
            by_value, by_group = float(advantages["ppo"][b, t]), float(advantages["grpo"][b, t])
            if by_value * by_group < 0:
                words = ("better", "worse") if by_value > 0 else ("worse", "better")
                reasons.append(f"{words[0]} than V expected, after normalization, but {words[1]} than its group")
        clipped = [name for name, recorder in recorders.items() if bool(recorder.clipped[b, t])]
        if clipped:
            ratio = float(recorders[clipped[0]].ratio[b, t])
            reasons.append(f"clipped at ratio {ratio:.2f} in {', '.join(labels[name] for name in clipped)}")
        elif float(deviation[b]) > 0:
            by_length, by_deviation = (
                _quotient(columns, "grpo", "dapo", row),
                _quotient(columns, "dapo", "dr_grpo", row),
            )
            if abs(by_length - 1) > 0.1:
                steps = int(episodes.num_steps[b])
                reasons.append(f"GRPO divides by the length, here {steps}: {by_length:.2f} x DAPO")
            if abs(by_deviation - 1) > 0.1:
                reasons.append(f"DAPO and GRPO divide by the deviation: {by_deviation:.2f} x Dr. GRPO")
        return "; ".join(reasons)

    return explain


def _quotient(columns: dict[str, npt.NDArray[Any]], first: str, second: str, row: int) -> float:
    return float(columns[first][row] / columns[second][row]) if columns[second][row] else 1.0
