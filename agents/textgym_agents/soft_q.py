"""Soft Q-learning by path consistency: the policy is the softmax of Q / T."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from textgym.lm import log_prob
from textgym_agents.agent import mean_metrics
from textgym_agents.checkpoint import load_part
from textgym_agents.config import (
    AgentConfig,
    CriticConfig,
    DiscountConfig,
    OfflineAgentConfig,
    OnlineAgentConfig,
    check_settings,
)
from textgym_agents.episodes import Episodes
from textgym_agents.losses import path_inconsistency
from textgym_agents.offline import OfflineAgent
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import LMPolicy, polyak_update
from textgym_agents.reference import ReferencePolicy
from textgym_agents.replay import EpisodeReplay

__all__ = ["OfflineSoftQ", "OfflineSoftQConfig", "SoftQ", "SoftQConfig"]


@dataclass(frozen=True, kw_only=True)
class PathConsistencyConfig(AgentConfig):
    """Hyper-parameters of the path-consistency loss."""

    temperature: float = 0.05
    """Temperature T, the coefficient of the KL or entropy in the soft return."""
    relative_to_start: bool = True
    """Whether to penalise the KL to the initial language model by T. Off, the entropy is rewarded by T instead."""
    value_from: Literal["head", "logits"] = "head"
    """Source of V(s): the value head; or log sum exp of the logits, which then are Q / T. V can then change only by
    shifting all logits by V / T nats, which takes longer."""
    single_step_coef: float = 0.0
    """Coefficient of the one-step consistency loss. The target network is computed only if this is above 0 or
    ``bootstrap_truncated``."""
    multi_step_coef: float = 1.0
    """Coefficient of the multi-step consistency loss, over the whole rest of the text."""
    tau: float = 0.1
    """The soft update coefficient ("Polyak update", between 0 and 1); 1 for hard update."""
    target_update_interval: int = 1
    """Update the target network every ``target_update_interval`` gradient steps (in SB3, environment steps)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            single_step_coef=(0, math.inf),
            multi_step_coef=(0, math.inf),
            tau=(0, 1),
            target_update_interval=(1, math.inf),
        )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0, since logits are Q / T, got {self.temperature!r}")
        if self.single_step_coef == self.multi_step_coef == 0:
            raise ValueError("single_step_coef and multi_step_coef are both 0: nothing would be learned")


@dataclass(frozen=True, kw_only=True)
class OfflineSoftQConfig(OfflineAgentConfig, DiscountConfig, CriticConfig, PathConsistencyConfig):
    """Hyper-parameters of soft Q-learning from recorded episodes."""


