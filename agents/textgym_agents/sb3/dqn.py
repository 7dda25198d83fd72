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
from textgym_agents.q_policy import apply_head, head_on
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

_STEP = np.dtype([("column", np.int32), ("action", np.int32), ("reward", np.float32)])
"""A transition: where the last token of its state stands, what was chosen there, what it gave."""


class LMQPolicy(DQNPolicy):
    """A language model with a Q head that SB3's DQN trains.

    Give DQN ``replay_buffer_class=EpisodeReplayBuffer``: an update then costs three forwards (online, target, and
    online once more for double Q) and one backward over each text. SB3's own buffer works too, at one text per
    transition.

    SB3's ``train`` regresses Q(s_t, a_t) on ``r_t + (1 - done) * discount * max(q_net_target(s_{t+1}))``. That leaves
    two freedoms, and a language model needs both, since the maximum over a vocabulary overestimates: the target network
    answers with double Q-values (van Hasselt et al. 2016, arXiv:1509.06461), and with ``EpisodeReplayBuffer`` with
    Peng's lambda-returns from there on.

    SB3 explores by ``action_space.sample()``: a uniform token, in all slots at once or in none. DQN knows no masks.

    Args:
        observation_space: ``Box(0, V, (L,), int64)``, or a ``Dict`` that holds one under ``"ids"``. SB3 gives it.
        action_space: ``Discrete(V)``. SB3 gives it.
        lr_schedule: SB3 gives it; its rate is the language model's.
        model: As in ``LMActorCriticPolicy``; the target network is a second model of that size.
        double: Whether the online network chooses the action whose value the target network gives.
        head_lr_scale: How many times faster the Q head learns.
        optimizer_class: Any of torch's, by default AdamW without weight decay.
        optimizer_kwargs: Of the optimizer, besides the learning rate.
        **kwargs: Of ``LMBackbone``: ``trainable_layers``, ``lora``, ``autocast``.

    Raises:
        TypeError: If the spaces are not those of token ids.
        ValueError: If the vocabularies differ, or the window is longer than the model's positions.
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
        BasePolicy.__init__(self, observation_space, action_space)  # not DQNPolicy's own, which would build an MLP
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
    """Q(s, .) = W LayerNorm(h(s)) + b with the language model's last hidden state h; 0 everywhere at the start.

    Without the norm and the zeros, the maximum over a vocabulary of random values starts high, and bootstrapping keeps
    it there.

    Args:
        observation_space: With a token window.
        action_space: ``Discrete(V)``.
        backbone: The language model, trained in place.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Discrete, backbone: LMBackbone
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space)
        self.backbone = backbone
        self.head = head_on(backbone, backbone.vocab_size)

    def forward(self, obs: PyTorchObs | TextStates) -> torch.Tensor:
        """Return (M, V) float32 Q-values of M states, from one forward over their texts."""
        states = TextStates.of(obs, self.backbone.vocab_size)
        return apply_head(self.head, hidden_states(self.backbone, states))

    def set_training_mode(self, mode: bool) -> None:
        """Note the mode and leave the model in evaluation: dropout would blur what is compared."""
        self.training = mode

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> torch.Tensor:
        """Return the (N,) best tokens, feeding only the newest of each slot."""
        _, hidden = self.backbone.step(windows_of(observation, self.backbone.vocab_size))
        return apply_head(self.head, hidden).argmax(dim=1)


class _TargetNetwork(LMQNetwork):
    """The slow copy, which answers with what SB3 should bootstrap from, in place of V values to take the maximum of."""

    def __init__(self, online: LMQNetwork, double: bool) -> None:
        # A full copy: SB3's update writes into the target's weights, so that frozen ones must not be shared either.
        super().__init__(online.observation_space, online.action_space, copy.deepcopy(online.backbone))
        self.load_state_dict(online.state_dict())
        self.requires_grad_(False)
        self._online = (online,) if double else ()  # a tuple hides it from the module tree

    def forward(self, obs: PyTorchObs | TextStates) -> torch.Tensor:
        """Return (M, 1) values of M states, of which SB3 takes the maximum: they are it."""
        values = super().forward(obs)
        best = self._online[0](obs) if self._online else values
        values = values.gather(1, best.argmax(dim=1, keepdim=True))
        return obs.lambda_values(values[:, 0])[:, None] if isinstance(obs, NextStates) else values


