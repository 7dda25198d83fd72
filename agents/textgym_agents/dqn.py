"""Deep Q-learning over tokens."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from textgym_agents.agent import OnlineAgent
from textgym_agents.config import OnlineAgentConfig, ReturnConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import td_loss
from textgym_agents.metrics import StepMeans, update_means
from textgym_agents.q_policy import QPolicy, QValues, spread_values, update_target
from textgym_agents.replay import EpisodeReplay
from textgym_agents.returns import lambda_returns, n_step_returns

__all__ = ["DQN", "DQNConfig"]


@dataclass(frozen=True, kw_only=True)
class DQNConfig(OnlineAgentConfig, ReturnConfig):
    """What decides a run of DQN. Which Q-function it is, dueling or not, is the ``QPolicy``'s."""

    learning_rate: float = 1e-3
    gradient_steps: int = 4
    """Gradient steps after each ``num_episodes`` new episodes."""
    batch_size: int = 64
    """Episodes per gradient step, drawn from the replay."""
    buffer_size: int = 1_000
    """Episodes that the replay holds."""
    double_q: bool = True
    """Whether the online network picks the best next token and the target network says what it is worth. Off, the
    target network does both, and its maximum is of errors too."""
    q_lambda: float = 0.9
    """Lambda of Peng's Q(lambda): 1 is Monte Carlo, 0 is one-step TD."""
    n_steps: int | None = None
    """Use n-step returns in place of ``q_lambda``."""
    loss: Literal["huber", "squared"] = "huber"
    """Of the difference between Q and its target."""
    tau: float = 0.1
    """Polyak coefficient of the target update; 1 is a hard copy."""
    target_update_interval: int = 1
    """Updates of the target network happen every so many gradient steps (Stable-Baselines3 counts env steps)."""
    exploration_initial_eps: float = 1.0
    """Share of random tokens at the start. The untrained Q-values of a head are all equal and know nothing."""
    exploration_final_eps: float = 0.05
    """Share of random tokens from ``exploration_timesteps`` on."""
    initial_temperature: float = 0.0
    """T of Boltzmann exploration, in units of return, at the start; 0 takes the best token."""
    final_temperature: float = 0.0
    """T from ``exploration_timesteps`` on."""
    exploration_timesteps: int = 4_000
    """Tokens, counted over all calls of ``learn``, over which epsilon and temperature are annealed linearly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            gradient_steps=(1, math.inf),
            batch_size=(1, math.inf),
            buffer_size=(1, math.inf),
            q_lambda=(0, 1),
            n_steps=(1, math.inf),
            tau=(0, 1),
            target_update_interval=(1, math.inf),
            exploration_initial_eps=(0, 1),
            exploration_final_eps=(0, 1),
            initial_temperature=(0, math.inf),
            final_temperature=(0, math.inf),
            exploration_timesteps=(1, math.inf),
        )


class DQN(OnlineAgent):
    """Q-learning on whole episodes from a replay, with a target network.

    Per update: write B episodes with the exploration of the moment and store them; then ``gradient_steps``
    times draw ``batch_size`` episodes and take one step of AdamW on

        loss = mean[huber(Q(s_t, a_t) - G_t)],  G_t = r_t + gamma [(1 - q_lambda) V(s_{t+1}) + q_lambda G_{t+1}],
        V(s) = Q_target(s, argmax_a Q(s, a)) over the legal actions,  V = 0 after the end

    What differs from Mnih et al. 2015: double Q (van Hasselt et al. 2016, arXiv:1509.06461), Peng's Q(lambda) or n-step
    targets, which are not corrected for the actions being old or random, and a LayerNorm before the head: without these
    three, token values overestimate each other. One online and one target forward over (B, W) ids serve all T steps.

    Where the vocabulary is large, random tokens never make a text: take ``QPolicy(..., lm_prior=True)``, temperatures
    and no epsilon, so that it writes as the language model does, the more of each token the more it is worth. After
    training, ``predict`` still explores as it last did, unless ``deterministic``.

    Args:
        policy: A ``QPolicy``, or what its constructor takes (``"tiny"``).
        env: See ``OnlineAgent``, as for the errors.
        config: The settings.

    Attributes:
        target: The target network.
        replay: The episodes to learn from.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> agent = DQN(QPolicy("tiny", lm_prior=True), env, DQNConfig(num_episodes=4, initial_temperature=0.1)).learn(16)
    >>> len(agent.replay) >= 4
    True
    """

    config_class = DQNConfig
    policy_class = QPolicy
    config: DQNConfig
    policy: QPolicy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target = self.policy.frozen_copy()
        self.replay = EpisodeReplay(self.config.buffer_size)
        self._explore()

    def collect(self) -> Episodes:
        """Write episodes with the exploration that this many tokens ask for."""
        self._explore()
        return super().collect()

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Store B episodes, take the gradient steps, and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were before that step.
        """
        self.replay.add(episodes)
        metrics = {"rollout/exploration_rate": self.policy.epsilon, "rollout/temperature": self.policy.temperature}
        steps: list[dict[str, float]] = []
        for _ in range(self.config.gradient_steps):
            drawn = self.replay.sample(self.config.batch_size, self.generator)
            means = StepMeans(int(drawn.num_steps.sum()))
            steps.append(self.descend(self._losses(drawn, means)) | means.metrics())
            if self.num_updates % self.config.target_update_interval == 0:
                update_target(self.target, self.policy, self.config.tau)
        return metrics | update_means(steps)

    def _losses(self, episodes: Episodes, means: StepMeans) -> Iterator[torch.Tensor]:
        """Yield the loss of drawn episodes, a micro-batch at a time."""
        for index in self.micro_batches(np.arange(len(episodes))):
            part = episodes[index]
            online = self.policy.evaluate(part, with_cuts=self.config.bootstrap_truncated)
            targets = self._targets(part, online)
            rows, columns = part.states()
            actions = part.ids[rows, columns + 1].to(online.q.device)
            q = part.spread(online.q[: len(actions)].gather(1, actions[:, None])[:, 0])
            loss = td_loss(q, targets, self.config.loss)
            means.add(part.mask, q_value=q, td_error=(q - targets).abs())
            yield loss[part.mask].sum() / means.num_steps

    @torch.no_grad()
    def _targets(self, episodes: Episodes, online: QValues) -> torch.Tensor:
        """Return (B, T), what Q(s_t, a_t) should be."""
        config = self.config
        target = self.target.evaluate(episodes, with_cuts=config.bootstrap_truncated)
        best = (online if config.double_q else target).preferences.argmax(dim=-1, keepdim=True)
        values, last_values = spread_values(episodes, target.q.gather(1, best)[:, 0])
        episode = episodes.rewards, values, episodes.num_steps, config.gamma
        if config.n_steps is not None:
            return n_step_returns(*episode, config.n_steps, last_values)
        return lambda_returns(*episode, config.q_lambda, last_values)

    def _explore(self) -> None:
        """Set the exploration of the moment."""
        config = self.config
        done = min(1.0, self.num_timesteps / config.exploration_timesteps)
        self.policy.epsilon = _between(config.exploration_initial_eps, config.exploration_final_eps, done)
        self.policy.temperature = _between(config.initial_temperature, config.final_temperature, done)
        self.target.temperature = self.policy.temperature

    def _networks(self) -> dict[str, Any]:
        return super()._networks() | {"target": self.target}

    def _state(self, folder: Path) -> dict[str, Any]:
        self.replay.save(folder)
        return super()._state(folder) | {"epsilon": self.policy.epsilon, "temperature": self.policy.temperature}

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:
        super()._set_state(state, folder)
        self.replay.load(folder)
        self.policy.epsilon, self.policy.temperature = state["epsilon"], state["temperature"]
        self.target.temperature = self.policy.temperature


def _between(first: float, last: float, done: float) -> float:
    """Return what lies ``done`` of the way from the first to the last."""
    return first + done * (last - first)
