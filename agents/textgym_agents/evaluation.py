"""Evaluation on held-out prompts in the course of a training, without changing it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv

from textgym.errors import unknown_name
from textgym.prompts import IndexedPrompts
from textgym_agents.callbacks import Callback, Schedule, Unit
from textgym_agents.config import Settings, check_count, check_settings
from textgym_agents.intervals import Bounds, mean_interval
from textgym_agents.policy import Policy
from textgym_agents.rollout import check_final_info, check_observations, collect, env_seed, text_env

__all__ = ["Evaluate", "EvaluationConfig", "pass_at_k"]

Floats = npt.NDArray[np.float64]

_NUM_PROMPTS = 64
"""Prompts of an evaluation that gives no number, at most."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Settings):
    """Settings of ``Evaluate``.

    Raises:
        TypeError: If a setting is unknown or of another type.
        ValueError: If a setting is out of range, or two contradict each other.
    """

    num_episodes: int | None = None
    """Episodes of an evaluation, a multiple of ``samples_per_prompt``. None is one per prompt and sample, of 64 prompts
    at most."""
    samples_per_prompt: int = 1
    """Episodes of each prompt."""
    indices: Sequence[int] | None = None
    """Indices of the prompts in the environment's prompt source, in place of ``num_episodes``; by default the first."""
    deterministic: bool = True
    """Whether the policy takes its best token, as with ``predict(deterministic=True)``, or samples."""
    success_score: float | None = None
    """Score from which on a text is a success. None logs no success rate."""
    pass_at: Sequence[int] = ()
    """Each k of which pass@k is estimated, at most ``samples_per_prompt``."""
    monitor: str = "mean_score"
    """The metric, without ``eval/``, that decides about ``best``, ``target`` and ``patience``; larger is better."""
    target: float | None = None
    """Value of the monitored metric at which training stops."""
    patience: int | None = None
    """Number of evaluations without a new best value after which training stops."""
    seed: int = 0
    """Seed of the sampling, of drawn prompts and of a simulated user, the same in every evaluation."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            num_episodes=(1, math.inf),
            samples_per_prompt=(1, math.inf),
            patience=(1, math.inf),
            seed=(0, math.inf),
        )
        n = self.samples_per_prompt
        if self.num_episodes is not None and self.indices is not None:
            raise ValueError("num_episodes and indices are mutually exclusive: the indices give the number of prompts")
        if self.num_episodes is not None and self.num_episodes % n:
            raise ValueError(f"num_episodes must be a multiple of samples_per_prompt={n}, got {self.num_episodes}")
        if n > 1 and self.deterministic:
            raise ValueError(
                f"samples_per_prompt={n} needs deterministic=False: without sampling the texts of a prompt are equal"
            )
        for k in self.pass_at:
            if check_count("pass_at", k) > n:
                raise ValueError(f"pass@{k} needs samples_per_prompt of at least {k}, got {n}")
        if self.pass_at and self.success_score is None:
            raise ValueError("pass_at needs success_score, the score from which on a text is a success")
        names = ["mean_score", "mean_reward", "mean_ep_length"]
        names += ["success_rate"] * (self.success_score is not None) + [f"pass_at_{k}" for k in self.pass_at]
        if self.monitor not in names:
            raise unknown_name("monitor", self.monitor, names)


class Evaluate(Callback):
    """Callback that evaluates every k updates or tokens: ``agent.learn(100_000, callback=Evaluate(held_out, 20))``.

    Each evaluation has the same prompts and random numbers. It acts with a copy of the policy, in a clone of the
    environment and with a generator of its own, so that the training is bit for bit the same without it; scorers do not
    observe the episodes. The metrics are added to those of the update, as Stable-Baselines3's ``EvalCallback`` names
    them, and loggers write them, in whatever order the callbacks are listed:

    | metric | meaning |
    | --- | --- |
    | ``eval/mean_reward``, ``mean_reward_low``, ``mean_reward_high`` | mean return and its 95 % interval |
    | ``eval/mean_score``, ``mean_score_low``, ``mean_score_high`` | the same of the score |
    | ``eval/mean_ep_length`` | mean number of steps |
    | ``eval/success_rate`` | share of episodes with a score of at least ``success_score`` |
    | ``eval/pass_at_<k>`` | see ``pass_at_k``; mean over prompts |
    | ``eval/scorer_failures`` | episodes left out because their scorer failed, if there are any |

    Intervals are those of ``mean_interval`` over the means of the prompts, so that they hold for prompts beyond those
    evaluated; NaN where all are equal and the scorer declares no range.

    Checkpoints hold the position in the schedule, the results and the best value, with which a resumed training goes
    on.

    Args:
        env: A vector environment of the TextGen family with held-out prompts. Of prompts that can be indexed the first
            are taken, each ``samples_per_prompt`` times; others are drawn, and several samples of each need
            ``group_size=samples_per_prompt``. Wrappers are not applied. The environment is not changed.
        every: k.
        config: The settings, if not given as keywords.
        unit: ``"updates"``, of ``learn``, or ``"tokens"``: after the first update at or past each multiple of k.
        best: Folder of the checkpoint of the best evaluation so far, for the agent's ``load``.
        **settings: Fields of ``EvaluationConfig``.

    Attributes:
        results: The metrics of each evaluation, with ``time/total_timesteps``.
        best_value: The largest value of the monitored metric so far; None before the first.

    Raises:
        TypeError: If ``env`` is of another family, a setting is unknown, or both config and settings are given.
        ValueError: If a setting is out of range, or the prompts are too few or cannot be indexed.

    >>> import gymnasium, textgym
    >>> from textgym_agents import Reinforce
    >>> held_out = gymnasium.make_vec("TextGen-v0", num_envs=8, prompts="openings:eval", max_new_tokens=4)
    >>> agent = Reinforce("tiny", "TextGen-v0", num_episodes=4, env_kwargs={"max_new_tokens": 4})
    >>> evaluate = Evaluate(held_out, 2, num_episodes=16)
    >>> agent.learn(64, callback=evaluate).num_updates, [row["time/total_timesteps"] for row in evaluate.results]
    (4, [32, 64])
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        every: int,
        config: EvaluationConfig | None = None,
        *,
        unit: Unit = "updates",
        best: str | Path | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            got = ", ".join(settings)
            raise TypeError(f"Evaluate takes its settings as keywords or as one config, got a config and {got}")
        self.config = EvaluationConfig(**settings) if config is None else config
        self.best = None if best is None else Path(best)
        self.results: list[dict[str, float]] = []
        self.best_value: float | None = None
        self._env = text_env(env)
        check_observations(env)
        check_final_info(self._env.config.final_info)
        self._indices = self._checked_indices()
        self._schedule = Schedule(check_count("every", every), unit)
        self._num_since_best = 0
        self._is_best = False

    def on_training_start(self, agent: Any) -> None:
        """Begin to count."""
        self._schedule.start(agent)

    def on_update_end(self, agent: Any, metrics: dict[str, float]) -> bool | None:
        """Evaluate the policy if it is time to, add the metrics, and return False to stop the training."""
        if not self._schedule.advance(agent):
            return None
        result = self.evaluate(agent.policy)
        metrics |= result
        self.results.append({"time/total_timesteps": agent.num_timesteps, **result})
        value, config = result.get(f"eval/{self.config.monitor}", math.nan), self.config
        self._is_best = value > (-math.inf if self.best_value is None else self.best_value)
        self._num_since_best = 0 if self._is_best else self._num_since_best + 1
        if self._is_best:
            self.best_value = value
        is_reached = config.target is not None and value >= config.target
        is_out_of_patience = config.patience is not None and self._num_since_best >= config.patience
        return False if is_reached or is_out_of_patience else None

    def on_update_complete(self, agent: Any, metrics: dict[str, float]) -> None:
        """Save the best agent so far."""
        if self._is_best and self.best is not None:
            agent.save(self.best)
        self._is_best = False

    def get_state(self) -> dict[str, Any]:
        """Return the position in the schedule, the results and the best value."""
        return {
            "schedule": self._schedule.get_state(),
            "results": self.results,
            "monitor": self.config.monitor,
            "best_value": self.best_value,
            "num_since_best": self._num_since_best,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state; without the best value, if that is of another metric."""
        self._schedule.set_state(state["schedule"])
        self.results = list(state["results"])
        if state["monitor"] == self.config.monitor:
            self.best_value, self._num_since_best = state["best_value"], state["num_since_best"]

    def evaluate(self, policy: Any) -> dict[str, float]:
        """Return the metrics of a policy, such as ``agent.policy``, which does not change."""
        # A copy, since the policy's own KV cache keeps prompts for as long as its weights stay the same.
        acting = policy.frozen_copy() if hasattr(policy, "frozen_copy") else policy
        scores, returns, lengths, prompts = self._play(acting)
        is_scored = ~np.isnan(scores)
        metrics: dict[str, float] = {}
        if not is_scored.all():
            metrics["eval/scorer_failures"] = float((~is_scored).sum())
        if not is_scored.any():
            return metrics
        scores, returns, lengths = (x[is_scored] for x in (scores, returns, lengths))
        prompts = prompts[is_scored]
        metrics |= _mean_metrics("eval/mean_reward", returns, prompts, None)
        metrics |= _mean_metrics("eval/mean_score", scores, prompts, self._env.core.components.scorer.score_range)
        metrics["eval/mean_ep_length"] = float(lengths.mean())
        if self.config.success_score is not None:
            is_success = scores >= self.config.success_score
            metrics["eval/success_rate"] = float(is_success.mean())
            numbers = [(int((prompts == p).sum()), int(is_success[prompts == p].sum())) for p in np.unique(prompts)]
            for k in self.config.pass_at:
                shares = [pass_at_k(n, c, k) for n, c in numbers if n >= k]
                metrics[f"eval/pass_at_{k}"] = float(np.mean(shares)) if shares else math.nan
        return metrics

    def _play(self, policy: Policy) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64]]:
        """Return (B,) scores, NaN if the scorer failed, (B,) returns, (B,) lengths, and (B,) numbers of the prompts."""
        config, env, seed = self.config, self._env.clone(), env_seed(self.config.seed)
        generator = torch.Generator(getattr(policy, "device", "cpu")).manual_seed(config.seed)
        if self._indices is None:
            size = config.num_episodes or _NUM_PROMPTS * config.samples_per_prompt
            parts = [collect(env, policy, size, seed=seed, deterministic=config.deterministic, generator=generator)]
            prompts = parts[0].groups().numpy() if config.samples_per_prompt > 1 else np.arange(size)
        else:
            rows = np.repeat(self._indices, config.samples_per_prompt)
            prompts = np.repeat(np.arange(len(self._indices)), config.samples_per_prompt)
            parts = []
            for start in range(0, len(rows), env.num_envs):
                chunk = rows[start : start + env.num_envs]
                index = np.resize(chunk, env.num_envs).tolist()  # the last chunk leaves sub-environments parked
                parts.append(
                    collect(
                        env,
                        policy,
                        len(chunk),
                        seed=seed + start,
                        options={"index": index},
                        deterministic=config.deterministic,
                        generator=generator,
                    )
                )
        scores = np.array([info["score"] for part in parts for info in part.infos], dtype=np.float64)
        scores[~np.concatenate([part.scored for part in parts])] = math.nan
        returns = np.concatenate([part.returns.double().numpy() for part in parts])
        return scores, returns, np.concatenate([part.num_steps.double().numpy() for part in parts]), prompts

    def _checked_indices(self) -> npt.NDArray[np.int64] | None:
        """Return the indices of the prompts, None where they are drawn."""
        config, source = self.config, self._env.core.components.prompts
        if not isinstance(source, IndexedPrompts):
            kind, group_size = type(source).__name__, self._env.config.group_size
            if config.indices is not None:
                raise ValueError(f"indices need prompts that can be indexed, {kind} cannot")
            if group_size != config.samples_per_prompt:
                raise ValueError(
                    f"{kind} draws its prompts: samples_per_prompt={config.samples_per_prompt} needs an environment of "
                    f"that group_size, got group_size={group_size}"
                )
            return None
        if config.indices is not None:
            indices = np.array([check_count("indices", index, least=0) for index in config.indices], dtype=np.int64)
        else:
            size = config.num_episodes
            indices = np.arange(min(_NUM_PROMPTS, len(source)) if size is None else size // config.samples_per_prompt)
        if not len(indices) > 0 or indices.max() >= len(source):
            raise ValueError(
                f"the environment has {len(source)} prompts, from 0 to {len(source) - 1}; the evaluation needs "
                f"{f'that of index {indices.max()}' if len(indices) else 'one at least'}: give fewer num_episodes, or "
                "other indices"
            )
        return indices


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k samples is a success: 1 - C(n - c, k) / C(n, k).

    Args:
        num_samples: n, samples of a prompt.
        num_correct: c, successes among them.
        k: From 1 to n.

    Raises:
        ValueError: If k or c is out of range.

    Source: Chen et al. 2021, Evaluating large language models trained on code (arXiv:2107.03374), equation 1.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.25, 0.5, 1.0)
    """
    if not 1 <= k <= num_samples or not 0 <= num_correct <= num_samples:
        raise ValueError(f"k and num_correct must be at most num_samples={num_samples}, got {k} and {num_correct}")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def _mean_metrics(name: str, values: Floats, prompts: npt.NDArray[np.int64], bounds: Bounds | None) -> dict[str, float]:
    """Return the mean of (B,) values over prompts, and its interval."""
    means = np.array([values[prompts == prompt].mean() for prompt in np.unique(prompts)])
    is_finite = bounds is not None and all(map(math.isfinite, bounds))
    low, high = mean_interval(means, bounds if is_finite else None)
    return {name: float(means.mean()), f"{name}_low": low, f"{name}_high": high}
