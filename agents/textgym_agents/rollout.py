"""Whole episodes, collected from a vector environment while slots end and restart at different times."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from textgym import TextGenVectorEnv
from textgym_agents.policy import LMPolicy

__all__ = ["Episodes", "collect"]


@dataclass
class Episodes:
    """B whole episodes, right-padded: ids as written, and (B, T) arrays with one entry per action.

    Step t of episode b chose the token ``ids[b, prompt_lengths[b] + t]``.
    """

    ids: torch.Tensor
    """(B, W) int64, prompt and completion, then 0."""
    prompt_lengths: torch.Tensor
    """(B,) int64 tokens."""
    num_steps: torch.Tensor
    """(B,) int64 actions, at least 1."""
    rewards: torch.Tensor
    """(B, T) float32, 0 after the end."""
    log_probs: torch.Tensor
    """(B, T) float32, log-probability of each action under the policy that chose it, in nats."""
    truncated: torch.Tensor
    """(B,) bool, cut off by the budget rather than ended."""
    action_masks: npt.NDArray[np.uint8] | None
    """(B, T, ceil(V / 8)) bits of the legal actions, as ``numpy.packbits`` packs them; None where all are legal."""
    infos: list[dict[str, Any]]
    """B times the last step's info."""

    @property
    def mask(self) -> torch.Tensor:
        """(B, T) bool, True at the steps that were taken."""
        return torch.arange(self.rewards.shape[1]) < self.num_steps[:, None]

    @property
    def returns(self) -> torch.Tensor:
        """(B,) float32, undiscounted."""
        return self.rewards.sum(dim=1)

    def __len__(self) -> int:
        return len(self.ids)


