"""DQN: Q-values on a language model, and a replay buffer of whole episodes."""

import copy
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples, Schedule
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from textgym_agents.backbone import LMBackbone
from textgym_agents.policy import apply_head, make_head
from textgym_agents.returns import generalized_advantages
from textgym_agents.rollout import redistribute, token_window
from textgym_agents.sb3.base import (
    HEAD_LR_SCALE,
    TextStates,
    check_actions,
    check_window,
    hidden_states,
    make_optimizer,
    window_space,
    windows_of,
)

__all__ = ["EpisodeReplayBuffer", "LMQPolicy"]


class LMQPolicy(DQNPolicy):
    """Policy for SB3's DQN: a language model with a Q head.

    With ``replay_buffer_class=EpisodeReplayBuffer`` an update costs three forwards (online, target, and online again
    for double Q) and one backward over each text; with SB3's own buffer it costs one text per transition.

    SB3's ``train`` regresses Q(s_t, a_t) on ``r_t + (1 - done) * discount * max(q_net_target(s_{t+1}))``. Because the
    maximum over a vocabulary overestimates, the target network returns double Q-values (van Hasselt et al. 2016,
    arXiv:1509.06461) and, with ``EpisodeReplayBuffer``, Peng's lambda-returns.

    SB3 explores by ``action_space.sample()``: a uniform token, in all environments at once or in none. SB3's DQN does
    not support action masks.

    Args:
        observation_space: ``Box(0, V, (L,), int64)``, or a ``Dict`` with one under ``"ids"``; set by SB3.
        action_space: ``Discrete(V)``; set by SB3.
        lr_schedule: Learning rate of the language model; set by SB3.
        model: As in ``LMActorCriticPolicy``; the target network is a full copy.
        double: Double Q-learning: the online network selects the action, the target network evaluates it.
        head_lr_scale: Learning rate of the Q head relative to the schedule's.
        optimizer_class: A torch optimizer class, by default AdamW without weight decay.
        optimizer_kwargs: Arguments of the optimizer other than the learning rate.
        **kwargs: Keywords of ``LMBackbone``: ``trainable_layers``, ``lora``, ``autocast``.

    Raises:
        TypeError: If the spaces are not of token ids.
        ValueError: If the vocabularies differ, the window is longer than the model's positions, the optimizer is fused,
            or ``head_lr_scale`` is negative.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        model: Any = "tiny",
        double: bool = True,
        head_lr_scale: float = HEAD_LR_SCALE,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space)  # not DQNPolicy.__init__, which builds an MLP
        backbone = LMBackbone(model, **kwargs)
        check_window(observation_space, backbone)
        check_actions(action_space, backbone)
        self.q_net = LMQNetwork(observation_space, action_space, backbone)
        self.q_net_target = _TargetNetwork(self.q_net, double)
        self.optimizer = make_optimizer(
            self.q_net, backbone, lr_schedule(1), head_lr_scale, optimizer_class, optimizer_kwargs
        )
        self._arguments = {
            "model": model, "double": double, "head_lr_scale": head_lr_scale, "optimizer_class": optimizer_class,
            "optimizer_kwargs": optimizer_kwargs, **kwargs,
        }  # fmt: skip

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            **self._arguments,
        }


class LMQNetwork(QNetwork):
    """Q(s, .) = W LayerNorm(h(s)) + b with the language model's last hidden state h; initialised to 0.

    With random initial values, the maximum over the vocabulary would start high and bootstrapping would keep it there.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Discrete, backbone: LMBackbone
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space)
        self.backbone = backbone
        self.head = make_head(backbone, backbone.vocab_size)

    def forward(self, obs: PyTorchObs | TextStates) -> torch.Tensor:
        """Return (M, V) float32 Q-values of M states, from one forward over their texts."""
        states = TextStates.of(obs, self.backbone.vocab_size)
        return apply_head(self.head, hidden_states(self.backbone, states))

    def set_training_mode(self, mode: bool) -> None:
        """Set the flag only; the model stays in evaluation mode, without dropout."""
        self.training = mode

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> torch.Tensor:
        """Return the (N,) best tokens, feeding only the new token of each text."""
        _, hidden = self.backbone.step(windows_of(observation, self.backbone.vocab_size))
        return apply_head(self.head, hidden).argmax(dim=1)


class _TargetNetwork(LMQNetwork):
    """Target network that returns the bootstrap value of each state instead of V Q-values."""

    def __init__(self, online: LMQNetwork, double: bool) -> None:
        # A full copy: SB3 writes into all target weights, so not even frozen ones may be shared.
        super().__init__(online.observation_space, online.action_space, copy.deepcopy(online.backbone))
        self.load_state_dict(online.state_dict())
        self.requires_grad_(False)
        self._online = (online,) if double else ()  # a tuple hides it from the module tree

    def forward(self, obs: PyTorchObs | TextStates) -> torch.Tensor:
        """Return (M, 1) bootstrap values of M states; SB3's maximum over one column is the value itself."""
        values = super().forward(obs)
        best = self._online[0](obs) if self._online else values
        values = values.gather(1, best.argmax(dim=1, keepdim=True))
        return obs.lambda_values(values[:, 0])[:, None] if isinstance(obs, NextStates) else values


