"""Q-values on a language model's hidden states, for SB3's DQN."""

import copy
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from textgym_agents.backbone import LMBackbone
from textgym_agents.q_policy import apply_head, head_on
from textgym_agents.sb3.optimizer import HEAD_LR_SCALE, make_optimizer
from textgym_agents.sb3.replay_buffer import NextStates
from textgym_agents.sb3.spaces import check_actions, check_window
from textgym_agents.sb3.states import TextStates, hidden_states, windows_of

__all__ = ["LMQNetwork", "LMQPolicy"]


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
