"""The policies that can be inspected, and the settings of the return that their values are of."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from textgym.envs.interface import CoreInterface
from textgym_agents.agent import Agent
from textgym_agents.backbone import LMBackbone
from textgym_agents.checkpoint import find_checkpoint, saved_settings
from textgym_agents.config import CriticConfig
from textgym_agents.episodes import Episodes
from textgym_agents.ilql import ILQLPolicy
from textgym_agents.policy import ActionOutput, BasePolicy, LMPolicy, choose, masked
from textgym_agents.q_policy import QPolicy, behaviour_log_probs, soft_values
from textgym_agents.reference import ReferencePolicy

__all__ = ["StateOutputs", "Subject", "as_policy", "as_subject", "env_of", "name_of"]


class StateOutputs(NamedTuple):
    """Outputs of a policy in M states, without gradients."""

    logits: torch.Tensor
    """(M, V) float32, the input of the softmax by which it acts, -inf where invalid."""
    values: torch.Tensor | None = None
    """(M,) float32 V(s), if it has one."""
    q: torch.Tensor | None = None
    """(M, V) float32 Q(s, a), if it has one; -inf where invalid."""
    soft_values: torch.Tensor | None = None
    """(M,) float32 T log sum exp(Q / T), if it has a Q of temperature T."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An inspected policy, with the settings of the return that its values are of."""

    policy: Any
    """What acts: its ``act`` is that of the protocol ``Policy``."""
    outputs: Callable[[Episodes, bool], StateOutputs]
    """Outputs in the M states of B episodes; if the argument is True also in the K states in which the time limit cut
    episodes off, after the others."""
    reference: Callable[[Episodes, bool], StateOutputs] | None = None
    """The same of the reference of the KL penalty, if there is one."""
    kl_reference: ReferencePolicy | None = None
    """That reference, for rollouts."""
    gamma: float = 1.0
    gae_lambda: float | None = 0.95
    """Lambda of its advantages; None if it uses no generalized advantages."""
    penalty: float = 0.0
    """Coefficient of log pi(a_t|s_t) - log pi_ref(a_t|s_t) in the return that V is of; pi_ref is 1 without
    reference."""
    soft_temperature: float | None = None
    """T of a soft Q-function that is V(s) + T log[pi(a|s) / pi_ref(a|s)]."""
    bootstraps: bool = False
    """Whether V continues episodes that the time limit cut off."""
    clip_range: tuple[float, float] | None = (0.2, 0.2)
    normalizes_advantage: bool = True
    """Whether its loss clips by the sign of normalized advantages."""

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        size: int = self.policy.vocab_size
        return size

    def return_name(self, env: Any, episodes: Episodes) -> str:
        """Return the return that V is of in episodes of an environment, as ``about["return"]`` names it."""
        name = "score"
        in_env = env is not None and env.config.kl_penalty
        if in_env or (env is None and not math.isnan(episodes.infos[0].get("kl", math.nan))):
            coef = f"{env.core.components.kl.coefficient.coef:.4g}" if in_env else "a coefficient"
            name += f" minus {coef} x KL to the reference, as the environment rewards it"
        elif self.penalty:
            name += f" minus {self.penalty:.4g} x " + ("KL to the reference" if self.reference else "log pi")
        cuts = bool(episodes.truncated.any()) or (env is not None and env.config.time_limit == "truncated")
        return f"{name}, plus V where the time limit cuts (not in rollouts)" if self.bootstraps and cuts else name

    def last_values(self, episodes: Episodes) -> torch.Tensor | None:
        """Return (B,) V where the time limit cut an episode off, 0 for the others; None if that V is not used."""
        if not self.bootstraps:
            return None
        values = torch.zeros(len(episodes))
        cut = episodes.truncated.nonzero()[:, 0]
        for numbers in cut.split(64) if len(cut) else ():
            part = episodes[numbers.numpy()]
            outputs = self.outputs(part, True).values
            if outputs is not None:
                values[numbers] = outputs[int(part.num_steps.sum()) :]
        return values


