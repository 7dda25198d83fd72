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
    """A language model that SB3's PPO and A2C train; pi(a|s) is its next-token distribution, V(s) a head on it.

    Acting feeds only the newest token of each slot. With ``rollout_buffer_class=EpisodeRolloutBuffer`` learning costs
    one forward over each text; with SB3's own buffer it works too, with one forward per transition over its prefix.

    When a task is solved all advantages are small, and PPO's ``normalize_advantage`` makes large steps of what is left,
    up to unlearning everything. ``ent_coef=0.01`` or ``normalize_advantage=False`` keeps it from that.

    Args:
        observation_space: ``Box(0, V, (L,), int64)``, or a ``Dict`` that holds one under ``"ids"``. SB3 gives it.
        action_space: ``Discrete(V)``. SB3 gives it.
        lr_schedule: SB3 gives it; its rate is the language model's.
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model, which is trained in place
            and so belongs in the ``policy_kwargs`` of one algorithm only. SB3's ``load`` asks for it again before it
            puts the trained weights in its place, and its ``save`` pickles what stands here: a name or a folder keeps
            the zip small.
        head_lr_scale: How many times faster the value head learns.
        optimizer_class: Any of torch's, by default AdamW without weight decay. A2C asks for RMSprop unless it is made
            with ``use_rms_prop=False``.
        optimizer_kwargs: Of the optimizer, besides the learning rate.
        use_sde: Must stay False: it is for continuous actions.
        **kwargs: Of ``LMPolicy`` and ``LMBackbone``: ``value_gradient``, ``trainable_layers``, ``lora``, ``autocast``.

    Attributes:
        lm: The ``LMPolicy`` in it, which our own agents would train further.
        on_log_probs: Called with the (N,) log-probabilities of each forward, if not None; see ``ReportLogProbs``.

    Raises:
        TypeError: If the spaces are not those of token ids.
        ValueError: If the vocabularies differ, or the window is longer than the model's positions; while acting, if a
            wrapper such as ``VecNormalize`` has changed the ids.

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
        # Not ActorCriticPolicy's own, which would build networks beside the model and initialise what it finds.
        BasePolicy.__init__(self, observation_space, action_space)
        if use_sde:
            raise ValueError("use_sde=True is exploration for continuous actions; a language model samples tokens")
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
        """Choose actions for N slots: (N,) actions, (N,) values, (N,) log-probabilities in nats.

        Sampling draws from torch's global generator, which SB3 seeds.
        """
        windows = windows_of(obs, self.lm.vocab_size)
        choice = self.lm.act(windows, _masks(action_masks), deterministic=deterministic)
        self._last_action = LastAction(self.lm, windows, choice.actions)
        log_probs = torch.from_numpy(choice.log_probs).to(self.device)
        if self.on_log_probs is not None:
            self.on_log_probs(log_probs)
        return (
            torch.from_numpy(choice.actions).to(self.device),
            torch.from_numpy(choice.values).to(self.device),
            log_probs,
        )

    def evaluate_actions(
        self,
        obs: PyTorchObs | TextStates,
        actions: torch.Tensor,
        action_masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Evaluate M actions from one forward over the texts: (M,) values, log-probabilities and entropies in nats."""
        states = TextStates.of(obs, self.lm.vocab_size)
        now = self.lm.evaluate_states(
            states.ids,
            states.rows,
            states.columns,
            actions.long().flatten(),
            None if action_masks is None else torch.as_tensor(action_masks, dtype=torch.bool),
            prompt_lengths=states.prompt_lengths,
            entropy_gradient=True,
        )
        return now.values, now.log_probs, now.entropies

    def predict_values(self, obs: PyTorchObs | TextStates) -> torch.Tensor:
        """Return V of N observations: (N,)."""
        if not isinstance(obs, TextStates) and not torch.is_grad_enabled() and self._last_action is not None:
            windows = windows_of(obs, self.lm.vocab_size)
            value = self._last_action.value_of(windows[0]) if len(windows) == 1 else None
            if value is not None:
                return value
        return self.lm._values(self._read(obs)[1]).float()

    def get_distribution(self, obs: PyTorchObs | TextStates) -> CategoricalDistribution:
        """Return pi(.|s) of N observations as SB3's distribution."""
        return CategoricalDistribution(self.lm.vocab_size).proba_distribution(action_logits=self._read(obs)[0])

    def set_training_mode(self, mode: bool) -> None:
        """Note the mode and leave the model in evaluation: with dropout another policy would learn than acted."""
        self.training = mode

    def get_extra_state(self) -> dict[str, str]:
        """Return what the weights alone do not tell, so that ``export_hf`` needs nothing but SB3's zip."""
        config = self.lm.model.config
        return {"config": config.to_json_string(use_diff=False), "source": str(config._name_or_path or "")}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Take the state as it is: the model in this policy has its configuration already."""

    def _predict(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> torch.Tensor:
        windows = windows_of(observation, self.lm.vocab_size)
        choice = self.lm.act(windows, _masks(action_masks), deterministic=deterministic)
        return torch.from_numpy(choice.actions)

    def _read(self, obs: PyTorchObs | TextStates) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, V) logits and (N, H) hidden states: through the stream where no gradient is asked for."""
        if isinstance(obs, TextStates) or torch.is_grad_enabled():
            states = TextStates.of(obs, self.lm.vocab_size)
            return self.lm.backbone.states(states.ids, states.rows, states.columns, states.prompt_lengths)
        return self.lm.backbone.step(windows_of(obs, self.lm.vocab_size))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            **self._arguments,
        }


def _masks(action_masks: Any) -> npt.NDArray[np.bool_] | None:
    """Return (N, V) bool of what sb3-contrib or its user gives: one mask or N, of any type of number."""
    return None if action_masks is None else np.atleast_2d(np.asarray(action_masks, dtype=np.bool_))


class LastAction:
    """Values of the N texts as the last action left them, from one further step of the stream.

    Needed with ``time_limit="truncated"`` alone, since SB3 bootstraps truncated episodes only: of 64 that end in the
    same step it would have each whole text fed alone.

    Args:
        lm: The policy that acted.
        windows: (N, L) int64, the observations.
        actions: (N,) int64, the actions.
    """

    def __init__(self, lm: LMPolicy, windows: npt.NDArray[np.int64], actions: npt.NDArray[np.int64]) -> None:
        self._lm, self._windows, self._actions = lm, windows, actions
        self._texts: npt.NDArray[np.int64] | None = None
        self._values = torch.empty(0)
        self._weights = -1

    def value_of(self, window: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """Return (1,) float32 V of an (L,) text, or None if no slot has it."""
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
            self._values, self._weights = self._lm.step(self._texts)[1], weights
        return self._values[found[:1]]


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
