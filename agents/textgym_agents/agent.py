"""Base class of all agents: learn, predict, gradient steps, checkpoints."""

import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from torch import nn
from tqdm import tqdm
from typing_extensions import Self

from textgym_agents.callbacks import Callback, as_callbacks
from textgym_agents.checkpoint import (
    find_checkpoint,
    load_optimizer,
    load_part,
    open_checkpoint,
    save_optimizer,
    save_part,
    write_checkpoint,
)
from textgym_agents.config import AgentConfig, CriticConfig, check_count
from textgym_agents.episodes import Episodes
from textgym_agents.interrupts import defer_interrupts
from textgym_agents.policy import BasePolicy, LMPolicy
from textgym_agents.returns import check_equal_shapes
from textgym_agents.rollout import token_window

__all__ = ["Agent", "LossFunction", "mean_metrics"]

LossFunction = Callable[[Episodes], tuple[torch.Tensor, dict[str, torch.Tensor]]]
"""Episodes -> (B, T) loss of each step, with gradients, and (B, T) terms to log by name."""


class Agent(ABC):
    """A policy that learns; subclasses implement ``collect`` and ``update``.

    Attributes:
        policy: The policy that is trained.
        config: The hyper-parameters.
        optimizer: Adam, with one parameter group for the language model and, with a critic, one for the heads.
        generator: Random generator of the training; ``predict`` has its own.
        num_timesteps: Tokens collected, or drawn from given data.
        planned_timesteps: ``num_timesteps`` at which the training is done, by the calls of ``learn`` so far.
        num_updates: Gradient steps.
        episodes: Episodes of the last update, for callbacks such as ``EpisodeRecorder``.
        num_alternatives: What rollouts record of the distribution of each token; see ``collect``. Callbacks such as
            ``EpisodeRecorder`` set it; None records nothing.
        callbacks: Those of the current ``learn``; empty outside of it.
        is_in_update: Whether ``learn`` is collecting or updating, so that a checkpoint would not resume exactly; it
            stays True if that raised an exception.
    """

    config_class: ClassVar[type[AgentConfig]]
    policy_class: ClassVar[type[BasePolicy]] = LMPolicy
    checkpointed: ClassVar[tuple[str, ...]] = ()
    """Attributes that checkpoints hold besides the policy: networks, objects with ``save(folder) -> JSON`` and
    ``load(folder, JSON)``, or JSON values."""
    policy: Any
    config: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse a class without ``config_class``."""
        if not hasattr(cls, "config_class"):
            raise TypeError(f"{cls.__name__} has no config_class: set it, such as config_class = OnlineAgentConfig")
        return super().__new__(cls)

    def __init__(self, policy: Any, config: AgentConfig | None = None, **settings: Any) -> None:
        name = type(self).__name__
        if isinstance(policy, gym.Env | VectorEnv):
            raise TypeError(f"{name}(policy, ...): the policy comes first, such as 'tiny', got {type(policy).__name__}")
        if config is not None and settings:
            raise TypeError(f"{name} takes its settings as keywords or as one config, got a config and {set(settings)}")
        self.config = self.config_class(**settings) if config is None else config
        if not isinstance(self.config, self.config_class):
            raise TypeError(f"{name} takes a {self.config_class.__name__}, got {type(self.config).__name__}")
        if isinstance(policy, BasePolicy) and not isinstance(policy, self.policy_class):
            kind, got = self.policy_class.__name__, type(policy).__name__
            raise TypeError(
                f"{name} takes a policy of the kind {kind}, got {got}; for one on the same language "
                f"model give {kind}(policy.backbone)"
            )
        self.policy = policy if isinstance(policy, self.policy_class) else self.policy_class(policy)
        self.optimizer = self._make_optimizer()
        # Two streams spawned from the seed, independent of each other and of the environment's.
        self.generator, self._prediction_generator = (
            torch.Generator(self.policy.device).manual_seed(int(child.generate_state(1)[0]))
            for child in np.random.SeedSequence(self.config.seed).spawn(2)
        )
        self.num_timesteps = 0
        self.planned_timesteps = 0
        self.num_updates = 0
        self.episodes: Episodes | None = None
        self.num_alternatives: int | None = None
        self.is_in_update = False
        self.callbacks: list[Callback] = []
        self._callback_states: list[tuple[str, dict[str, Any]]] = []  # of callbacks that are not among these

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam over the language model and, if the agent has a critic, over the heads."""
        trained = [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]
        groups = [[p for name, p in trained if name.startswith("backbone.")]]
        if isinstance(self.config, CriticConfig):
            groups.append([p for name, p in trained if not name.startswith("backbone.")])
        # Not fused: a fused step does not advance the parameters' version counters, by which the KV cache notices
        # changed weights.
        rates = self._learning_rates()
        return torch.optim.Adam([{"params": p, "lr": rate} for p, rate in zip(groups, rates, strict=True)])

    def _learning_rates(self) -> list[float]:
        """Return the initial learning rate of each group of weights."""
        heads = [self.config.head_learning_rate] if isinstance(self.config, CriticConfig) else []
        return [self.config.learning_rate, *heads]

    @abstractmethod
    def collect(self) -> Episodes:
        """Return the episodes of the next update, store them as ``episodes``, and count their tokens."""

    @abstractmethod
    def update(self, episodes: Episodes) -> dict[str, float]:
        """Learn from episodes and return metrics under SB3's names."""

    def set_progress(self, progress: float) -> None:  # noqa: B027 (optional hook)
        """Called before each update with the fraction of the training that is done, 0 to 1."""

    def learn(self, total_timesteps: int, callback: Any = None, progress_bar: bool = False) -> Self:
        """Train on at least ``total_timesteps`` further tokens.

        Training progress, which scorers such as ``Schedule`` follow, is ``num_timesteps / planned_timesteps``, as
        with SB3's ``reset_num_timesteps=False``: a second ``learn(n)`` after the first begins at 1/2. Checkpoints hold
        it. To resume an interrupted run exactly, call ``agent.learn(agent.planned_timesteps - agent.num_timesteps)``,
        or several such parts, while that is above 0.

        In the main thread Ctrl-C takes effect after the update, when the callbacks have been called; a second one takes
        effect at once. That holds where Python's own handler of SIGINT is installed; another one is left alone.

        Args:
            total_timesteps: Tokens, over all episodes.
            callback: A function ``f(agent, metrics)``, called after each update, which stops the training by returning
                False; a ``Callback`` or another object with some of its hooks; or a list of these.
            progress_bar: Whether to show tokens/s, mean return and KL per token, in nats.

        Raises:
            ValueError: If ``total_timesteps`` is less than 1.
            TypeError: If ``total_timesteps`` is not an integer, or ``callback`` is something else.
            KeyboardInterrupt: After Ctrl-C; see above.
        """
        callbacks, total_timesteps = as_callbacks(callback), check_count("total_timesteps", total_timesteps)
        self._use_callbacks(callbacks)
        self.planned_timesteps = max(self.planned_timesteps, self.num_timesteps + total_timesteps)
        start, first = time.perf_counter(), self.num_timesteps
        with ExitStack() as stack:
            stack.callback(self._use_callbacks, [])
            interrupts = stack.enter_context(defer_interrupts())
            bar = stack.enter_context(
                tqdm(total=total_timesteps, disable=not progress_bar, unit="tok", unit_scale=True)
            )
            for each in callbacks:
                each.on_training_start(self)
                stack.callback(each.on_training_end, self)
            while self.num_timesteps < first + total_timesteps:
                progress = self.num_timesteps / self.planned_timesteps
                self.set_progress(progress)
                if self.config.learning_rate_schedule == "linear":
                    for group, learning_rate in zip(self.optimizer.param_groups, self._learning_rates(), strict=True):
                        group["lr"] = (1 - progress) * learning_rate
                self.is_in_update = True
                episodes = self.collect()
                for each in callbacks:
                    each.on_rollout_end(self, episodes)
                metrics = self.learn_from(episodes)
                self.is_in_update = False
                elapsed = time.perf_counter() - start
                metrics |= {
                    "time/total_timesteps": self.num_timesteps,
                    "train/n_updates": self.num_updates,
                    "time/time_elapsed": elapsed,
                    "time/fps": (self.num_timesteps - first) / elapsed,
                }
                bar.set_postfix_str(_summary(metrics), refresh=False)
                bar.update(min(self.num_timesteps - first, total_timesteps) - bar.n)
                answers = [each.on_update_end(self, metrics) for each in callbacks]
                for each in callbacks:
                    each.on_update_complete(self, metrics)
                interrupts.raise_pending(
                    f"{self.num_timesteps:,} of {self.planned_timesteps:,} tokens are done; to go on, call "
                    "agent.learn(agent.planned_timesteps - agent.num_timesteps)"
                )
                if any(isinstance(answer, bool | np.bool_) and not answer for answer in answers):
                    break
        return self

    def _use_callbacks(self, callbacks: list[Callback]) -> None:
        """Keep the states of the callbacks so far, and give those that were loaded to new ones of the same class."""
        self._callback_states = self._states_of_callbacks()
        self.callbacks = callbacks
        for each in callbacks:
            for index, (name, state) in enumerate(self._callback_states):
                if name == type(each).__name__:
                    each.set_state(state)
                    del self._callback_states[index]
                    break

    def _states_of_callbacks(self) -> list[tuple[str, dict[str, Any]]]:
        """Return class name and state of the callbacks that have a state."""
        states = [(type(each).__name__, each.get_state()) for each in self.callbacks]
        return self._callback_states + [(name, state) for name, state in states if state is not None]

    def learn_from(self, episodes: Episodes) -> dict[str, float]:
        """Update on episodes and return all metrics."""
        return self.update(episodes)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose actions, with SB3's signature, so that its ``evaluate_policy`` accepts this agent.

        Args:
            observation: (N, L) or (L,) ids, or a dict with ``"ids"``.
            state: Returned unchanged: the observation is the whole state.
            episode_start: Ignored, for the same reason.
            deterministic: Choose the best token instead of sampling. Sampling has its own generator and does not
                change the training.
            action_masks: (N, V) or (V,) bool, True where a token is valid.

        Returns:
            (N,) or () int64 actions, and ``state``.
        """
        ids = token_window(observation)
        masks = None if action_masks is None else np.atleast_2d(action_masks)
        output = self.policy.act(
            np.atleast_2d(ids), masks, deterministic=deterministic, generator=self._prediction_generator
        )
        return (output.actions[0] if ids.ndim == 1 else output.actions), state

    # Gradient steps

    def minibatches(self, episodes: Episodes, size: int | None, n_epochs: int) -> Iterator[Episodes]:
        """Yield random minibatches of ``size`` episodes for ``n_epochs`` epochs; None yields all at once."""
        for _ in range(n_epochs):
            if size is None or size >= len(episodes):
                yield episodes
                continue
            order = torch.randperm(len(episodes), generator=self.generator, device=self.generator.device).cpu().numpy()
            for start in range(0, len(episodes), size):
                yield episodes[order[start : start + size]]

    def backward(
        self, minibatch: Episodes, loss: LossFunction, weights: torch.Tensor | None = None
    ) -> dict[str, float]:
        """Compute the gradient of the loss of a minibatch, ``micro_batch`` episodes at a time.

        Args:
            minibatch: B episodes.
            loss: The loss function, called with some of the episodes.
            weights: (B, 1) weight of the steps of each episode in the sum over steps. By default 1 / number of steps of
                the minibatch: the mean over steps.

        Returns:
            ``"train/loss"``, and for each logged term its mean over steps.

        Raises:
            ValueError: If the loss or a term is not (B, T), or ``weights`` is not (B, 1).
        """
        self.policy.zero_grad(set_to_none=True)  # also of weights that another agent trained
        num_steps, size = int(minibatch.num_steps.sum()), self.config.micro_batch or len(minibatch)
        if weights is None:
            weights = torch.full((len(minibatch), 1), 1 / num_steps, dtype=torch.float64)
        if weights.shape != (len(minibatch), 1):
            raise ValueError(f"weights must be (B, 1) = ({len(minibatch)}, 1), got {tuple(weights.shape)}")
        total, sums = 0.0, defaultdict[str, float](float)
        for start in range(0, len(minibatch), size):
            part = minibatch if size >= len(minibatch) else minibatch[start : start + size]
            losses, terms = loss(part)
            check_equal_shapes(mask=part.mask, loss=losses, **terms)
            weighted = (losses * weights[start : start + size])[part.mask].sum()
            if weighted.requires_grad:  # not if the language model is frozen and V is fitted
                weighted.backward()
            total += float(weighted.detach())
            for name, term in terms.items():
                sums[name] += float(term.detach()[part.mask].sum())
        return {"train/loss": total} | {f"train/{name}": value / num_steps for name, value in sums.items()}

    def optimizer_step(self) -> dict[str, float]:
        """Clip the gradient, take one optimizer step, and return the norm of the gradient before clipping.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
            ValueError: If weights with a gradient are not in the optimizer.
        """
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if lost := [n for n, p in self.policy.named_parameters() if p.grad is not None and id(p) not in trained]:
            raise ValueError(
                f"the loss has a gradient for {', '.join(lost)}, which the optimizer does not train. To train a head, "
                f"derive {type(self.config).__name__} from CriticConfig too; to leave it as it is, detach its output; "
                "to train further weights of the model, unfreeze them before the agent is constructed"
            )
        grad_norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        if not grad_norm.isfinite():
            raise FloatingPointError(f"the gradient's norm is {float(grad_norm)} in update {self.num_updates + 1}")
        self.optimizer.step()
        self.num_updates += 1
        return {"train/grad_norm": float(grad_norm)}

    # Checkpoints

    def save(self, path: str | Path) -> None:
        """Write a folder from which ``load`` resumes exactly: weights, optimizer, generators, counters.

        An older checkpoint is replaced only after all files are written.

        Raises:
            FileExistsError: If ``path`` holds something other than a checkpoint.
        """

        def write(folder: Path) -> dict[str, Any]:
            self.policy.save_pretrained(folder / "policy")
            save_optimizer(folder / "optimizer.safetensors", self.optimizer)
            return {
                "algorithm": type(self).__name__,
                "config": asdict(self.config),
                "trained": [name for name, p in self.policy.named_parameters() if p.requires_grad],
                "num_timesteps": self.num_timesteps,
                "num_updates": self.num_updates,
                "planned_timesteps": self.planned_timesteps,
                "generators": [each.get_state().tolist() for each in (self.generator, self._prediction_generator)],
                "state": {name: save_part(getattr(self, name), folder / name) for name in self.checkpointed},
                "callbacks": self._states_of_callbacks(),
                "env": self._env_state(),
            }

        write_checkpoint(Path(path), write)

    @classmethod
    def _load(
        cls,
        path: str | Path,
        source: Any,
        device: str | torch.device,
        *,
        modules: dict[str, nn.Module] | None = None,
        **keywords: Any,
    ) -> Self:
        """Load a checkpoint, with ``source`` as the constructor's second argument: the environment or the data."""
        path = find_checkpoint(Path(path))
        content = open_checkpoint(path, cls.__name__)
        policy = cls.policy_class.from_pretrained(path / "policy", dtype="auto", device=device, **(modules or {}))
        trained = set(content["trained"])
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(name in trained)
        # Each algorithm's constructor takes (policy, source, config).
        agent: Self = cls(policy, source, cls.config_class(**content["config"]), **keywords)  # type: ignore[call-arg]
        load_optimizer(path / "optimizer.safetensors", agent.optimizer)
        agent.num_timesteps, agent.num_updates = content["num_timesteps"], content["num_updates"]
        agent.planned_timesteps = content["planned_timesteps"]
        for generator, state in zip((agent.generator, agent._prediction_generator), content["generators"], strict=True):
            generator.set_state(torch.tensor(state, dtype=torch.uint8))
        for name in cls.checkpointed:
            setattr(agent, name, load_part(getattr(agent, name), path / name, content["state"][name]))
        agent._callback_states = [(name, state) for name, state in content["callbacks"]]
        agent._set_env_state(content["env"])
        return agent

    def _env_state(self) -> dict[str, Any]:
        """Return the state of the environment, as JSON."""
        return {}

    def _set_env_state(self, state: dict[str, Any]) -> None:  # noqa: B027 (offline agents have no environment)
        """Restore what ``_env_state`` returned."""


def mean_metrics(steps: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the gradient steps that have it.

    >>> mean_metrics([{"train/loss": 1.0, "train/grad_norm": 4.0}, {"train/loss": 2.0}])
    {'train/loss': 1.5, 'train/grad_norm': 4.0}
    """
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: fmean(step[name] for step in steps if name in step) for name in names}


def _summary(metrics: dict[str, float]) -> str:
    """Return the text of the progress bar."""
    words = []
    if "rollout/ep_rew_mean" in metrics:
        words.append(f"return {metrics['rollout/ep_rew_mean']:+.2f}")
    if not math.isnan(kl := metrics.get("train/kl_reference", math.nan)):
        words.append(f"KL {kl:.2f}")
    return ", ".join(words)
