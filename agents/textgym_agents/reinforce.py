"""REINFORCE with a learned baseline and a KL penalty to the language model that training started from."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from tqdm import tqdm

from textgym.documented import documented_fields
from textgym_agents.checkpoint import load_json, load_optimizer, save_json, save_optimizer
from textgym_agents.losses import baseline_loss, explained_variance, masked_mean, normalized, policy_gradient_loss
from textgym_agents.policy import Evaluation, LMPolicy
from textgym_agents.returns import discounted_returns
from textgym_agents.rollout import Episodes, check_fit, collect, text_env, token_window

__all__ = ["Reinforce", "ReinforceConfig"]

Callback = Callable[["Reinforce", dict[str, float]], bool | None]


@documented_fields
@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """What decides a run besides the policy and the environment."""

    num_episodes: int = 64
    """Episodes per update; one gradient step is taken on all of them."""
    learning_rate: float = 3e-4
    """Of AdamW, for the language model."""
    value_learning_rate: float = 3e-3
    """Of AdamW, for the value head, which starts from nothing and has to keep up with the language model."""
    gamma: float = 1.0
    """Discount per token."""
    kl_coef: float = 0.05
    """Reward that a nat of KL to the reference, the policy at the start, costs token by token. With 0 the KL is not
    computed. The environment's own ``kl_coef`` serves agents without this one; set only one of them."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus in the loss."""
    vf_coef: float = 0.5
    """Weight of the baseline's loss."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    normalize_advantage: bool = True
    """Whether advantages are shifted and scaled to mean 0 and standard deviation 1 in each batch."""
    bootstrap_truncated: bool = False
    """Whether V of the last state is added where the budget cut an episode off. Off, the budget's end counts as the
    text's end, which is right where the score of the cut text was already given."""
    seed: int = 0
    """Decides the prompts and the sampling."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("num_episodes", 1, math.inf),
            ("learning_rate", 0, math.inf),
            ("value_learning_rate", 0, math.inf),
            ("gamma", 0, 1),
            ("kl_coef", 0, math.inf),
            ("ent_coef", 0, math.inf),
            ("vf_coef", 0, math.inf),
            ("max_grad_norm", 0, math.inf),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
                raise ValueError(f"{name} must be {wanted}, got {value!r}")


class Reinforce:
    """Monte-Carlo policy gradient on whole episodes.

    Per update: collect B episodes; subtract ``kl_coef * (log pi(a_t|s_t) - log pi_ref(a_t|s_t))`` from each reward;
    G_t = discounted return; A_t = G_t - V(s_t); one step of AdamW on

        loss = -mean[A_t log pi(a_t|s_t)] + vf_coef * mean[(V(s_t) - G_t)^2 / 2] - ent_coef * mean[H(pi(.|s_t))]

    What differs from Williams 1992: the learned baseline, normalised advantages, the KL penalty (Ziegler et al. 2019,
    arXiv:1909.08593), and AdamW. One forward and backward over the (B, W) ids serve all T steps.

    Args:
        policy: An ``LMPolicy``, or what its constructor takes (``"tiny"``).
        env: A vector environment of the TextGen family whose actions are the model's vocabulary.
        config: The settings.

    Raises:
        TypeError: If ``env`` is not the batched TextGen environment.
        ValueError: If the action space is not the model's vocabulary.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=4, max_new_tokens=4, autoreset_mode="SameStep")
    >>> agent = Reinforce("tiny", env, ReinforceConfig(num_episodes=4)).learn(16)
    >>> agent.num_timesteps >= 16
    True
    """

    def __init__(
        self, policy: LMPolicy | Any, env: VectorEnv[Any, Any, Any], config: ReinforceConfig | None = None
    ) -> None:
        self.env = env
        self.policy = policy if isinstance(policy, LMPolicy) else LMPolicy(policy)
        check_fit(text_env(env), self.policy)
        self.config = ReinforceConfig() if config is None else config
        self.reference = self.policy.frozen_copy()
        # Not fused: a fused step leaves the parameters' version counters as they are, by which the stream notices that
        # its cache is out of date.
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.policy.model.parameters(), "lr": self.config.learning_rate},
                {"params": self.policy.value_head.parameters(), "lr": self.config.value_learning_rate},
            ],
            weight_decay=0.0,
        )
        self.generator = torch.Generator(self.policy.device).manual_seed(self.config.seed)
        self.num_timesteps = 0
        self.num_updates = 0

    def learn(self, total_timesteps: int, callback: Callback | None = None, progress_bar: bool = False) -> "Reinforce":
        """Train until at least ``total_timesteps`` further tokens have been written.

        Args:
            total_timesteps: Tokens, over all slots.
            callback: Called as ``callback(agent, metrics)`` after each update; False stops the training.
            progress_bar: Whether to show tokens/s, mean return and KL per token, in nats.

        Raises:
            ValueError: If ``total_timesteps`` is less than 1.
        """
        if total_timesteps < 1:
            raise ValueError(f"total_timesteps must be at least 1, got {total_timesteps}")
        start, until = time.perf_counter(), self.num_timesteps + total_timesteps
        first = self.num_timesteps
        with tqdm(total=total_timesteps, disable=not progress_bar, unit="tok", unit_scale=True) as bar:
            while self.num_timesteps < until:
                seed = self.config.seed if self.num_timesteps == 0 else None
                episodes = collect(self.env, self.policy, self.config.num_episodes, seed=seed, generator=self.generator)
                self.num_timesteps += int(episodes.num_steps.sum())
                metrics = self.update(episodes)
                elapsed = time.perf_counter() - start
                metrics["time/time_elapsed"] = elapsed
                metrics["time/fps"] = (self.num_timesteps - first) / elapsed
                kl = f", KL {metrics['train/kl_reference']:.2f}" if self.config.kl_coef > 0 else ""
                bar.set_postfix_str(f"return {metrics['rollout/ep_rew_mean']:+.2f}{kl}", refresh=False)
                bar.update(min(int(episodes.num_steps.sum()), total_timesteps - bar.n))
                if callback is not None and callback(self, metrics) is False:
                    break
        return self

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        ``train/kl_reference`` is NaN where ``kl_coef`` is 0.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are as they were.
        """
        config, mask = self.config, episodes.mask
        now = self.policy.evaluate(episodes, entropy_gradient=config.ent_coef != 0)
        kl = self._kl(episodes, now)
        returns = discounted_returns(
            episodes.rewards if kl is None else episodes.rewards - config.kl_coef * kl,
            episodes.num_steps,
            config.gamma,
            now.last_values * episodes.truncated if config.bootstrap_truncated else None,
        )
        advantages = returns - now.values.detach()
        if config.normalize_advantage:
            advantages = normalized(advantages, mask)
        policy_loss = policy_gradient_loss(now.log_probs, advantages, mask)
        value_loss = baseline_loss(now.values, returns, mask)
        entropy = masked_mean(now.entropies, mask)
        loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)
        if not grad_norm.isfinite():
            raise FloatingPointError(f"the gradient's norm is {float(grad_norm)} in update {self.num_updates + 1}")
        self.optimizer.step()
        self.num_updates += 1
        return _rollout_metrics(episodes) | {
            "time/total_timesteps": self.num_timesteps,
            "train/n_updates": self.num_updates,
            "train/loss": float(loss.detach()),
            "train/policy_gradient_loss": float(policy_loss.detach()),
            "train/value_loss": float(value_loss.detach()),
            "train/entropy_loss": -float(entropy.detach()),
            "train/explained_variance": explained_variance(now.values.detach(), returns, mask),
            "train/kl_reference": math.nan if kl is None else float(masked_mean(kl, mask)),
            "train/grad_norm": float(grad_norm),
        }

    def _kl(self, episodes: Episodes, now: Evaluation) -> torch.Tensor | None:
        """Return (B, T) log pi(a_t|s_t) - log pi_ref(a_t|s_t), or None where it costs nothing."""
        if self.config.kl_coef == 0:
            return None
        with torch.no_grad():
            return now.log_probs.detach() - self.reference.evaluate(episodes).log_probs

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
            deterministic: Choose the likeliest token instead of sampling, which draws from the training's generator.
            action_masks: (N, V) or (V,) bool, the legal tokens.

        Returns:
            (N,) or () int64 actions, and ``state``.
        """
        ids = token_window(observation)
        masks = None if action_masks is None else np.atleast_2d(action_masks)
        choice = self.policy.act(np.atleast_2d(ids), masks, deterministic=deterministic, generator=self.generator)
        return (choice.actions[0] if ids.ndim == 1 else choice.actions), state

    def save(self, path: str | Path) -> None:
        """Write a folder from which ``load`` continues exactly: weights, reference, optimizer, generators, counters."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self.policy.save_pretrained(path / "policy")
        self.reference.save_pretrained(path / "reference")
        save_optimizer(path / "optimizer.safetensors", self.optimizer)
        content = {
            "algorithm": "Reinforce",
            "config": asdict(self.config),
            "num_timesteps": self.num_timesteps,
            "num_updates": self.num_updates,
            "generator": self.generator.get_state().tolist(),
            "env_rngs": text_env(self.env).get_rng_states(),
        }
        save_json(path / "agent.json", content)

    @classmethod
    def load(
        cls, path: str | Path, env: VectorEnv[Any, Any, Any], *, device: str | torch.device = "cpu"
    ) -> "Reinforce":
        """Continue from a folder that ``save`` wrote, on an environment configured as it was.

        Args:
            path: The folder.
            env: The environment.
            device: Where the weights go; the one that they were saved from, whose generator's state was saved too.

        Raises:
            FileNotFoundError: If the folder holds no checkpoint.
            ValueError: If the environment has another number of slots, or other actions.
        """
        path = Path(path)
        content = load_json(path / "agent.json")
        policy = LMPolicy.from_pretrained(path / "policy", dtype="auto", device=device)
        agent = cls(policy, env, ReinforceConfig(**content["config"]))
        reference = LMPolicy.from_pretrained(path / "reference", dtype="auto", device=device)
        agent.reference = reference.requires_grad_(False)
        load_optimizer(path / "optimizer.safetensors", agent.optimizer)
        agent.num_timesteps, agent.num_updates = content["num_timesteps"], content["num_updates"]
        agent.generator.set_state(torch.tensor(content["generator"], dtype=torch.uint8))
        text_env(env).set_rng_states(content["env_rngs"])
        return agent


def _rollout_metrics(episodes: Episodes) -> dict[str, float]:
    """Return what the episodes say about themselves; a score that is NaN, where the scorer failed, does not count."""
    scores = np.array([info["score"] for info in episodes.infos], dtype=np.float64)
    scored = scores[~np.isnan(scores)]
    return {
        "rollout/ep_rew_mean": float(episodes.returns.mean()),
        "rollout/ep_len_mean": float(episodes.num_steps.float().mean()),
        "rollout/score_mean": float(scored.mean()) if scored.size else math.nan,
    }
