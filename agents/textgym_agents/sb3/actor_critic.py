"""The language model as SB3's actor-critic policy, for PPO and A2C."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from textgym_agents.policy import LMPolicy
from textgym_agents.sb3.bootstrap import LastAction
from textgym_agents.sb3.optimizer import HEAD_LR_SCALE, make_optimizer
from textgym_agents.sb3.spaces import check_actions, check_window
from textgym_agents.sb3.states import TextStates, windows_of

__all__ = ["LMActorCriticPolicy"]


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