def as_subject(model: Any) -> Subject:
    """Return what ``inspect`` reads of a policy, an agent or an SB3 algorithm.

    Raises:
        TypeError: If it is none of them, or an SB3 algorithm without probabilities of actions.
        ValueError: If it does not act on token ids.
    """
    if isinstance(model, Agent):
        return _agent_subject(model)
    if isinstance(model, BasePolicy):
        lambda_ = 0.95 if isinstance(model, LMPolicy) else None
        return Subject(policy=model, outputs=_outputs_of(model), gae_lambda=lambda_)
    if isinstance(model, SB3Actor):
        return Subject(policy=model, outputs=model.outputs, gae_lambda=None)
    if _is_sb3(model):
        return _sb3_subject(model)
    raise TypeError(
        "inspect needs a policy with probabilities of tokens: an LMPolicy, QPolicy or ILQLPolicy, an agent, or an SB3 "
        f"algorithm; got {type(model).__name__}"
    )


def as_policy(model: Any) -> Any:
    """Return a policy of a name, a folder, an agent or a policy: what a reference or a checkpoint can be given as.

    Args:
        model: A policy; an agent; ``"tiny"`` or a Hugging Face name; a folder of ``policy.save_pretrained``,
            ``agent.save`` or ``RunFolder``; a language model.

    Raises:
        ValueError: If the name or folder holds no model.
    """
    if isinstance(model, BasePolicy):
        return model
    if isinstance(model, Agent):
        return model.policy
    if not isinstance(model, str | Path):
        return as_subject(model).policy if _is_sb3(model) or isinstance(model, SB3Actor) else LMPolicy(model)
    folder = Path(model)
    if (policy := find_checkpoint(folder) / "policy").is_dir():
        folder = policy
    if not (folder / "heads.safetensors").exists():
        return LMPolicy(folder if folder.is_dir() else model)
    settings = saved_settings(folder)[0].keys()
    for kind in (LMPolicy, QPolicy, ILQLPolicy):
        if settings == set(kind.settings):
            return kind.from_pretrained(folder)
    raise ValueError(f"{folder} holds a policy of another class (settings {sorted(settings)}): load it yourself")


def env_of(policy: Any, env: Any) -> Any:
    """Return the unwrapped environment, by default that of the agent or SB3 algorithm; None if there is none."""
    given = getattr(policy, "env", None) if env is None else env
    base = getattr(given, "unwrapped", given)
    if isinstance(base, CoreInterface):
        return base
    if env is not None:
        raise TypeError(f"env must be an environment of the TextGen family, got {type(base).__name__}")
    return None


def name_of(model: Any) -> str:
    """Return the name of a model in a report: that of its folder, or of its class."""
    return Path(model).name if isinstance(model, str | Path) else type(model).__name__


def _agent_subject(agent: Any) -> Subject:
    config = agent.config
    keeper = getattr(agent, "kl", None) or getattr(agent, "consistency", None)
    reference: ReferencePolicy | None = getattr(keeper, "reference", None)
    penalty, soft_temperature = 0.0, None
    if hasattr(agent, "kl") and config.kl_estimator == "k1":
        penalty = agent.kl.coef
    elif hasattr(agent, "consistency"):
        penalty = soft_temperature = config.temperature
    has_baseline = getattr(config, "baseline", None) == "value"
    outputs = _outputs_of(agent.policy)
    initial = None if reference is None else _outputs_of_reference(reference)
    if soft_temperature is not None and config.value_from == "logits":
        outputs = _with_values_of_logits(outputs, initial, soft_temperature)
    low = getattr(config, "clip_range", None)
    high = getattr(config, "clip_range_high", None)
    return Subject(
        policy=agent.policy,
        outputs=outputs,
        reference=initial,
        kl_reference=reference,
        gamma=getattr(config, "gamma", 1.0),
        gae_lambda=getattr(config, "gae_lambda", 1.0 if has_baseline else None),
        penalty=penalty,
        soft_temperature=soft_temperature,
        bootstraps=isinstance(config, CriticConfig) and config.bootstrap_truncated,
        clip_range=None if low is None else (low, low if high is None else high),
        normalizes_advantage=getattr(config, "normalize_advantage", False),
    )


