"""SB3's replay without two windows per transition: ids once, samples of whole episodes."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from textgym_agents.returns import generalized_advantages
from textgym_agents.rollout import redistribute, token_window
from textgym_agents.sb3.spaces import window_space
from textgym_agents.sb3.states import TextStates

__all__ = ["EpisodeReplayBuffer", "NextStates"]

_STEP = np.dtype([("column", np.int32), ("action", np.int32), ("reward", np.float32)])
"""A transition: where the last token of its state stands, what was chosen there, what it gave."""


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
