"""SB3's rollouts without a window per transition: ids once, minibatches of whole stretches of episodes."""

from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from textgym_agents.rollout import token_window
from textgym_agents.sb3.spaces import window_space
from textgym_agents.sb3.states import TextStates

__all__ = ["EpisodeRolloutBuffer"]


class EpisodeRolloutBuffer(RolloutBuffer):
    """A ``rollout_buffer_class`` for PPO and A2C with an ``LMActorCriticPolicy``.

    A rollout of SB3 cuts episodes: one may have begun in the rollout before, and go on in the next. What lies within
    this rollout is a *segment*; all its states are prefixes of its last one, so that is stored, and for every
    transition only where its state ends. What was written before the rollout is context, and not learned from again.

    ``get(batch_size)`` yields whole segments in random order, in minibatches of ``batch_size`` transitions as nearly as
    segments allow. ``observations`` are ``TextStates``; all else is flat, (M,). Advantages are SB3's own.

    Args:
        buffer_size: Steps per slot; SB3 gives it, as all that follows.
        observation_space: With a token window.
        action_space: ``Discrete``.
        device: Where minibatches go.
        gae_lambda: Of generalized advantage estimation.
        gamma: Discount per token.
        n_envs: Number of slots, N.

    Raises:
        TypeError: If the observation holds no token window.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
    ) -> None:
        window = window_space(observation_space)
        self.pad_token_id, self.window = int(window.high.max()), window.shape[0]
        self.texts = np.empty((n_envs, self.window), dtype=np.int32)
        # What the base class stores as observation is, of each state, its segment and its last token's column.
        place = spaces.Box(0, np.iinfo(np.int32).max, (2,), np.int32)
        RolloutBuffer.__init__(self, buffer_size, place, action_space, device, gae_lambda, gamma, n_envs)

    def reset(self) -> None:
        """Forget the rollout."""
        RolloutBuffer.reset(self)
        self.num_segments = 0
        self._segment = np.full(self.n_envs, -1)

    def add(
        self,
        obs: Any,
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        episode_start: npt.NDArray[Any],
        value: torch.Tensor,
        log_prob: torch.Tensor,
    ) -> None:
        """Append a step of all N slots; arguments as in the base class."""
        windows = token_window(obs)
        is_token = windows != self.pad_token_id
        starts = np.asarray(episode_start, dtype=np.bool_) | (self._segment < 0)
        if not starts.all():  # a text that does not go on is another one, whatever the flag says
            before = self.texts[self._segment]
            starts |= ((before != windows) & (before != self.pad_token_id)).any(axis=1)
        self._segment[starts] = self.num_segments + np.arange(starts.sum())
        self.num_segments += int(starts.sum())
        if self.num_segments > len(self.texts):
            room = np.empty((self.num_segments, self.window), dtype=np.int32)  # doubles it
            self.texts = np.concatenate([self.texts, room])
        self.texts[self._segment] = windows
        place = np.stack([self._segment, is_token.sum(axis=1) - 1], axis=1)
        RolloutBuffer.add(self, place, action, reward, episode_start, value, log_prob)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield minibatches of whole segments, of about ``batch_size`` transitions each; None is all at once."""
        for samples, _ in self._minibatches(batch_size):
            yield samples

    def _minibatches(
        self, batch_size: int | None
    ) -> Generator[tuple[RolloutBufferSamples, npt.NDArray[np.int64]], None, None]:
        """Yield minibatches, and the numbers of their transitions in the (T, N) arrays."""
        if not self.full:
            raise RuntimeError(f"the rollout has {self.pos} of {self.buffer_size} steps: it is not complete")
        segments, columns = self.observations.reshape(-1, 2).T
        by_segment = np.argsort(segments, kind="stable")  # within a segment in the order of time
        sizes = np.bincount(segments)
        first = np.cumsum(sizes) - sizes
        order = np.random.permutation(self.num_segments)  # noqa: NPY002 (SB3 seeds the global generator)
        for chosen in np.split(order, _cuts(sizes[order], batch_size)):
            counts = sizes[chosen]
            rows = np.repeat(np.arange(len(chosen)), counts)
            index = by_segment[
                np.arange(counts.sum()) + np.repeat(first[chosen] - (np.cumsum(counts) - counts), counts)
            ]
            ids = self.texts[chosen, : columns[index].max() + 1].astype(np.int64)
            ids[ids == self.pad_token_id] = 0
            states: Any = TextStates(*map(torch.from_numpy, (ids, rows, columns[index].astype(np.int64))))
            numbers = (self.actions, self.values, self.log_probs, self.advantages, self.returns)
            # SB3 hands the states to the policy unseen.
            yield RolloutBufferSamples(states, *(self.to_torch(array.reshape(-1)[index]) for array in numbers)), index


def _cuts(sizes: npt.NDArray[np.int64], batch_size: int | None) -> npt.NDArray[np.int64]:
    """Return where to cut a sequence of segments so that all minibatches have nearly ``batch_size`` transitions.

    A remainder is spread over all, since SB3 normalises advantages within a minibatch, which a tiny one would distort.

    >>> _cuts(np.array([3, 3, 3, 3, 3]), 6)
    array([3])
    """
    ends = np.cumsum(sizes)
    number = 1 if batch_size is None else max(1, round(ends[-1] / batch_size))
    wanted = ends[-1] * np.arange(1, number) / number
    after = np.searchsorted(ends, wanted)
    nearer = ends[after] - wanted <= wanted - (ends[after] - sizes[after])
    cuts: npt.NDArray[np.int64] = np.unique(after + nearer)
    return cuts[(cuts > 0) & (cuts < len(sizes))]