class EpisodeReplayBuffer(ReplayBuffer):
    """Replay buffer for DQN with an ``LMQPolicy``; a ``replay_buffer_class``.

    ``sample(batch_size)`` draws whole episodes, including unfinished ones, until they contain at least ``batch_size``
    transitions. Transitions of an episode are correlated: use larger batches than for independent ones. Beyond
    ``buffer_size`` transitions the oldest episodes are dropped. Redistributed rewards are assigned to their tokens.

    The learning target is Peng's Q(lambda)::

        G_t = r_t + gamma [(1 - lambda) max_a Q(s_{t+1}, a) + lambda G_{t+1}]

    It propagates a terminal reward to all tokens at once, where one-step targets need as many target updates as there
    are tokens. It is not corrected for exploration: with lambda > 0 it learns a mixture of the values of the greedy and
    the exploring policy.

    Args:
        buffer_size: Transitions of all environments; set by SB3, like the other positional arguments.
        optimize_memory_usage: Must be False; ids are stored once anyway.
        handle_timeout_termination: Bootstrap truncated episodes with the value of their last state. With
            ``time_limit="terminated"``, the environment's default, no episode is truncated.
        gamma: Discount per token, used instead of DQN's; pass the same value in ``replay_buffer_kwargs``, as for SB3's
            ``NStepReplayBuffer``.
        q_lambda: Lambda, from 0 (one-step targets) to 1.

    Raises:
        TypeError: If the observation contains no token window.
        ValueError: If ``gamma`` or ``q_lambda`` is outside [0, 1], or ``optimize_memory_usage`` is True.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        gamma: float = 0.99,
        q_lambda: float = 0.9,
    ) -> None:
        window = window_space(observation_space)
        for name, value in (("gamma", gamma), ("q_lambda", q_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value!r}")
        if optimize_memory_usage:
            raise ValueError("EpisodeReplayBuffer stores each id once: leave out optimize_memory_usage=True")
        # Not ReplayBuffer.__init__, which allocates two windows per transition.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.pad_token_id, self.window = int(window.high.max()), window.shape[0]
        self.optimize_memory_usage, self.handle_timeout_termination = False, handle_timeout_termination
        self.gamma, self.q_lambda = gamma, q_lambda
        self.reset()

    def reset(self) -> None:
        """Clear the buffer."""
        super().reset()
        self.episodes: deque[_Episode] = deque()
        self._open: list[_Episode | None] = [None] * self.n_envs

    def size(self) -> int:
        """Return the number of transitions."""
        return self.pos

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Append a step of N environments; arguments as in the base class.

        Raises:
            ValueError: If an episode ends and the environment's ``final_info`` is not ``"full"``.
        """
        before, after = token_window(obs), token_window(next_obs)
        columns = (before != self.pad_token_id).sum(axis=1) - 1
        lengths = (after != self.pad_token_id).sum(axis=1)
        for index, chosen in enumerate(action.reshape(-1)):
            episode = self._open[index]
            if episode is not None and not np.array_equal(episode.ids, before[index, : columns[index] + 1]):
                episode.close(terminated=False)  # learn() or set_env() reset the environment mid-episode
                episode = None
            if episode is None:
                episode = self._open[index] = _Episode(self.window)
                self.episodes.append(episode)
            episode.add(columns[index], chosen, reward[index], after[index, : lengths[index]])
            if done[index]:
                if "completion_ids" not in infos[index]:
                    raise ValueError(
                        "the final info of an episode has no completion_ids and no token rewards; make the environment "
                        "with final_info='full', the default"
                    )
                if "token_rewards" in infos[index]:
                    steps = episode.steps[: episode.num_steps]
                    has_written = np.diff(steps["column"], append=len(episode.ids) - 1) > 0
                    redistribute(steps["reward"], infos[index]["token_rewards"], has_written)
                cut = self.handle_timeout_termination and infos[index].get("TimeLimit.truncated", False)
                episode.close(terminated=not cut)
                self._open[index] = None
        self.pos += self.n_envs
        while self.pos > self.buffer_size and self.episodes[0] not in self._open:
            self.pos -= self.episodes.popleft().num_steps
            self.full = True

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Sample whole episodes, with replacement, of at least ``batch_size`` transitions in total.

        Args:
            batch_size: Number of transitions.
            env: If given, normalises the rewards.
        """
        chosen, missing = [], batch_size
        while missing > 0:
            number = np.random.randint(len(self.episodes))  # noqa: NPY002 (SB3 seeds the global generator)
            chosen.append(self.episodes[number])
            missing -= chosen[-1].num_steps
        steps = np.concatenate([episode.steps[: episode.num_steps] for episode in chosen])
        num_steps = np.array([episode.num_steps for episode in chosen])
        lengths = np.array([len(episode.ids) for episode in chosen])
        ids = np.zeros((len(chosen), lengths.max()), dtype=np.int64)
        for row, episode in enumerate(chosen):
            ids[row, : len(episode.ids)] = episode.ids
        last = np.cumsum(num_steps) - 1
        terminated = np.array([episode.terminated for episode in chosen])
        dones = np.zeros(len(steps), dtype=np.float32)
        dones[last] = terminated
        columns = steps["column"].astype(np.int64)
        next_columns = np.append(columns[1:], 0)
        next_columns[last] = lengths - 1
        rewards = self._normalize_reward(steps["reward"], env)
        texts = torch.from_numpy(ids)
        rows = torch.from_numpy(np.repeat(np.arange(len(chosen)), num_steps))
        next_states = NextStates(
            texts,
            rows,
            torch.from_numpy(next_columns),
            self.to_torch(rewards),
            self.to_torch(num_steps),
            self.to_torch(terminated),
            self.gamma,
            self.q_lambda,
        )
        return ReplayBufferSamples(
            TextStates(texts, rows, torch.from_numpy(columns)),  # type: ignore[arg-type]  # SB3 passes it on unchanged
            self.to_torch(steps["action"].astype(np.int64))[:, None],
            next_states,  # type: ignore[arg-type]
            self.to_torch(dones)[:, None],
            self.to_torch(rewards)[:, None],
            self.to_torch(np.full((len(steps), 1), self.gamma, dtype=np.float32)),
        )


@dataclass(frozen=True)
class NextStates(TextStates):
    """Next states of M transitions, by episode, with the data for their lambda-returns."""

    rewards: torch.Tensor
    """(M,) float32 rewards of the transitions."""
    num_steps: torch.Tensor
    """(B,) int64 transitions of each text."""
    terminated: torch.Tensor
    """(B,) bool, True if the last next state has value 0, False if it is bootstrapped."""
    gamma: float
    """Discount per token."""
    q_lambda: float
    """Lambda of Peng's Q(lambda)."""

    def lambda_values(self, values: torch.Tensor) -> torch.Tensor:
        """Compute U_t = (1 - lambda) V(s_t) + lambda (r_t + gamma U_{t+1}) of M next states.

        The last next state of a text has U = V.

        Args:
            values: (M,) float, V(s_t) = max_a Q(s_t, a) of the next states.

        Returns:
            (M,) float.

        Source: Peng and Williams 1996, Incremental multi-step Q-learning.

        >>> ids, zeros = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
        >>> rewards, end = torch.tensor([0.0, 1.0]), torch.tensor([True])
        >>> next_states = NextStates(ids, zeros, zeros, rewards, torch.tensor([2]), end, 1.0, 0.5)
        >>> next_states.lambda_values(torch.tensor([0.4, 9.0]))
        tensor([0.7000, 9.0000])
        """
        num_steps = self.num_steps.to(values.device)
        if int(num_steps.max()) == 1:  # no next state has a transition
            return values
        inside = torch.arange(int(num_steps.max()), device=values.device) < num_steps[:, None]
        spread = torch.zeros(inside.shape, device=values.device)
        after = spread.masked_scatter(inside, values)
        rewards = spread.masked_scatter(inside, self.rewards.to(values.device))
        last = after.gather(1, num_steps[:, None] - 1)[:, 0] * ~self.terminated.to(values.device)
        # The lambda-return from s_t minus V(s_t) is the advantage there.
        gains = generalized_advantages(rewards[:, 1:], after[:, :-1], num_steps - 1, self.gamma, self.q_lambda, last)
        after[:, :-1] += self.q_lambda * gains
        return after[inside]


_STEP = np.dtype([("column", np.int32), ("action", np.int32), ("reward", np.float32)])
"""A transition: the column of its state's last token, the action and the reward."""


class _Episode:
    """A text with its transitions so far."""

    def __init__(self, window: int) -> None:
        self.ids: npt.NDArray[np.integer] = np.empty(0, dtype=np.int32)
        self.steps = np.empty(window, dtype=_STEP)
        self.num_steps = 0
        self.terminated = False

    def add(self, column: int, action: int, reward: float, ids: npt.NDArray[np.int64]) -> None:
        if self.num_steps == len(self.steps):  # only if ignored invalid actions outnumber the window
            self.steps = np.concatenate([self.steps, np.empty_like(self.steps)])
        self.steps[self.num_steps] = column, action, reward
        self.num_steps += 1
        self.ids = ids

    def close(self, terminated: bool) -> None:
        self.terminated = terminated
        self.ids, self.steps = self.ids.astype(np.int32), self.steps[: self.num_steps].copy()
