"""PPO and A2C: the language model as SB3's actor-critic policy, and a rollout buffer of episode segments."""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, RolloutBufferSamples, Schedule

from textgym_agents.policy import LMPolicy
from textgym_agents.rollout import token_window
from textgym_agents.sb3.base import (
    HEAD_LR_SCALE,
    TextStates,
    check_actions,
    check_window,
    make_optimizer,
    window_space,
    windows_of,
)

__all__ = ["EpisodeRolloutBuffer", "LMActorCriticPolicy"]


class LMActorCriticPolicy(ActorCriticPolicy):
    """Actor-critic policy for SB3's PPO and A2C: pi(a|s) is the LM's next-token distribution, V(s) of ``LMPolicy``.

    Acting feeds only the new token of each text. With ``rollout_buffer_class=EpisodeRolloutBuffer`` an update costs one
    forward over each text; with SB3's own buffer it costs one forward per transition.

    Once a task is solved, PPO's ``normalize_advantage`` amplifies the remaining tiny advantages, which can destroy the
    policy; ``ent_coef=0.01`` or ``normalize_advantage=False`` prevents it.

    Args:
        observation_space: ``Box(0, V, (L,), int64)``, or a ``Dict`` with one under ``"ids"``; set by SB3.
        action_space: ``Discrete(V)``; set by SB3.
        lr_schedule: Learning rate of the language model; set by SB3.
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model, which is trained in
            place: use it in one algorithm only. SB3's ``save`` pickles this argument and ``load`` evaluates it again
            before it restores the trained weights, so a name or a folder keeps the zip small.
        head_lr_scale: Learning rate of the value head relative to the schedule's.
        optimizer_class: A torch optimizer class, by default AdamW without weight decay. A2C sets RMSprop unless
            constructed with ``use_rms_prop=False``.
        optimizer_kwargs: Arguments of the optimizer other than the learning rate.
        use_sde: Must be False: it is for continuous actions.
        **kwargs: Keywords of ``LMPolicy`` and ``LMBackbone``: ``value_function``, ``value_gradient``,
            ``trainable_layers``, ``lora``, ``autocast``.

    Attributes:
        lm: The ``LMPolicy``, which textgym's own agents can train further.
        on_log_probs: Called with the (N,) log-probabilities of each forward, if not None; see ``ReportLogProbs``.

    Raises:
        TypeError: If the spaces are not of token ids.
        ValueError: If the vocabularies differ, or the window is longer than the model's positions; while acting, if a
            wrapper such as ``VecNormalize`` changes the ids.

    >>> from stable_baselines3 import PPO
    >>> from textgym import TextGenVecEnv
    >>> from textgym_agents.sb3 import EpisodeRolloutBuffer
    >>> env = TextGenVecEnv(4, max_new_tokens=4)
    >>> model = PPO(LMActorCriticPolicy, env, n_steps=4, batch_size=16, rollout_buffer_class=EpisodeRolloutBuffer)
    >>> model.learn(16).num_timesteps
    16
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        model: Any = "tiny",
        head_lr_scale: float = HEAD_LR_SCALE,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        **kwargs: Any,
    ) -> None:
        # Not ActorCriticPolicy.__init__, which builds networks and overwrites weights (ortho_init).
        BasePolicy.__init__(self, observation_space, action_space)
        if use_sde:
            raise ValueError("use_sde=True is for continuous actions; a language model samples tokens")
        self.lm = LMPolicy(model, **kwargs)
        check_window(observation_space, self.lm.backbone)
        check_actions(action_space, self.lm.backbone)
        self.optimizer = make_optimizer(
            self, self.lm.backbone, lr_schedule(1), head_lr_scale, optimizer_class, optimizer_kwargs
        )
        self.on_log_probs: Callable[[torch.Tensor], None] | None = None
        self._last_action: LastAction | None = None
        self._arguments = {
            "model": model, "head_lr_scale": head_lr_scale, "optimizer_class": optimizer_class,
            "optimizer_kwargs": optimizer_kwargs, **kwargs,
        }  # fmt: skip

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False, action_masks: npt.NDArray[np.bool_] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose N actions and return (N,) actions, (N,) values and (N,) log-probabilities in nats.

        Samples from torch's global generator, which SB3 seeds.
        """
        windows = windows_of(obs, self.lm.vocab_size)
        output = self.lm.act(windows, _masks(action_masks), deterministic=deterministic)
        self._last_action = LastAction(self.lm, windows, output.actions)
        log_probs = torch.from_numpy(output.log_probs).to(self.device)
        if self.on_log_probs is not None:
            self.on_log_probs(log_probs)
        return (
            torch.from_numpy(output.actions).to(self.device),
            torch.from_numpy(output.values).to(self.device),
            log_probs,
        )

    def evaluate_actions(
        self,
        obs: PyTorchObs | TextStates,
        actions: torch.Tensor,
        action_masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (M,) values, log-probabilities and entropies (nats) of M actions from one forward over the texts."""
        states = TextStates.of(obs, self.lm.vocab_size)
        evaluation = self.lm.evaluate_states(
            states.ids,
            states.rows,
            states.columns,
            actions.long().flatten(),
            None if action_masks is None else torch.as_tensor(action_masks, dtype=torch.bool),
            prompt_lengths=states.prompt_lengths,
            entropy_gradient=True,
        )
        return evaluation.values, evaluation.log_probs, evaluation.entropies

    def predict_values(self, obs: PyTorchObs | TextStates) -> torch.Tensor:
        """Return V of N observations: (N,)."""
        if not isinstance(obs, TextStates) and not torch.is_grad_enabled() and self._last_action is not None:
            windows = windows_of(obs, self.lm.vocab_size)
            value = self._last_action.value_of(windows[0]) if len(windows) == 1 else None
            if value is not None:
                return value
        return self._read(obs)[1]

    def get_distribution(self, obs: PyTorchObs | TextStates) -> CategoricalDistribution:
        """Return pi(.|s) of N observations as SB3's distribution."""
        return CategoricalDistribution(self.lm.vocab_size).proba_distribution(action_logits=self._read(obs)[0])

    def set_training_mode(self, mode: bool) -> None:
        """Set the flag only; the model stays in evaluation mode, since dropout would change the policy."""
        self.training = mode

    def get_extra_state(self) -> dict[str, str]:
        """Return the model's configuration, so that ``export_hf`` needs only SB3's zip."""
        config = self.lm.model.config
        return {"config": config.to_json_string(use_diff=False), "source": str(config._name_or_path or "")}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Ignore the state: the model already has its configuration."""

    def _predict(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> torch.Tensor:
        windows = windows_of(observation, self.lm.vocab_size)
        output = self.lm.act(windows, _masks(action_masks), deterministic=deterministic)
        return torch.from_numpy(output.actions)

    def _read(self, obs: PyTorchObs | TextStates) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, V) logits and (N,) V(s), from the KV cache if no gradient is needed."""
        if isinstance(obs, TextStates) or torch.is_grad_enabled():
            states = TextStates.of(obs, self.lm.vocab_size)
            evaluation = self.lm.evaluate_states(
                states.ids,
                states.rows,
                states.columns,
                torch.zeros_like(states.rows),  # an action is required, its log-probability not
                prompt_lengths=states.prompt_lengths,
            )
            return evaluation.logits, evaluation.values
        return self.lm.logits_and_values(windows_of(obs, self.lm.vocab_size))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            **self._arguments,
        }


