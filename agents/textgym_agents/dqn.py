"""Deep Q-learning over tokens."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from textgym_agents.agent import mean_metrics
from textgym_agents.config import CriticConfig, DiscountConfig, OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import td_loss
from textgym_agents.online import OnlineAgent
from textgym_agents.policy import polyak_update
from textgym_agents.q_policy import QPolicy, QValues
from textgym_agents.replay import EpisodeReplay
from textgym_agents.returns import lambda_returns, n_step_returns

__all__ = ["DQN", "DQNConfig"]


@dataclass(frozen=True, kw_only=True)
class DQNConfig(OnlineAgentConfig, DiscountConfig, CriticConfig):
    """Hyper-parameters of DQN; those of the Q-function, such as dueling, are keywords of ``QPolicy``."""

    learning_rate: float = 1e-3
    num_episodes: int = 32
    """Episodes to collect per update; small, since many updates matter more than exact ones."""
    gradient_steps: int = 4
    """Gradient steps after each rollout of ``num_episodes`` episodes."""
    batch_size: int = 64
    """Minibatch size for each gradient update, in episodes."""
    buffer_size: int = 1_000
    """Size of the replay buffer, in episodes."""
    double_q: bool = True
    """Whether the online network selects the best next token and the target network evaluates it. Off, the target
    network does both, which overestimates."""
    q_lambda: float = 0.9
    """Lambda of Peng's Q(lambda): 1 is Monte Carlo, 0 is one-step TD."""
    n_steps: int | None = None
    """Use n-step returns in place of ``q_lambda``."""
    loss_type: Literal["huber", "squared"] = "huber"
    """Loss of the TD error."""
    tau: float = 0.2
    """The soft update coefficient ("Polyak update", between 0 and 1); 1 for hard update."""
    target_update_interval: int = 1
    """Update the target network every ``target_update_interval`` gradient steps (in SB3, environment steps)."""
    exploration_initial_eps: float = 0.0
    """Initial value of random action probability."""
    exploration_final_eps: float = 0.0
    """Final value of random action probability, from ``exploration_timesteps`` on."""
    initial_temperature: float = 0.1
    """Initial temperature of Boltzmann exploration, in units of return; 0 takes the best token."""
    final_temperature: float = 0.1
    """Final temperature, from ``exploration_timesteps`` on."""
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

    Per update: collect B episodes with the current exploration and store them; then ``gradient_steps``
    times draw ``batch_size`` episodes and take one step of Adam on

        loss = mean[huber(Q(s_t, a_t) - G_t)],  G_t = r_t + gamma [(1 - q_lambda) V(s_{t+1}) + q_lambda G_{t+1}],
        V(s) = Q_target(s, argmax_a Q(s, a)) over the plausible actions,  V = 0 after the end

    (with ``lm_prior`` the argmax is that of Q + T log pi_LM; without ``double_q``, of Q_target).

    Differences from Mnih et al. 2015: double Q (van Hasselt et al. 2016, arXiv:1509.06461), Peng's Q(lambda) or n-step
    targets, without off-policy correction, and a LayerNorm before the head: without these three, the Q-values of tokens
    overestimate each other. One online and one target forward over (B, W) ids serve all T steps.

    The defaults are for a large vocabulary, where random tokens never form a text: texts are sampled from the language
    model weighted by exp(Q / T), among its plausible tokens (``QPolicy.min_p``), which also bound the argmax of the
    targets. For a small one without a language to keep: ``QPolicy(model, lm_prior=False, min_p=0.0,
    head_gradient=True)`` with epsilon from 1 to 0.05 and temperatures of 0. After training, ``predict`` still explores
    as in the last rollout, unless ``deterministic``.

    Args:
        policy: A ``QPolicy``, or its constructor's first argument, such as ``"tiny"``.
        env: See ``OnlineAgent``, as for the errors.
        config: The hyper-parameters.

    Attributes:
        target: The target network.
        replay: The replay buffer.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> agent = DQN("tiny", env, num_episodes=4).learn(16)
    >>> len(agent.replay) >= 4
    True
    """

    config_class = DQNConfig
    policy_class = QPolicy
    checkpointed = ("target", "replay", "exploration")
    config: DQNConfig
    policy: QPolicy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target = self.policy.frozen_copy()
        self.replay = EpisodeReplay(self.config.buffer_size)
        self._anneal_exploration()

    def collect(self) -> Episodes:
        """Collect episodes with the exploration annealed to the current number of tokens."""
        self._anneal_exploration()
        return super().collect()

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Store B episodes, take the gradient steps, and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are unchanged by that step.
        """
        self.replay.add(episodes)
        steps = []
        for _ in range(self.config.gradient_steps):
            minibatch = self.replay.sample(self.config.batch_size, self.generator)
            steps.append(self.backward(minibatch, self.loss) | self.optimizer_step())
            if self.num_updates % self.config.target_update_interval == 0:
                polyak_update(self.target, self.policy, self.config.tau)
        epsilon, temperature = self.exploration
        return {"rollout/exploration_rate": epsilon, "rollout/temperature": temperature} | mean_metrics(steps)

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        online = self.policy.evaluate(episodes, with_truncated=self.config.bootstrap_truncated)
        targets = self._targets(episodes, online)
        actions = episodes.actions().to(online.q.device)
        # With bootstrapping, M + K rows: the last K are the states in which episodes were cut off, without an action.
        q = episodes.spread(online.q[: len(actions)].gather(1, actions[:, None])[:, 0])
        return td_loss(q, targets, self.config.loss_type), {"q_value": q, "td_error": (q - targets).abs()}

    @torch.no_grad()
    def _targets(self, episodes: Episodes, online: QValues) -> torch.Tensor:
        """Return (B, T) targets G_t of Q(s_t, a_t)."""
        config = self.config
        target = self.target.evaluate(episodes, with_truncated=config.bootstrap_truncated)
        best = (online if config.double_q else target).preferences.argmax(dim=-1, keepdim=True)
        values, last_values = episodes.spread_values(target.q.gather(1, best)[:, 0])
        rewards, num_steps = episodes.rewards, episodes.num_steps
        if config.n_steps is not None:
            return n_step_returns(rewards, values, num_steps, config.gamma, config.n_steps, last_values)
        return lambda_returns(rewards, values, num_steps, config.gamma, config.q_lambda, last_values)

    @property
    def exploration(self) -> tuple[float, float]:
        """Current epsilon and temperature of the policy."""
        return self.policy.epsilon, self.policy.temperature

    @exploration.setter
    def exploration(self, values: tuple[float, float]) -> None:
        self.policy.epsilon, self.policy.temperature = values
        self.target.temperature = self.policy.temperature

    def _anneal_exploration(self) -> None:
        """Interpolate epsilon and temperature linearly at the current number of tokens."""
        config = self.config
        done = min(1.0, self.num_timesteps / config.exploration_timesteps)

        def between(first: float, last: float) -> float:
            return first + done * (last - first)

        self.exploration = (
            between(config.exploration_initial_eps, config.exploration_final_eps),
            between(config.initial_temperature, config.final_temperature),
        )
