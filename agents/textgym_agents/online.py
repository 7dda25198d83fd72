"""Base class of agents that collect their own episodes in an environment."""

import math
import os
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import nn
from typing_extensions import Self

from textgym import TextGenConfig
from textgym_agents.agent import Agent
from textgym_agents.checkpoint import find_checkpoint, open_checkpoint
from textgym_agents.config import AgentConfig, OnlineAgentConfig, check_count
from textgym_agents.episodes import Episodes
from textgym_agents.rollout import check_fit, check_observations, collect, env_seed, make_env, text_env

__all__ = ["OnlineAgent", "rollout_metrics"]


class OnlineAgent(Agent):
    """An agent that collects the episodes it learns from; subclasses set ``config_class`` and implement ``update``.

    An ``update`` computes targets, then calls ``backward`` with a loss function and ``optimizer_step`` on each of the
    ``minibatches``. With a value or Q head, ``config_class`` inherits from ``CriticConfig`` too.

    Args:
        policy: A policy of the algorithm's class, or its constructor's first argument, such as ``"tiny"``.
        env: A vector environment of the TextGen family whose actions are the model's vocabulary; or an id of the
            family, such as ``"TextGen-v0"``, of which one is made with autoreset mode ``SAME_STEP``.
        config: The hyper-parameters, if not given as keywords.
        num_envs: N of the environment to be made, by default ``num_episodes``, 64 at most.
        env_kwargs: Keywords of the environment to be made. If ``policy`` is a model's name or folder, ``model`` is by
            default the same.
        **settings: Fields of ``config_class``.

    Raises:
        TypeError: If ``env`` is not a batched TextGen environment, ``policy`` or ``config`` is another agent's, or a
            setting is unknown, given twice, or a keyword of the environment; or if ``num_envs`` or ``env_kwargs`` come
            with an environment.
        ValueError: If ``num_envs`` is less than 1, the action space is not the model's vocabulary, observations do not
            hold the token ids, or the window exceeds the model's positions.
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
        check_observations(env)
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
        value_function: nn.Module | None = None,
    ) -> Self:
        """Resume from a folder that ``save`` wrote.

        Args:
            path: The folder; or that of a ``Checkpoint`` or ``RunFolder``, whose newest checkpoint is loaded.
            env: The environment, configured as it was, or an id.
            num_envs: As in the constructor, by default as saved.
            env_kwargs: As in the constructor; ``model`` and ``group_size`` are by default as saved.
            device: Device of the weights. Generator states fit only the kind of device they were saved on.
            value_function: The module that the policy was given as ``value_function``, if that was not a name.

        Raises:
            FileNotFoundError: If the folder is not a checkpoint.
            TypeError: If ``env`` is missing.
            ValueError: If the checkpoint is another agent's, of another format or damaged, or does not fit ``env``.
        """
        if env is None:
            raise TypeError(f"{cls.__name__}.load(path, env) needs the env too, which no checkpoint holds")
        if isinstance(env, str):
            saved = open_checkpoint(find_checkpoint(Path(path)), cls.__name__)["env"]
            num_envs = saved["num_envs"] if num_envs is None else num_envs
            env_kwargs = saved["env_kwargs"] | (env_kwargs or {})
        modules = {} if value_function is None else {"value_function": value_function}
        return cls._load(path, env, device, modules=modules, num_envs=num_envs, env_kwargs=env_kwargs)

    def _env_defaults(self) -> dict[str, Any]:
        """Return default keywords of an environment to be made."""
        return {}

    def set_progress(self, progress: float) -> None:
        """Pass the fraction of the training that is done to the environment's scorer."""
        text_env(self.env).set_progress(progress)

    def learn_from(self, episodes: Episodes) -> dict[str, float]:
        """Update on the episodes that were scored and return all metrics."""
        metrics = rollout_metrics(episodes)
        scored = episodes.scored
        if not scored.all():
            metrics["rollout/scorer_failures"] = float((~scored).sum())
            if not scored.any():
                return metrics
            episodes = episodes[np.flatnonzero(scored)]
        return metrics | self.update(episodes)

    def collect(self) -> Episodes:
        """Collect ``config.num_episodes`` episodes with the policy, and count their tokens."""
        self.episodes = self._collect(self.config.num_episodes)
        return self.episodes

    def _collect(self, num_episodes: int) -> Episodes:
        """Collect some episodes with the policy, and count their tokens."""
        seed = env_seed(self.config.seed) if self.num_timesteps == 0 else None
        episodes = collect(
            self.env,
            self.policy,
            num_episodes,
            seed=seed,
            generator=self.generator,
            num_alternatives=self.num_alternatives,
        )
        self.num_timesteps += int(episodes.num_steps.sum())
        return episodes

    def _env_state(self) -> dict[str, Any]:
        env = text_env(self.env)
        model = env.config.model
        return {
            "rngs": env.get_rng_states(),
            "training": env.get_training_state(),
            "env_kwargs": {"group_size": env.config.group_size}
            | ({"model": os.fspath(model)} if isinstance(model, str | PathLike) else {}),
            "num_envs": env.num_envs,
        }

    def _set_env_state(self, state: dict[str, Any]) -> None:
        env = text_env(self.env)
        env.set_rng_states(state["rngs"])
        env.set_training_state(state["training"])


def rollout_metrics(episodes: Episodes) -> dict[str, float]:
    """Return mean return, length and score of episodes, and the mean of each component of a composed scorer.

    NaN scores (failed scorers) are ignored.
    """
    metrics = {
        "rollout/ep_rew_mean": float(episodes.returns.mean()),
        "rollout/ep_len_mean": float(episodes.num_steps.float().mean()),
        "rollout/score_mean": _mean([info["score"] for info in episodes.infos]),
    }
    components = [info.get("scores", {}) for info in episodes.infos]
    names = dict.fromkeys(name for scores in components for name in scores)
    if len(names) > 1:
        for name in names:
            metrics[f"rollout/score/{name}"] = _mean([scores.get(name, math.nan) for scores in components])
    return metrics


def _mean(scores: list[float]) -> float:
    """Return the mean of the scores that are not NaN."""
    known = np.array(scores, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan
