"""Soft Q-learning by path consistency: the language model's logits are Q-values, its distribution their softmax."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from textgym.lm import log_prob
from textgym_agents.agent import Agent, OnlineAgent
from textgym_agents.config import OfflineAgentConfig, OnlineAgentConfig, ReturnConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import path_inconsistency
from textgym_agents.metrics import StepMeans, update_means
from textgym_agents.offline import OfflineAgent
from textgym_agents.policy import LMPolicy
from textgym_agents.q_policy import legal_in, spread_values, states_of, update_target
from textgym_agents.reference import ReferencePolicy
from textgym_agents.replay import EpisodeReplay

__all__ = ["OfflineSoftQ", "OfflineSoftQConfig", "SoftQ", "SoftQConfig"]


@dataclass(frozen=True, kw_only=True)
class OfflineSoftQConfig(OfflineAgentConfig, ReturnConfig):
    """What decides a run of soft Q-learning from recorded episodes."""

    temperature: float = 0.05
    """T, the coefficient of the KL or entropy in the soft return. A smaller T weighs the reward more."""
    relative_to_start: bool = True
    """Whether a nat of KL to the language model that training started from costs T. Off, a nat of entropy earns T."""
    value_from: Literal["head", "logits"] = "head"
    """What V(s) is: the policy's value head; or the log of the sum of the logits' exponentials, the logits alone being
    Q / T. A state's worth then has to shift all its logits by V / T nats before it counts, which takes longer."""
    single_step_coef: float = 0.0
    """Weight of the loss that compares each state with the next. It needs the target network, which is not computed
    where this is 0 and nothing is bootstrapped."""
    multi_step_coef: float = 1.0
    """Weight of the loss that compares each state with the whole rest of its text."""
    tau: float = 0.1
    """Polyak coefficient of the target update; 1 is a hard copy."""
    target_update_interval: int = 1
    """Updates of the target network happen every so many gradient steps (Stable-Baselines3 counts env steps)."""

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
class SoftQConfig(OnlineAgentConfig, OfflineSoftQConfig):
    """What decides a run of soft Q-learning from texts that the policy writes itself."""

    gradient_steps: int = 4
    """Gradient steps per update: the first on the episodes just written, each further one on ``batch_size`` episodes of
    the replay."""
    buffer_size: int = 1_000
    """Episodes that the replay holds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, gradient_steps=(1, math.inf), buffer_size=(1, math.inf))


class _PathConsistency(Agent):
    """The loss, for both agents below, and the networks that it needs.

    Attributes:
        target: The target network.
        reference: The policy as it was when the agent was made; None where randomness itself is worth something.
    """

    config_class = OfflineSoftQConfig
    config: OfflineSoftQConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target = self.policy.frozen_copy()
        self.reference = ReferencePolicy(self.policy) if self.config.relative_to_start else None

    def _descend_on(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes, whoever wrote them, and return metrics under SB3's names."""
        means = StepMeans(int(episodes.num_steps.sum()))
        metrics = self.descend(self._losses(episodes, means)) | means.metrics()
        if self.num_updates % self.config.target_update_interval == 0:
            update_target(self.target, self.policy, self.config.tau)
        return metrics

    def _losses(self, episodes: Episodes, means: StepMeans) -> Iterator[torch.Tensor]:
        """Yield the loss of a batch, a micro-batch at a time."""
        config = self.config
        needs_target = config.single_step_coef > 0 or config.bootstrap_truncated
        for index in self.micro_batches(np.arange(len(episodes))):
            part = episodes[index]
            reference = self._reference_logits(part)
            log_ratios, values, _ = self._read(self.policy, reference, part)
            target_values, last_values = values.detach(), None
            if needs_target:
                with torch.no_grad():
                    _, target_values, last_values = self._read(self.target, reference, part)
            loss = torch.zeros(())
            for lambda_, coef in ((0.0, config.single_step_coef), (1.0, config.multi_step_coef)):
                if coef > 0:
                    error = path_inconsistency(
                        values, log_ratios, part.rewards, target_values, part.num_steps,
                        temperature=config.temperature, gamma=config.gamma, lambda_=lambda_, last_values=last_values,
                    )  # fmt: skip
                    loss = loss + coef * error.square() / 2
            means.add(part.mask, value=values, log_ratio=log_ratios)
            yield loss[part.mask].sum() / means.num_steps

    def _read(
        self, policy: LMPolicy, reference: torch.Tensor | None, episodes: Episodes
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (B, T) log pi(a_t|s_t) - log pi_ref(a_t|s_t), (B, T) V(s_t), and (B,) V of what was cut off."""
        logits, head_values = _evaluate(policy, episodes, self.config.bootstrap_truncated)
        rows, columns = episodes.states()
        actions = episodes.ids[rows, columns + 1].to(logits.device)
        log_ratios, values = log_prob(logits[: len(actions)], actions), torch.logsumexp(logits, dim=-1)
        if reference is not None:
            log_ratios = log_ratios - log_prob(reference[: len(actions)], actions)
            values = values - torch.logsumexp(reference, dim=-1)
        values = head_values if self.config.value_from == "head" else self.config.temperature * values
        return episodes.spread(log_ratios), *spread_values(episodes, values)

    @torch.no_grad()
    def _reference_logits(self, episodes: Episodes) -> torch.Tensor | None:
        if self.reference is None:
            return None
        with self.reference.policy() as policy:
            return _evaluate(policy, episodes, self.config.bootstrap_truncated)[0]

    def _networks(self) -> dict[str, Any]:
        copy = None if self.reference is None else self.reference.copy
        return super()._networks() | {"target": self.target} | ({} if copy is None else {"reference": copy})

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:
        super()._set_state(state, folder)
        if self.reference is not None:
            self.reference.forget_copy_unless_in(folder)


class SoftQ(_PathConsistency, OnlineAgent):
    """Path consistency learning on whole episodes, those just written and those of a replay.

    The policy is pi = softmax(l) of the logits l, and Q(s, a) = V(s) + T log[pi(a|s) / pi_ref(a|s)], pi_ref being the
    language model at the start, so that pi is proportional to pi_ref exp(Q / T). With Q / T read from the logits alone
    (``value_from="logits"``) V = T (lse(l) - lse(l_ref)), lse = log sum exp over the legal tokens. Then

        u_t = V(s_t) - r_t + T log[pi(a_t|s_t) / pi_ref(a_t|s_t)] - gamma V_target(s_{t+1})
        U_t = V(s_t) - sum over l >= t of gamma^(l-t) (r_l - T log[pi(a_l|s_l) / pi_ref(a_l|s_l)])
        loss = mean[single_step_coef u_t^2 / 2 + multi_step_coef U_t^2 / 2]

    Both are 0 for every text, whoever wrote it, exactly where pi earns the most reward minus T KL(pi || pi_ref). With
    ``relative_to_start=False`` log pi_ref and l_ref are 0: the KL gives way to the entropy, which earns T.

    What differs from Nachum et al. 2017 (arXiv:1702.08892) and Guo et al. 2021 (arXiv:2106.07704): no gradient flows
    through V(s_{t+1}), but, unlike in the latter, one does through V(s_t); pi_ref, which makes an untrained language
    model the optimum of no reward, so that learning starts from Q = 0; AdamW. One online, one reference and at most one
    target forward over (B, W) ids serve all T steps.

    Args and errors: see ``OnlineAgent``.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> SoftQ("tiny", env, SoftQConfig(num_episodes=4, gradient_steps=2)).learn(16).num_updates >= 2
    True
    """

    config_class = SoftQConfig
    config: SoftQConfig
    policy: LMPolicy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.replay = EpisodeReplay(self.config.buffer_size)

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Learn from B new episodes, then from the replay, and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were before that step.
        """
        steps = [self._descend_on(episodes)]
        metrics = {} if self.reference is None else {"train/kl_reference": steps[0]["train/log_ratio"]}
        if self.config.gradient_steps > 1:
            self.replay.add(episodes)
        for _ in range(self.config.gradient_steps - 1):
            steps.append(self._descend_on(self.replay.sample(self.config.batch_size, self.generator)))
        return update_means(steps) | metrics

    def _state(self, folder: Path) -> dict[str, Any]:
        self.replay.save(folder)
        return super()._state(folder)

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:
        super()._set_state(state, folder)
        self.replay.load(folder)


class OfflineSoftQ(_PathConsistency, OfflineAgent):
    """The same from recorded episodes, one gradient step on ``batch_size`` of them at a time.

    The loss is ``SoftQ``'s, and right whoever wrote the texts; what it says of tokens that stand in none of them is
    only what the network makes of it, since nothing holds it back there as ``ILQL``'s conservative term does.

    Args and errors: see ``OfflineAgent``.
    """

    policy: LMPolicy

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were.
        """
        return self._descend_on(episodes)


def _evaluate(policy: LMPolicy, episodes: Episodes, with_cuts: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (M, V) float32 logits, -inf where invalid, and (M,) head values of the states; M + K with the cut ones."""
    rows, columns = states_of(episodes, with_cuts=with_cuts)
    legal = legal_in(episodes, len(rows), policy.vocab_size)
    actions = episodes.ids[rows, columns]  # any: their log-probabilities are not read
    states = policy.evaluate_states(episodes.ids, rows, columns, actions, legal, prompt_lengths=episodes.prompt_lengths)
    return states.logits, states.values