def _masks(action_masks: Any) -> npt.NDArray[np.bool_] | None:
    """Return one mask or N masks of any dtype as (N, V) bool."""
    return None if action_masks is None else np.atleast_2d(np.asarray(action_masks, dtype=np.bool_))


class LastAction:
    """Batched values of the N texts after the last action, for bootstrapping truncated episodes.

    SB3 queries them one at a time; the first query computes all in one forward. Only for ``time_limit="truncated"``.

    Args:
        lm: The policy.
        windows: (N, L) int64 observations.
        actions: (N,) int64 actions.
    """

    def __init__(self, lm: LMPolicy, windows: npt.NDArray[np.int64], actions: npt.NDArray[np.int64]) -> None:
        self._lm, self._windows, self._actions = lm, windows, actions
        self._texts: npt.NDArray[np.int64] | None = None
        self._values = torch.empty(0)
        self._weights = -1

    def value_of(self, window: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """Return (1,) float32 V of an (L,) text, or None if it is not one of the N texts."""
        if self._texts is None:
            lengths = (self._windows != self._lm.vocab_size).sum(axis=1)
            rows = np.flatnonzero(lengths < self._windows.shape[1])
            self._texts = self._windows.copy()
            self._texts[rows, lengths[rows]] = self._actions[rows]
        found = np.flatnonzero((self._texts == window).all(axis=1))
        if not found.size:
            return None
        weights = sum(parameter._version for parameter in self._lm.parameters())
        if weights != self._weights:
            self._values, self._weights = self._lm.logits_and_values(self._texts)[1], weights
        return self._values[found[:1]]


class EpisodeRolloutBuffer(RolloutBuffer):
    """Rollout buffer for PPO and A2C with an ``LMActorCriticPolicy``; a ``rollout_buffer_class``.

    The part of an episode within a rollout is a *segment*. Its states are prefixes of its last text, so only that text
    is stored, with the length of each state. Tokens from earlier rollouts are context.

    ``get(batch_size)`` yields whole segments in random order, in minibatches of about ``batch_size`` transitions.
    ``observations`` are ``TextStates``, everything else is flat, (M,). Advantages are SB3's.

    Args:
        buffer_size: Steps per environment; set by SB3, like the other arguments, which are those of the base class.

    Raises:
        TypeError: If the observation contains no token window.
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
        # The base class stores each state as the segment and the column of its last token.
        place = spaces.Box(0, np.iinfo(np.int32).max, (2,), np.int32)
        RolloutBuffer.__init__(self, buffer_size, place, action_space, device, gae_lambda, gamma, n_envs)

    def reset(self) -> None:
        """Clear the rollout."""
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
        """Append a step of N environments; arguments as in the base class."""
        windows = token_window(obs)
        is_token = windows != self.pad_token_id
        starts = np.asarray(episode_start, dtype=np.bool_) | (self._segment < 0)
        if not starts.all():  # a text that does not continue the previous one starts a segment despite the flag
            before = self.texts[self._segment]
            starts |= ((before != windows) & (before != self.pad_token_id)).any(axis=1)
        self._segment[starts] = self.num_segments + np.arange(starts.sum())
        self.num_segments += int(starts.sum())
        if self.num_segments > len(self.texts):
            room = np.empty((self.num_segments, self.window), dtype=np.int32)  # doubles the array
            self.texts = np.concatenate([self.texts, room])
        self.texts[self._segment] = windows
        place = np.stack([self._segment, is_token.sum(axis=1) - 1], axis=1)
        RolloutBuffer.add(self, place, action, reward, episode_start, value, log_prob)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield minibatches of whole segments with about ``batch_size`` transitions; None is one batch."""
        for samples, _ in self._minibatches(batch_size):
            yield samples

    def _minibatches(
        self, batch_size: int | None
    ) -> Generator[tuple[RolloutBufferSamples, npt.NDArray[np.int64]], None, None]:
        """Yield minibatches and the flat indices of their transitions."""
        if not self.full:
            raise RuntimeError(f"the rollout is incomplete: it has {self.pos} of {self.buffer_size} steps")
        segments, columns = self.observations.reshape(-1, 2).T
        by_segment = np.argsort(segments, kind="stable")  # in temporal order within a segment
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
            # SB3 passes the states to the policy unchanged.
            yield RolloutBufferSamples(states, *(self.to_torch(array.reshape(-1)[index]) for array in numbers)), index


def _cuts(sizes: npt.NDArray[np.int64], batch_size: int | None) -> npt.NDArray[np.int64]:
    """Return where to split a sequence of segments into minibatches of about ``batch_size`` transitions.

    A remainder is spread over all minibatches: SB3 normalises advantages per minibatch, which a tiny one would distort.

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
