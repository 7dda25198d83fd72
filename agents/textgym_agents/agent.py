"""What all agents share: the loop of learn, predict, the gradient step, and checkpoints."""

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from torch import nn
from tqdm import tqdm
from typing_extensions import Self

from textgym import TextGenConfig
from textgym_agents.callbacks import as_callbacks
from textgym_agents.checkpoint import load_optimizer, open_checkpoint, save_optimizer, write_checkpoint
from textgym_agents.config import AgentConfig, OnlineAgentConfig, check_count
from textgym_agents.episodes import Episodes
from textgym_agents.metrics import rollout_metrics
from textgym_agents.policy import LMPolicy
from textgym_agents.rollout import check_fit, collect, env_seed, make_env, text_env, token_window

__all__ = ["Agent", "OnlineAgent"]


class Agent(ABC):
    """A policy that learns; each algorithm fills in ``update``, and ``collect`` says where the episodes come from.

    Attributes:
        policy: Chooses the tokens and is trained.
        config: The settings.
        optimizer: AdamW, of one group for the language model and one for the head on it.
        generator: Randomness of the training's sampling; ``predict`` has another.
        num_timesteps: Tokens that were written, or learned from where the data are given.
        planned_timesteps: ``num_timesteps`` at which training is done, all that ``learn`` was ever asked for.
        num_updates: Gradient steps.
        episodes: What the last update learned from, for callbacks such as ``EpisodeRecorder``.
    """

    config_class: ClassVar[type[AgentConfig]]
    policy_class: ClassVar[type[Any]] = LMPolicy
    policy: Any
    config: Any

    def __init__(self, policy: Any, config: AgentConfig | None = None, **settings: Any) -> None:
        name = type(self).__name__
        if isinstance(policy, gym.Env | VectorEnv):
            raise TypeError(f"{name}(policy, ...): the policy comes first, such as 'tiny', got {type(policy).__name__}")
        if config is not None and settings:
            raise TypeError(f"{name} takes its settings as keywords or as one config, got a config and {set(settings)}")
        self.config = self.config_class(**settings) if config is None else config
        if not isinstance(self.config, self.config_class):
            raise TypeError(f"{name} takes a {self.config_class.__name__}, got {type(self.config).__name__}")
        if isinstance(policy, nn.Module) and hasattr(policy, "backbone") and not isinstance(policy, self.policy_class):
            kind, got = self.policy_class.__name__, type(policy).__name__
            raise TypeError(
                f"{name} takes a policy of the kind {kind}, got {got}; for one on the same language "
                f"model give {kind}(policy.backbone)"
            )
        self.policy = policy if isinstance(policy, self.policy_class) else self.policy_class(policy)
        in_backbone = {id(p) for p in self.policy.backbone.parameters()}
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        # Not fused: a fused step leaves the parameters' version counters as they are, by which the stream notices that
        # its cache is out of date.
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in trained if id(p) in in_backbone], "lr": self.config.learning_rate},
                {"params": [p for p in trained if id(p) not in in_backbone], "lr": self.config.head_learning_rate},
            ],
            weight_decay=0.0,
        )
        # Children of a seed are independent of each other and of the environment's, which is the seed's own.
        self.generator, self._prediction_generator = (
            torch.Generator(self.policy.device).manual_seed(int(child.generate_state(1)[0]))
            for child in np.random.SeedSequence(self.config.seed).spawn(2)
        )
        self.num_timesteps = 0
        self.planned_timesteps = 0
        self.num_updates = 0
        self.episodes: Episodes | None = None

    @abstractmethod
    def collect(self) -> Episodes:
        """Return the episodes of the next update, which are ``episodes`` too, and count their tokens."""

    @abstractmethod
    def update(self, episodes: Episodes) -> dict[str, float]:
        """Learn from episodes and return metrics under SB3's names."""

    def set_progress(self, progress: float) -> None:  # noqa: B027 (data does not change with it)
        """Observe before each update which share of the training, 0 to 1, is done."""

    def learn(self, total_timesteps: int, callback: Any = None, progress_bar: bool = False) -> Self:
        """Train on at least ``total_timesteps`` further tokens.

        The progress of the training, which a scorer such as ``Schedule`` follows, is the share of all tokens that
        ``learn`` was ever asked for, as with SB3's ``reset_num_timesteps=False``: a second ``learn(n)`` after the first
        begins at 1/2. It is kept by ``save``. A run that was interrupted goes on exactly as if it had not been with
        ``agent.learn(agent.planned_timesteps - agent.num_timesteps)``, or in several such parts, where that is above 0:
        a run that ended by itself has written the rest of its last episodes too.

        Args:
            total_timesteps: Tokens, over all episodes.
            callback: A function, called as ``callback(agent, metrics)`` after each update, whose False stops the
                training; a ``Callback`` or another object with some of its hooks; or a list of these.
            progress_bar: Whether to show tokens/s, mean return and KL per token, in nats.

        Raises:
            ValueError: If ``total_timesteps`` is less than 1.
            TypeError: If ``total_timesteps`` is no integer, or ``callback`` is something else.
        """
        callbacks, total_timesteps = as_callbacks(callback), check_count("total_timesteps", total_timesteps)
        self.planned_timesteps = max(self.planned_timesteps, self.num_timesteps + total_timesteps)
        start, first = time.perf_counter(), self.num_timesteps
        with ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(total=total_timesteps, disable=not progress_bar, unit="tok", unit_scale=True)
            )
            for each in callbacks:
                each.on_training_start(self)
                stack.callback(each.on_training_end, self)
            while self.num_timesteps < first + total_timesteps:
                self.set_progress(self.num_timesteps / self.planned_timesteps)
                episodes = self.collect()
                for each in callbacks:
                    each.on_rollout_end(self, episodes)
                metrics = self.learn_from(episodes)
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
                if any(isinstance(answer, bool | np.bool_) and not answer for answer in answers):
                    break
        return self

    def learn_from(self, episodes: Episodes) -> dict[str, float]:
        """Update on the episodes and return all metrics that they give."""
        return self.update(episodes)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose actions, with SB3's signature, so that its ``evaluate_policy`` takes this agent.

        Args:
            observation: (N, L) or (L,) ids, or a dict that holds them.
            state: Returned as it came: the observation is the whole state.
            episode_start: Not needed, for the same reason.
            deterministic: Choose the best token instead of sampling, which draws from a generator of its own: whether
                and when it is called changes no training.
            action_masks: (N, V) or (V,) bool, the legal tokens.

        Returns:
            (N,) or () int64 actions, and ``state``.
        """
        ids = token_window(observation)
        masks = None if action_masks is None else np.atleast_2d(action_masks)
        choice = self.policy.act(
            np.atleast_2d(ids), masks, deterministic=deterministic, generator=self._prediction_generator
        )
        return (choice.actions[0] if ids.ndim == 1 else choice.actions), state

    def save(self, path: str | Path) -> None:
        """Write a folder from which ``load`` continues exactly: weights, optimizer, generators, counters.

        The folder appears at once and whole; an older checkpoint there is replaced.

        Raises:
            FileExistsError: If ``path`` holds something else than a checkpoint.
        """

        def write(folder: Path) -> dict[str, Any]:
            for name, network in self._networks().items():
                network.save_pretrained(folder / name)
            save_optimizer(folder / "optimizer.safetensors", self.optimizer)
            return {
                "algorithm": type(self).__name__,
                "config": asdict(self.config),
                "trained": [name for name, p in self.policy.named_parameters() if p.requires_grad],
                "num_timesteps": self.num_timesteps,
                "num_updates": self.num_updates,
                "planned_timesteps": self.planned_timesteps,
                "generators": [each.get_state().tolist() for each in (self.generator, self._prediction_generator)],
                "state": self._state(folder),
            }

        write_checkpoint(Path(path), write)

    @classmethod
    def _load(cls, path: str | Path, source: Any, device: str | torch.device, **keywords: Any) -> Self:
        """Make the agent of a checkpoint with ``source`` as the constructor's second argument."""
        if source is None:
            what = "env" if issubclass(cls, OnlineAgent) else "data"
            raise TypeError(f"{cls.__name__}.load(path, {what}) needs the {what} too, which no checkpoint holds")
        path = Path(path)
        content = open_checkpoint(path, cls.__name__)
        policy = cls.policy_class.from_pretrained(path / "policy", dtype="auto", device=device)
        trained = set(content["trained"])
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(name in trained)
        # Each algorithm's constructor takes (policy, source, config).
        agent: Self = cls(policy, source, cls.config_class(**content["config"]), **keywords)  # type: ignore[call-arg]
        for name, network in agent._networks().items():
            if name != "policy" and (path / name).is_dir():
                saved = type(network).from_pretrained(path / name, dtype="auto", device=device)
                network.load_state_dict(saved.state_dict())
        load_optimizer(path / "optimizer.safetensors", agent.optimizer)
        agent.num_timesteps, agent.num_updates = content["num_timesteps"], content["num_updates"]
        agent.planned_timesteps = content["planned_timesteps"]
        for generator, state in zip((agent.generator, agent._prediction_generator), content["generators"], strict=True):
            generator.set_state(torch.tensor(state, dtype=torch.uint8))
        agent._set_state(content["state"], path)
        return agent

    def minibatches(self, num_episodes: int, size: int | None, n_epochs: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the numbers 0 .. B-1 in random order, ``size`` at a time, all at once where it is None, n times."""
        for _ in range(n_epochs):
            if size is None or size >= num_episodes:
                yield np.arange(num_episodes)
                continue
            order = torch.randperm(num_episodes, generator=self.generator, device=self.generator.device).cpu().numpy()
            for start in range(0, num_episodes, size):
                yield order[start : start + size]

    def micro_batches(self, index: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the episodes of a minibatch as many at a time as one forward and backward should take."""
        size = self.config.micro_batch or len(index)
        for start in range(0, len(index), size):
            yield index[start : start + size]

    def _networks(self) -> dict[str, Any]:
        """Return the networks that a checkpoint has to hold, the policy among them."""
        return {"policy": self.policy}

    def _state(self, folder: Path) -> dict[str, Any]:
        """Return what else decides the rest of the run, as JSON; write tensors into files in the folder."""
        return {}

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:  # noqa: B027 (most agents have no more)
        """Restore what ``_state`` told."""

    def descend(self, losses: Iterable[torch.Tensor]) -> dict[str, float]:
        """Take one gradient step on the sum of losses and return its metrics; see ``_backward`` and ``_step``."""
        return self._backward(losses) | self._step()

    def _backward(self, losses: Iterable[torch.Tensor]) -> dict[str, float]:
        """Compute the gradient of the sum of losses, each of which is freed before the next is computed."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += float(loss.detach())
        return {"train/loss": total}

    def _step(self) -> dict[str, float]:
        """Clip the gradient and take the step.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are as they were.
        """
        grad_norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        if not grad_norm.isfinite():
            raise FloatingPointError(f"the gradient's norm is {float(grad_norm)} in update {self.num_updates + 1}")
        self.optimizer.step()
        self.num_updates += 1
        return {"train/grad_norm": float(grad_norm)}


class OnlineAgent(Agent):
    """An agent that writes the episodes it learns from; each algorithm fills in ``update``.

    An agent of your own sets ``config_class`` and fills in ``update``, from ``policy.evaluate``, ``minibatches``,
    ``micro_batches`` and ``descend``.

    Args:
        policy: A policy of the algorithm's kind, or what its constructor takes (``"tiny"``).
        env: A vector environment of the TextGen family whose actions are the model's vocabulary; or an id of the
            family, such as ``"TextGen-v0"``, of which one is made that restarts ended slots in the same step.
        config: The settings, where they are not given as keywords.
        num_envs: N of the environment to be made, by default ``num_episodes``, 64 at most.
        env_kwargs: Its keywords. If ``policy`` is a model's name or folder, that is the default of its ``model``.
        **settings: The fields of ``config``'s class.

    Raises:
        TypeError: If ``env`` is not the batched TextGen environment, ``policy`` or ``config`` another agent's, or a
            setting unknown or given twice.
        ValueError: If the action space is not the model's vocabulary, or the window longer than its positions.
    """

    config_class: ClassVar[type[OnlineAgentConfig]]

    def __init__(
        self,
        policy: Any,
        env: VectorEnv[Any, Any, Any] | str,
        config: AgentConfig | None = None,
        *,
        num_envs: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        own = {field.name for field in fields(self.config_class)}
        if of_env := {field.name for field in fields(TextGenConfig)} & (settings.keys() - own):
            raise TypeError(f"{', '.join(sorted(of_env))}: a keyword of the environment; give it in env_kwargs")
        super().__init__(policy, config, **settings)
        if isinstance(env, str):
            is_name = isinstance(policy, str | PathLike) and policy != "tiny"
            model = {"model": os.fspath(policy)} if is_name else {}
            env = make_env(
                env,
                min(self.config.num_episodes, 64) if num_envs is None else check_count("num_envs", num_envs),
                model | self._env_defaults() | (env_kwargs or {}),
            )
        elif num_envs is not None or env_kwargs is not None:
            raise TypeError(f"num_envs and env_kwargs are for an env that is given as an id, got {type(env).__name__}")
        check_fit(text_env(env), self.policy)
        self.policy.backbone.check_window(text_env(env).window)
        self.env: VectorEnv[Any, Any, Any] = env

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: VectorEnv[Any, Any, Any] | str | None = None,
        *,
        num_envs: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Continue from a folder that ``save`` wrote.

        Args:
            path: The folder.
            env: The environment, configured as it was, or an id.
            num_envs: As of the constructor, by default as many as there were.
            env_kwargs: As of the constructor; ``model`` and ``group_size`` are by default what they were.
            device: Where the weights go; the one that they were saved from, whose generator's state was saved too.

        Raises:
            FileNotFoundError: If the folder holds no checkpoint.
            TypeError: If ``env`` is missing.
            ValueError: If the checkpoint is of another agent or another version, was cut off, or does not fit ``env``.
        """
        if isinstance(env, str):
            state = open_checkpoint(Path(path), cls.__name__)["state"]
            num_envs = state["num_envs"] if num_envs is None else num_envs
            env_kwargs = state["env_kwargs"] | (env_kwargs or {})
        return cls._load(path, env, device, num_envs=num_envs, env_kwargs=env_kwargs)

    def _env_defaults(self) -> dict[str, Any]:
        """Return keywords of an environment to be made, where they are not given."""
        return {}

    def set_progress(self, progress: float) -> None:
        """Tell the environment's scorer which share of the training is done."""
        text_env(self.env).set_progress(progress)

    def learn_from(self, episodes: Episodes) -> dict[str, float]:
        """Update on those that were scored and return metrics; where a scorer failed, the reward was 0 for it."""
        metrics = rollout_metrics(episodes)
        scored = episodes.scored
        if not scored.all():
            metrics["rollout/scorer_failures"] = float((~scored).sum())
            if not scored.any():
                return metrics
            episodes = episodes[np.flatnonzero(scored)]
        return metrics | self.update(episodes)

    def collect(self) -> Episodes:
        """Let the policy write ``config.num_episodes`` episodes, and count their tokens."""
        seed = env_seed(self.config.seed) if self.num_timesteps == 0 else None
        self.episodes = collect(self.env, self.policy, self.config.num_episodes, seed=seed, generator=self.generator)
        self.num_timesteps += int(self.episodes.num_steps.sum())
        return self.episodes

    def _state(self, folder: Path) -> dict[str, Any]:
        env = text_env(self.env)
        model = env.config.model
        return {
            "env_rngs": env.get_rng_states(),
            "env_training": env.get_training_state(),
            "env_kwargs": {"group_size": env.config.group_size}
            | ({"model": os.fspath(model)} if isinstance(model, str | PathLike) else {}),
            "num_envs": env.num_envs,
        }

    def _set_state(self, state: dict[str, Any], folder: Path) -> None:
        env = text_env(self.env)
        env.set_rng_states(state["env_rngs"])
        env.set_training_state(state["env_training"])


def _summary(metrics: dict[str, float]) -> str:
    """Return what the progress bar says beside the speed."""
    words = []
    if "rollout/ep_rew_mean" in metrics:
        words.append(f"return {metrics['rollout/ep_rew_mean']:+.2f}")
    if not math.isnan(kl := metrics.get("train/kl_reference", math.nan)):
        words.append(f"KL {kl:.2f}")
    return ", ".join(words)