class _Recorder:
    """Arrays for the episodes 0 .. B-1, filled step by step as slots work on them."""

    def __init__(self, num_episodes: int, window: int, max_new_tokens: int, vocab_size: int | None) -> None:
        self.ids = np.zeros((num_episodes, window), dtype=np.int64)
        self.prompt_lengths = np.zeros(num_episodes, dtype=np.int64)
        self.num_steps = np.zeros(num_episodes, dtype=np.int64)
        self.rewards = np.zeros((num_episodes, max_new_tokens), dtype=np.float32)
        self.log_probs = np.zeros((num_episodes, max_new_tokens), dtype=np.float32)
        self.truncated = np.zeros(num_episodes, dtype=np.bool_)
        self.infos: list[dict[str, Any]] = [{}] * num_episodes
        self.masks = None
        if vocab_size is not None:
            self.masks = np.zeros((num_episodes, max_new_tokens, -(-vocab_size // 8)), dtype=np.uint8)

    def start(self, episodes: npt.NDArray[np.int64], windows: npt.NDArray[np.int64], pad_token_id: int) -> None:
        is_token = windows != pad_token_id
        self.ids[episodes] = np.where(is_token, windows, 0)
        self.prompt_lengths[episodes] = is_token.sum(axis=1)

    def record(
        self,
        episodes: npt.NDArray[np.int64],
        actions: npt.NDArray[np.int64],
        log_probs: npt.NDArray[np.float32],
        rewards: npt.NDArray[np.float64],
        masks: npt.NDArray[np.bool_] | None,
    ) -> None:
        step = self.num_steps[episodes]
        self.ids[episodes, self.prompt_lengths[episodes] + step] = actions
        self.log_probs[episodes, step] = log_probs
        self.rewards[episodes, step] = rewards
        if self.masks is not None and masks is not None:
            self.masks[episodes, step] = np.packbits(masks, axis=1)
        self.num_steps[episodes] += 1

    def episodes(self) -> Episodes:
        width = int((self.prompt_lengths + self.num_steps).max())
        longest = int(self.num_steps.max())
        return Episodes(
            ids=torch.from_numpy(self.ids[:, :width]),
            prompt_lengths=torch.from_numpy(self.prompt_lengths),
            num_steps=torch.from_numpy(self.num_steps),
            rewards=torch.from_numpy(self.rewards[:, :longest]),
            log_probs=torch.from_numpy(self.log_probs[:, :longest]),
            truncated=torch.from_numpy(self.truncated),
            action_masks=None if self.masks is None else self.masks[:, :longest],
            infos=self.infos,
        )


def collect(
    env: VectorEnv[Any, Any, Any],
    policy: LMPolicy,
    num_episodes: int,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    deterministic: bool = False,
    generator: torch.Generator | None = None,
) -> Episodes:
    """Reset the environment and run the policy until the first ``num_episodes`` episodes that start have ended.

    Taking the first that *end* instead would favour short texts. A slot that ends early takes the next episode at
    once; when none is left it idles: it is not fed to the model, and what it writes is dropped.

    Args:
        env: A vector environment of the TextGen family, in any autoreset mode (``SAME_STEP`` wastes no step).
        policy: Chooses the tokens.
        num_episodes: B. A multiple of ``env.num_envs`` keeps the slots busy.
        seed: Passed to ``env.reset``.
        options: Passed to ``env.reset``.
        deterministic: Choose the likeliest token instead of sampling.
        generator: Randomness of the sampling.

    Raises:
        ValueError: If ``num_episodes`` is less than 1.
        TypeError: If the environment is of another family.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}")
    base = text_env(env)
    mode = env.metadata["autoreset_mode"]
    recorder = _Recorder(
        num_episodes, base.window, base.max_new_tokens, policy.vocab_size if base.has_illegal_actions else None
    )
    observations, _ = env.reset(seed=seed, options=options)
    episode = np.arange(env.num_envs)
    episode[num_episodes:] = -1
    num_started = min(env.num_envs, num_episodes)
    recorder.start(episode[:num_started], token_window(observations)[:num_started], base.pad_token_id)
    fresh = np.zeros(env.num_envs, dtype=np.bool_)  # slots whose next step only resets them (NEXT_STEP)
    num_left = num_episodes
    while num_left:
        active = (episode >= 0) & ~fresh
        masks = base.action_masks() if base.has_illegal_actions else None
        choice = policy.act(
            token_window(observations), masks, active=active, deterministic=deterministic, generator=generator
        )
        observations, rewards, terminated, truncated, infos = env.step(choice.actions)
        slots = np.flatnonzero(active)
        recorder.record(
            episode[slots],
            choice.actions[slots],
            choice.log_probs[slots],
            rewards[slots],
            None if masks is None else masks[slots],
        )
        done = terminated | truncated
        for slot in np.flatnonzero(done & active).tolist():
            recorder.truncated[episode[slot]] = truncated[slot]
            recorder.infos[episode[slot]] = _info_of(infos.get("final_info", infos), slot)
            num_left -= 1
        if mode is AutoresetMode.DISABLED and done.any():
            observations, _ = env.reset(options={"reset_mask": done})
        started = fresh if mode is AutoresetMode.NEXT_STEP else done
        slots = np.flatnonzero(started)
        if slots.size:
            numbers = num_started + np.arange(slots.size)
            episode[slots] = np.where(numbers < num_episodes, numbers, -1)
            num_started = min(num_started + slots.size, num_episodes)
            slots = slots[episode[slots] >= 0]
            recorder.start(episode[slots], token_window(observations)[slots], base.pad_token_id)
        fresh = done if mode is AutoresetMode.NEXT_STEP else fresh
    return recorder.episodes()


def text_env(env: VectorEnv[Any, Any, Any]) -> TextGenVectorEnv:
    """Return the TextGen environment under any wrappers.

    Raises:
        TypeError: If there is none: a single environment, or another vector environment around single ones.
    """
    base = getattr(env, "unwrapped", env)
    if not isinstance(base, TextGenVectorEnv):
        raise TypeError(
            "an LM policy needs the batched environment that gym.make_vec('TextGen-v0', num_envs=...) gives, "
            f"got {type(base).__name__}"
        )
    return base


def token_window(observation: Any) -> npt.NDArray[np.int64]:
    """Return the (N, L) ids of an observation, which may be a dict that holds them."""
    return observation["ids"] if isinstance(observation, dict) else observation


def _info_of(infos: dict[str, Any], slot: int) -> dict[str, Any]:
    """Return what a vector info says of one slot, as a single environment would say it."""
    return {
        key: _info_of(value, slot) if isinstance(value, dict) else value[slot]
        for key, value in infos.items()
        if not key.startswith("_") and (f"_{key}" not in infos or infos[f"_{key}"][slot])
    }