@dataclass(frozen=True, kw_only=True)
class SoftQConfig(OnlineAgentConfig, DiscountConfig, CriticConfig, PathConsistencyConfig):
    """Hyper-parameters of soft Q-learning from the policy's own episodes."""

    gradient_steps: int = 4
    """Gradient steps per update: one on the new episodes, the others on minibatches of the replay buffer."""
    batch_size: int = 64
    """Minibatch size for each gradient update, in episodes."""
    buffer_size: int = 1_000
    """Size of the replay buffer, in episodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, gradient_steps=(1, math.inf), batch_size=(1, math.inf), buffer_size=(1, math.inf))


class PathConsistency:
    """The loss of ``SoftQ`` and ``OfflineSoftQ``, with the networks that it needs.

    Attributes:
        target: The target network.
        reference: The initial policy; None with ``relative_to_start=False``.
    """

    def __init__(self, policy: LMPolicy, config: Any) -> None:
        self._policy, self._config = policy, config
        self.target = policy.frozen_copy()
        self.reference = ReferencePolicy(policy) if config.relative_to_start else None

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        config = self._config
        reference = self.reference_logits(episodes)
        log_ratios, values, _ = self.evaluate(self._policy, reference, episodes)
        target_values, last_values = values.detach(), None
        if config.single_step_coef > 0 or config.bootstrap_truncated:
            with torch.no_grad():
                _, target_values, last_values = self.evaluate(self.target, reference, episodes)
        loss = torch.zeros(())
        for lambda_, coef in ((0.0, config.single_step_coef), (1.0, config.multi_step_coef)):
            if coef > 0:
                error = path_inconsistency(
                    values, log_ratios, episodes.rewards, target_values, episodes.num_steps,
                    temperature=config.temperature, gamma=config.gamma, lambda_=lambda_, last_values=last_values,
                )  # fmt: skip
                loss = loss + coef * error.square() / 2
        return loss, {"value": values, "log_ratio": log_ratios}

    def evaluate(
        self, policy: LMPolicy, reference: torch.Tensor | None, episodes: Episodes
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (B, T) log pi(a_t|s_t) - log pi_ref(a_t|s_t), (B, T) V(s_t), and (B,) V of truncated episodes."""
        logits, head_values = self._states(policy, episodes)
        actions = episodes.actions().to(logits.device)
        log_ratios, values = log_prob(logits[: len(actions)], actions), torch.logsumexp(logits, dim=-1)
        if reference is not None:
            log_ratios = log_ratios - log_prob(reference[: len(actions)], actions)
            values = values - torch.logsumexp(reference, dim=-1)
        values = head_values if self._config.value_from == "head" else self._config.temperature * values
        return episodes.spread(log_ratios), *episodes.spread_values(values)

    @torch.no_grad()
    def reference_logits(self, episodes: Episodes) -> torch.Tensor | None:
        """Return the logits of the reference in the states of the episodes; None without a reference."""
        if self.reference is None:
            return None
        with self.reference.policy() as policy:
            return self._states(policy, episodes)[0]

    def update_target(self, num_updates: int) -> None:
        """Update the target network after the gradient steps that are due for it."""
        if num_updates % self._config.target_update_interval == 0:
            polyak_update(self.target, self._policy, self._config.tau)

    def save(self, folder: Path) -> None:
        """Write the networks into the folder."""
        self.target.save_pretrained(folder / "target")
        if self.reference is not None:
            self.reference.save(folder)

    def load(self, folder: Path, state: None = None) -> None:
        """Restore what ``save`` wrote."""
        load_part(self.target, folder / "target", None)
        if self.reference is not None:
            self.reference.load(folder)

    def _states(self, policy: LMPolicy, episodes: Episodes) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (M, V) or (M + K, V) logits, -inf where invalid, and head values of the states."""
        with_truncated = self._config.bootstrap_truncated
        rows, columns = episodes.states(with_truncated=with_truncated)
        valid = episodes.valid_actions(policy.vocab_size, with_truncated=with_truncated)
        actions = episodes.ids[rows, columns]  # arbitrary: their log-probabilities are not used
        states = policy.evaluate_states(
            episodes.ids, rows, columns, actions, valid, prompt_lengths=episodes.prompt_lengths
        )
        return states.logits, states.values


class SoftQ(OnlineAgent):
    """Path consistency learning on whole episodes, new ones and those of a replay buffer.

    The policy is pi = softmax(l) of the logits l, and Q(s, a) = V(s) + T log[pi(a|s) / pi_ref(a|s)], pi_ref being the
    language model at the start, so that pi is proportional to pi_ref exp(Q / T). With Q / T read from the logits alone
    (``value_from="logits"``) V = T (lse(l) - lse(l_ref)), lse = log sum exp over the valid tokens. Then

        u_t = V(s_t) - r_t + T log[pi(a_t|s_t) / pi_ref(a_t|s_t)] - gamma V_target(s_{t+1})
        U_t = V(s_t) - sum over l >= t of gamma^(l-t) (r_l - T log[pi(a_l|s_l) / pi_ref(a_l|s_l)])
        loss = mean[single_step_coef u_t^2 / 2 + multi_step_coef U_t^2 / 2]

    Both are 0 for every text, also off-policy, exactly if pi maximises the reward minus T KL(pi || pi_ref). With
    ``relative_to_start=False`` log pi_ref and l_ref are 0, which regularizes by the entropy instead of the KL.

    Differences from Nachum et al. 2017 (arXiv:1702.08892) and Guo et al. 2021 (arXiv:2106.07704): no gradient flows
    through V(s_{t+1}), but, unlike in the latter, one does through V(s_t); pi_ref, which makes an untrained language
    model the optimum of no reward, so that learning starts from Q = 0. One online, one reference and at most one target
    forward over (B, W) ids serve all T steps.

    Args and errors: see ``OnlineAgent``.

    Attributes:
        consistency: The loss with its target network and reference.
        replay: The replay buffer.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> SoftQ("tiny", env, SoftQConfig(num_episodes=4, gradient_steps=2)).learn(16).num_updates >= 2
    True
    """

    config_class = SoftQConfig
    checkpointed = ("consistency", "replay")
    config: SoftQConfig
    policy: LMPolicy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.consistency = PathConsistency(self.policy, self.config)
        self.replay = EpisodeReplay(self.config.buffer_size)

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Learn from B new episodes, then from the replay buffer, and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are unchanged by that step.
        """
        minibatch, steps = episodes, []
        for step in range(self.config.gradient_steps):
            if step == 1:
                self.replay.add(episodes)
            if step > 0:
                minibatch = self.replay.sample(self.config.batch_size, self.generator)
            steps.append(self.backward(minibatch, self.consistency.loss) | self.optimizer_step())
            self.consistency.update_target(self.num_updates)
        kl = {"train/kl_reference": steps[0]["train/log_ratio"]} if self.config.relative_to_start else {}
        return mean_metrics(steps) | kl


class OfflineSoftQ(OfflineAgent):
    """``SoftQ`` from recorded episodes, one gradient step on ``batch_size`` of them at a time.

    The loss is valid off-policy. Nothing bounds the values of tokens outside the data, as the conservative loss of
    ``ILQL`` does.

    Args and errors: see ``OfflineAgent``.

    Attributes:
        consistency: The loss with its target network and reference.
    """

    config_class = OfflineSoftQConfig
    checkpointed = ("consistency",)
    config: OfflineSoftQConfig
    policy: LMPolicy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.consistency = PathConsistency(self.policy, self.config)

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        metrics = self.backward(episodes, self.consistency.loss) | self.optimizer_step()
        self.consistency.update_target(self.num_updates)
        return metrics