def _outputs_of(policy: BasePolicy) -> Callable[[Episodes, bool], StateOutputs]:
    """Return ``Subject.outputs`` of one of our policies."""

    @torch.no_grad()
    def outputs(episodes: Episodes, with_truncated: bool) -> StateOutputs:
        rows, columns = episodes.states(with_truncated=with_truncated)
        valid = episodes.valid_actions(policy.vocab_size, with_truncated=with_truncated)
        if isinstance(policy, LMPolicy):
            actions = episodes.ids[rows, columns]  # arbitrary: their log-probabilities are not used
            states = policy.evaluate_states(
                episodes.ids, rows, columns, actions, valid, prompt_lengths=episodes.prompt_lengths
            )
            return _on_cpu(StateOutputs(states.logits, states.values))
        logits, hidden = policy.backbone.states(episodes.ids, rows, columns, episodes.prompt_lengths)
        if isinstance(policy, QPolicy):
            q, preferences = policy.from_hidden(logits, hidden, valid)
            behaviour = behaviour_log_probs(preferences, policy.epsilon, policy.temperature)
            soft = soft_values(preferences, policy.temperature)
            return _on_cpu(StateOutputs(behaviour, soft, q, soft))
        if isinstance(policy, ILQLPolicy):
            heads = policy.from_hidden(logits, hidden, valid)
            advantages = heads.target_q - heads.values[:, None]
            behaviour = masked(torch.log_softmax(logits, dim=-1) + policy.beta * advantages, valid)
            return _on_cpu(StateOutputs(behaviour, heads.values, heads.target_q))
        windows = _windows(episodes.ids, rows, columns, policy.vocab_size)
        behaviour, _, values = policy.action_preferences(windows, logits, hidden, valid)
        return _on_cpu(StateOutputs(behaviour, values))

    return outputs


def _outputs_of_reference(reference: ReferencePolicy) -> Callable[[Episodes, bool], StateOutputs]:
    """Return ``Subject.outputs`` of an agent's reference, which may be its policy with adapters disabled."""

    def outputs(episodes: Episodes, with_truncated: bool) -> StateOutputs:
        with reference.policy() as policy:
            return _outputs_of(policy)(episodes, with_truncated)

    return outputs


def _with_values_of_logits(
    outputs: Callable[[Episodes, bool], StateOutputs],
    reference: Callable[[Episodes, bool], StateOutputs] | None,
    temperature: float,
) -> Callable[[Episodes, bool], StateOutputs]:
    """Return ``outputs`` with V = T (log sum exp of the logits - that of the reference), the V of ``SoftQ``."""

    def with_values(episodes: Episodes, with_truncated: bool) -> StateOutputs:
        own = outputs(episodes, with_truncated)
        values = torch.logsumexp(own.logits, dim=1)
        if reference is not None:
            values = values - torch.logsumexp(reference(episodes, with_truncated).logits, dim=1)
        return own._replace(values=temperature * values)

    return with_values


def _on_cpu(outputs: StateOutputs) -> StateOutputs:
    given = {name: each for name, each in outputs._asdict().items() if each is not None}
    return outputs._replace(**{name: each.float().cpu() for name, each in given.items()})


def _windows(
    ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, pad: int, width: int | None = None
) -> npt.NDArray[np.int64]:
    """Return (M, L) int64 texts of the states, right-padded with V; L is ``width`` or that of the longest."""
    width = int(columns.max()) + 1 if width is None else width
    windows = np.full((len(rows), width), pad, dtype=np.int64)
    size = min(width, ids.shape[1])
    inside = torch.arange(size) <= columns[:, None]
    windows[:, :size] = torch.where(inside, ids[rows, :size], pad).numpy()
    return windows


# Stable-Baselines3


def _is_sb3(model: Any) -> bool:
    return hasattr(model, "policy") and hasattr(model, "get_parameters")