class EpisodeReplayBuffer(ReplayBuffer):
    """A ``replay_buffer_class`` for DQN with an ``LMQPolicy``.

    ``sample(batch_size)`` draws whole episodes, with those that are still being written, until they hold at least
    ``batch_size`` transitions. Each transition is as likely as any other, but those of one episode come together: take
    larger batches than for independent ones. When there are more than ``buffer_size`` transitions, the oldest episodes
    go. Where the environment redistributes its rewards, each transition gets the share of its token.

    The learning target is Peng's Q(lambda)::

        G_t = r_t + gamma [(1 - lambda) max_a Q(s_{t+1}, a) + lambda G_{t+1}]

    It passes a reward at the end of a text on to all its tokens at once, where one-step targets need as many updates of
    the target network as there are tokens. It is not corrected for exploration: with lambda > 0 it learns a mixture of
    what the best policy and the exploring one would get, which approaches the best as epsilon falls.

    Args:
        buffer_size: Transitions over all slots; SB3 gives it, as what follows up to the star.
        observation_space: With a token window.
        action_space: ``Discrete``.
        device: Where samples go.
        n_envs: Number of slots, N.
        optimize_memory_usage: Must stay False: memory is small already.
        handle_timeout_termination: Whether a truncated episode is bootstrapped with the value of its last state. With
            ``time_limit="terminated"``, the environment's default, no episode is truncated.
        gamma: Discount per token, in place of DQN's own, as for SB3's ``NStepReplayBuffer``: give the same number to
            ``replay_buffer_kwargs``.
        q_lambda: Lambda, from 0, which are one-step targets, to 1.

    Raises:
        TypeError: If the observation holds no token window.
        ValueError: If ``gamma`` or ``q_lambda`` is outside [0, 1], or ``optimize_memory_usage`` is asked for.
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
        # Not ReplayBuffer's own, which would set aside two windows per transition.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.pad_token_id, self.window = int(window.high.max()), window.shape[0]
        self.optimize_memory_usage, self.handle_timeout_termination = False, handle_timeout_termination
        self.gamma, self.q_lambda = gamma, q_lambda
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
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
        """Append a step of all N slots; arguments as in the base class.

        Raises:
            ValueError: If an episode ends and the environment's ``final_info`` is not ``"full"``.
        """
        before, after = token_window(obs), token_window(next_obs)
        columns = (before != self.pad_token_id).sum(axis=1) - 1
        lengths = (after != self.pad_token_id).sum(axis=1)
        for slot, chosen in enumerate(action.reshape(-1)):
            episode = self._open[slot]
            if episode is not None and not np.array_equal(episode.ids, before[slot, : columns[slot] + 1]):
                episode.close(terminated=False)  # learn() or set_env() has reset the environment in the middle of it
                episode = None
            if episode is None:
                episode = self._open[slot] = _Episode(self.window)
                self.episodes.append(episode)
            episode.add(columns[slot], chosen, reward[slot], after[slot, : lengths[slot]])
            if done[slot]:
                if "completion_ids" not in infos[slot]:
                    raise ValueError(
                        "the last info of an episode lacks completion_ids, and with it the token rewards: make the "
                        "environment with final_info='full', its default"
                    )
                if "token_rewards" in infos[slot]:
                    steps = episode.steps[: episode.num_steps]
                    has_written = np.diff(steps["column"], append=len(episode.ids) - 1) > 0
                    redistribute(steps["reward"], infos[slot]["token_rewards"], has_written)
                cut = self.handle_timeout_termination and infos[slot].get("TimeLimit.truncated", False)
                episode.close(terminated=not cut)
                self._open[slot] = None
        self.pos += self.n_envs
        while self.pos > self.buffer_size and self.episodes[0] not in self._open:
            self.pos -= self.episodes.popleft().num_steps
            self.full = True

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Return whole episodes of at least ``batch_size`` transitions together; drawn with replacement.

        Args:
            batch_size: Transitions.
            env: Normalises the rewards, if given.
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
            TextStates(texts, rows, torch.from_numpy(columns)),  # type: ignore[arg-type]  # SB3 hands it on unseen
            self.to_torch(steps["action"].astype(np.int64))[:, None],
            next_states,  # type: ignore[arg-type]
            self.to_torch(dones)[:, None],
            self.to_torch(rewards)[:, None],
            self.to_torch(np.full((len(steps), 1), self.gamma, dtype=np.float32)),
        )


@dataclass(frozen=True)
class NextStates(TextStates):
    """The states after M transitions, episode by episode, with what lambda-returns from there on need."""

    rewards: torch.Tensor
    """(M,) float32, of the M transitions."""
    num_steps: torch.Tensor
    """(B,) int64 transitions of each text."""
    terminated: torch.Tensor
    """(B,) bool, whether the last of them ended the episode by itself."""
    gamma: float
    """Discount per token."""
    q_lambda: float
    """Weight of what was seen beside what the target network says."""

    def lambda_values(self, values: torch.Tensor) -> torch.Tensor:
        """Compute U_t = (1 - lambda) V(s_t) + lambda (r_t + gamma U_{t+1}) of M next states; V where nothing follows.

        Args:
            values: (M,) float, V(s_t) = max_a Q(s_t, a) of the next states.

        Returns:
            (M,) float.

        Source: Peng and Williams 1994, Incremental multi-step Q-learning.

        >>> ids, zeros = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
        >>> rewards, end = torch.tensor([0.0, 1.0]), torch.tensor([True])
        >>> next_states = NextStates(ids, zeros, zeros, rewards, torch.tensor([2]), end, 1.0, 0.5)
        >>> next_states.lambda_values(torch.tensor([0.4, 9.0]))
        tensor([0.7000, 9.0000])
        """
        num_steps = self.num_steps.to(values.device)
        if int(num_steps.max()) == 1:  # nothing follows anywhere
            return values
        inside = torch.arange(int(num_steps.max()), device=values.device) < num_steps[:, None]
        spread = torch.zeros(inside.shape, device=values.device)
        after = spread.masked_scatter(inside, values)
        rewards = spread.masked_scatter(inside, self.rewards.to(values.device))
        last = after.gather(1, num_steps[:, None] - 1)[:, 0] * ~self.terminated.to(values.device)
        # The advantage of going on from s_t is what the lambda-return from there has above V(s_t).
        gains = generalized_advantages(rewards[:, 1:], after[:, :-1], num_steps - 1, self.gamma, self.q_lambda, last)
        after[:, :-1] += self.q_lambda * gains
        return after[inside]


class _Episode:
    """One text that a slot wrote, with its transitions so far."""

    def __init__(self, window: int) -> None:
        self.ids: npt.NDArray[np.integer] = np.empty(0, dtype=np.int32)
        self.steps = np.empty(window, dtype=_STEP)
        self.num_steps = 0
        self.terminated = False

    def add(self, column: int, action: int, reward: float, ids: npt.NDArray[np.int64]) -> None:
        if self.num_steps == len(self.steps):  # only where actions that write nothing outnumber the window
            self.steps = np.concatenate([self.steps, np.empty_like(self.steps)])
        self.steps[self.num_steps] = column, action, reward
        self.num_steps += 1
        self.ids = ids

    def close(self, terminated: bool) -> None:
        self.terminated = terminated
        self.ids, self.steps = self.ids.astype(np.int32), self.steps[: self.num_steps].copy()