def _sb3_subject(model: Any) -> Subject:
    """Return the subject of an SB3 algorithm: with a language model of ours, or with any discrete policy on ids."""
    lm: Any = getattr(model.policy, "lm", None)
    q_net: Any = getattr(model.policy, "q_net", None)
    if isinstance(q_net, nn.Module) and isinstance(getattr(q_net, "backbone", None), LMBackbone):
        lm = QPolicy(q_net.backbone, lm_prior=False, head_gradient=True, min_p=0.0)
        lm.q_head, lm.epsilon = q_net.head, float(model.exploration_rate)
    policy: Any = lm if isinstance(lm, BasePolicy) else SB3Actor(model)
    outputs = _outputs_of(lm) if isinstance(lm, BasePolicy) else policy.outputs
    clip = getattr(model, "clip_range", None)
    epsilon = None if clip is None else float(clip(getattr(model, "_current_progress_remaining", 1.0)))
    return Subject(
        policy=policy,
        outputs=outputs,
        gamma=float(model.gamma),
        gae_lambda=getattr(model, "gae_lambda", None),
        bootstraps=hasattr(model, "gae_lambda"),  # SB3 bootstraps after the time limit
        clip_range=None if epsilon is None else (epsilon, epsilon),
    )


class SB3Actor:
    """Any discrete policy of SB3 that observes the token window, with the ``act`` of textgym's policies.

    Args:
        model: PPO, A2C, MaskablePPO or DQN.

    Raises:
        TypeError: If the policy gives neither probabilities nor Q-values, or does not observe token ids.
    """

    def __init__(self, model: Any) -> None:
        policy, space, actions = model.policy, model.observation_space, model.action_space
        self._has_q = hasattr(policy, "q_net")
        if not self._has_q and not hasattr(policy, "get_distribution"):
            raise TypeError(f"{type(policy).__name__} gives neither probabilities of actions nor Q-values")
        shape, high = getattr(space, "shape", None), getattr(space, "high", None)
        n = getattr(actions, "n", None)
        if shape is None or len(shape) != 1 or high is None or n is None or int(high.max()) != n:
            raise TypeError(
                "an SB3 policy is inspected where an action is a token id: it needs the spaces Box(0, V, (L,), int64) "
                f"of observation='tokens' and Discrete(V) of actions='vocabulary', got {space} and {actions}"
            )
        self.vocab_size, self._window, self._model = int(n), int(shape[0]), model
        self.device = torch.device("cpu")

    @torch.no_grad()
    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts; see ``Policy.act``."""
        outputs = self._of_windows(ids, action_masks)
        actions, log_probs, _ = choose(
            outputs.logits, deterministic=deterministic, preferences=outputs.q, generator=generator
        )
        values = np.zeros(len(ids), dtype=np.float32) if outputs.values is None else outputs.values.numpy()
        return ActionOutput(actions, log_probs, values)

    @torch.no_grad()
    def action_log_probs(
        self,
        ids: npt.NDArray[np.int64],
        actions: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return (N,) float32 log pi(a|s) of (N,) given actions, in nats; see ``BasePolicy.action_log_probs``."""
        logits = torch.log_softmax(self._of_windows(ids, action_masks).logits, dim=1)
        return logits.gather(1, torch.as_tensor(actions)[:, None])[:, 0].numpy()

    @torch.no_grad()
    def outputs(self, episodes: Episodes, with_truncated: bool) -> StateOutputs:
        """Return the outputs in the states of B episodes; see ``Subject.outputs``."""
        rows, columns = episodes.states(with_truncated=with_truncated)
        valid = episodes.valid_actions(self.vocab_size, with_truncated=with_truncated)
        return self._of_windows(_windows(episodes.ids, rows, columns, self.vocab_size, self._window), valid)

    def _of_windows(
        self, windows: npt.NDArray[np.int64], valid: torch.Tensor | npt.NDArray[np.bool_] | None
    ) -> StateOutputs:
        policy = self._model.policy
        observation, _ = policy.obs_to_tensor(windows)
        if self._has_q:
            q = masked(policy.q_net(observation), valid).float().cpu()
            epsilon = float(getattr(self._model, "exploration_rate", 0.0))
            return StateOutputs(behaviour_log_probs(q, epsilon, 0.0), q.amax(dim=1), q)
        logits = policy.get_distribution(observation).distribution.logits
        values = policy.predict_values(observation)[:, 0]
        return _on_cpu(StateOutputs(masked(logits, valid), values))
