"""Collection of whole episodes from a vector environment whose episodes end and restart at different times."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from textgym import TextGenVectorEnv
from textgym.actions import Vocabulary, as_actions
from textgym.registration import IDS
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes, EpisodeStart
from textgym_agents.policy import ActionOutput, Policy
from textgym_agents.token_stats import EpisodeStats, TokenStats, check_records, checked_stats

__all__ = [
    "check_final_info",
    "check_fit",
    "check_observations",
    "collect",
    "env_seed",
    "make_env",
    "redistribute",
    "text_env",
    "token_window",
]


class _EpisodeCollector:
    """Arrays of episodes 0 .. B-1, filled step by step as N sub-environments run them.

    Attributes:
        episode: (N,) int64, number of the current episode of each sub-environment.
        num_left: Episodes that have not ended yet.
    """

    def __init__(self, num_episodes: int, env: TextGenVectorEnv, num_alternatives: int | None) -> None:
        steps = (num_episodes, env.max_new_tokens)
        self.ids = np.zeros((num_episodes, env.window), dtype=np.int64)
        self.prompt_lengths = np.zeros(num_episodes, dtype=np.int64)
        self.num_steps = np.zeros(num_episodes, dtype=np.int64)
        self.text_lengths = np.zeros(num_episodes, dtype=np.int64)
        self.positions = np.zeros(steps, dtype=np.int64)
        self.rewards = np.zeros(steps, dtype=np.float32)
        self.log_probs = np.zeros(steps, dtype=np.float32)
        self.values = np.zeros(steps, dtype=np.float32)
        self.truncated = np.zeros(num_episodes, dtype=np.bool_)
        self.infos: list[dict[str, Any]] = [{}] * num_episodes
        self.starts: list[EpisodeStart | None] = [None] * num_episodes
        self.num_alternatives = None if num_alternatives is None else min(num_alternatives, env.num_actions)
        self.stats: list[tuple[npt.NDArray[Any], ...]] = []
        self.masks = None
        if env.has_invalid_actions:
            self.masks = np.zeros((*steps, -(-env.num_actions // 8)), dtype=np.uint8)
        self.episode = np.zeros(env.num_envs, dtype=np.int64)
        self.num_left = num_episodes
        self._num_started = 0
        self._env = env
        self._pad_token_id = env.pad_token_id

    def start(self, indices: npt.NDArray[np.int64], windows: npt.NDArray[np.int64]) -> None:
        """Assign the next numbers to episodes that have just started."""
        episodes = self._num_started + np.arange(indices.size)
        self.episode[indices] = episodes
        self._num_started += indices.size
        self.prompt_lengths[episodes] = self._write(episodes, windows[indices])
        core = self._env.core
        prefix_lengths = core.lengths - core.prompt_lengths
        for index, episode in zip(indices.tolist(), episodes.tolist(), strict=True):
            rng_state = dict(core.assignment.rngs[index].bit_generator.state) if self._env.has_turns else None
            self.starts[episode] = EpisodeStart(core.samples[index], int(prefix_lengths[index]), rng_state)

    def record(
        self,
        indices: npt.NDArray[np.int64],
        windows: npt.NDArray[np.int64],
        output: ActionOutput,
        rewards: npt.NDArray[np.float64],
        masks: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Append a step of some sub-environments; arrays are of all N, ``windows`` are those before the step."""
        episodes = self.episode[indices]
        step = self.num_steps[episodes]
        self.positions[episodes, step] = np.count_nonzero(windows[indices] != self._pad_token_id, axis=1)
        self.log_probs[episodes, step] = output.log_probs[indices]
        self.values[episodes, step] = output.values[indices]
        self.rewards[episodes, step] = rewards[indices]
        if self.masks is not None and masks is not None:
            self.masks[episodes, step] = np.packbits(masks[indices], axis=1)
        self.num_steps[episodes] += 1

    def record_stats(
        self, indices: npt.NDArray[np.int64], stats: TokenStats, masks: npt.NDArray[np.bool_] | None
    ) -> None:
        """Append the statistics of the step that is recorded next; arrays are of all N."""
        episodes = self.episode[indices]
        sizes = np.full(indices.size, self._env.num_actions)
        if masks is not None:
            sizes = np.count_nonzero(masks[indices], axis=1)
        entropies, ranks, *alternatives = (column[indices] for column in stats)
        self.stats.append((episodes, self.num_steps[episodes], entropies, ranks, sizes, *alternatives))

    def end(
        self, indices: npt.NDArray[np.int64], observations: Any, truncated: npt.NDArray[np.bool_], infos: dict[str, Any]
    ) -> None:
        """Close the episodes of some sub-environments; the results of the step are of all N."""
        for index, episode in zip(indices.tolist(), self.episode[indices].tolist(), strict=True):
            self.truncated[episode] = truncated[index]
            info = self.infos[episode] = _info_of(infos.get("final_info", infos), index)
            last = infos["final_obs"] if "final_obs" in infos else token_window(observations)
            self.text_lengths[episode] = self._write(episode, token_window(last[index]))
            if "token_rewards" in info:
                steps = slice(self.num_steps[episode])
                has_written = np.diff(self.positions[episode, steps], append=self.text_lengths[episode]) > 0
                redistribute(self.rewards[episode, steps], info["token_rewards"], has_written)
        self.num_left -= indices.size

    def _write(self, episodes: Any, windows: npt.NDArray[np.int64]) -> Any:
        """Store one window, or n, as the ids of one episode, or n; return the lengths."""
        is_token = windows != self._pad_token_id
        self.ids[episodes] = np.where(is_token, windows, 0)
        return is_token.sum(axis=-1)

    def episodes(self) -> Episodes:
        width = int(self.text_lengths.max())
        longest = int(self.num_steps.max())
        return Episodes(
            ids=torch.from_numpy(self.ids[:, :width]),
            prompt_lengths=torch.from_numpy(self.prompt_lengths),
            num_steps=torch.from_numpy(self.num_steps),
            rewards=torch.from_numpy(self.rewards[:, :longest]),
            log_probs=torch.from_numpy(self.log_probs[:, :longest]),
            values=torch.from_numpy(self.values[:, :longest]),
            truncated=torch.from_numpy(self.truncated),
            action_masks=None if self.masks is None else self.masks[:, :longest],
            infos=self.infos,
            positions=torch.from_numpy(self.positions[:, :longest]),
            text_lengths=torch.from_numpy(self.text_lengths),
            stats=self._episode_stats(longest),
            starts=self.starts,
            tokenizer=self._env.tokenizer,
        )

    def _episode_stats(self, num_steps: int) -> EpisodeStats | None:
        if self.num_alternatives is None:
            return None
        stats = EpisodeStats.empty(len(self.ids), num_steps, self.num_alternatives)
        episodes, steps, *columns = (np.concatenate(parts) for parts in zip(*self.stats, strict=True))
        for tensor, values in zip(stats, columns, strict=True):
            tensor.numpy()[episodes, steps] = values
        return stats


def collect(
    env: VectorEnv[Any, Any, Any],
    policy: Policy,
    num_episodes: int,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    deterministic: bool = False,
    generator: torch.Generator | None = None,
    num_alternatives: int | None = None,
) -> Episodes:
    """Reset the environment and run the policy until the first ``num_episodes`` episodes that start have ended.

    Taking the first that *end* instead would favour short texts. When no episode is left to start, the environment
    parks a sub-environment (``options={"num_episodes": B}``): it draws no prompt and is neither fed to the model nor
    scored. The environment receives the log-probabilities for its own KL penalty.

    Args:
        env: A vector environment of the TextGen family, in any autoreset mode (``SAME_STEP`` wastes no step).
        policy: Chooses the tokens.
        num_episodes: B. A multiple of ``env.num_envs`` uses all sub-environments throughout.
        seed: Passed to ``env.reset``.
        options: Passed to ``env.reset``, with a value per sub-environment where they are lists; they apply to the first
            ``env.num_envs`` episodes only.
        deterministic: Choose the most likely token instead of sampling.
        generator: Random generator of the sampling.
        num_alternatives: K, of ``Episodes.stats``: entropy, rank and number of valid tokens of each step, and the K
            most probable tokens, of the distribution that sampled, after mask and temperature. The episodes are the
            same with it. None records nothing.

    Raises:
        ValueError: If ``num_episodes`` is less than 1, ``num_alternatives`` is negative or the policy gives no
            statistics, the actions are not the model's tokens, observations do not hold the token ids, the window
            exceeds the model's positions, or ``final_info`` is not ``"full"``.
        TypeError: If ``num_episodes`` or ``num_alternatives`` is not an integer, or the environment is of another
            family.
    """
    num_episodes = check_count("num_episodes", num_episodes)
    base = text_env(env)
    check_fit(base, policy)
    check_observations(env)
    check_final_info(base.config.final_info)
    check_records(policy, num_alternatives)
    keywords = {} if num_alternatives is None else {"num_alternatives": num_alternatives}
    resets_by_hand = env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    collector = _EpisodeCollector(num_episodes, base, num_alternatives)
    observations, _ = env.reset(seed=seed, options={**(options or {}), "num_episodes": num_episodes})
    collector.start(np.flatnonzero(base.running), token_window(observations))
    while collector.num_left:
        active = base.running
        masks = base.action_masks() if base.has_invalid_actions else None
        if masks is not None:
            masks = masks | ~active[:, None]  # an ended text may have no valid action left
        windows = token_window(observations)
        output = policy.act(windows, masks, active=active, deterministic=deterministic, generator=generator, **keywords)
        base.set_log_probs(output.log_probs)
        observations, rewards, terminated, truncated, infos = env.step(output.actions)
        done = terminated | truncated
        indices = np.flatnonzero(active)
        if num_alternatives is not None:
            collector.record_stats(indices, checked_stats(policy, output.stats, num_alternatives), masks)
        collector.record(indices, windows, output, rewards, masks)
        collector.end(np.flatnonzero(done), observations, truncated, infos)
        if resets_by_hand and done.any():
            observations, _ = env.reset(options={"reset_mask": done})
        started = base.running & (done | ~active)
        if started.any():
            collector.start(np.flatnonzero(started), token_window(observations))
    return collector.episodes()


def env_seed(seed: int) -> int:
    """Return a 32-bit seed of the training environment, derived from the seed of a run, at least 0.

    ``reset(seed=s)`` seeds sub-environment i with s + i, as in Gymnasium and Stable-Baselines3. With the run's own
    seed, runs 0 and 1 would share all but one sub-environment and its prompts.

    >>> env_seed(0), env_seed(1)
    (2968811710, 1835504127)
    """
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def redistribute(
    rewards: npt.NDArray[np.floating], token_rewards: npt.ArrayLike, has_written: npt.NDArray[np.bool_]
) -> None:
    """Move a terminal reward to the tokens, by their shares, in place.

    Args:
        rewards: (T,), rewards of the last T steps of an episode; the last one contains the score.
        token_rewards: (C,), share of each token of the completion, as in ``info["token_rewards"]``. Shares of tokens
            from before the T steps stay in the last reward.
        has_written: (T,) bool, False where an invalid action appended no token.

    >>> rewards = np.array([0.0, 0.0, 1.0])
    >>> redistribute(rewards, [0.25, 0.25, 0.5], np.array([True, False, True]))
    >>> rewards
    array([0.25, 0.  , 0.75])
    """
    steps = np.flatnonzero(has_written)
    shares = np.asarray(token_rewards, dtype=np.float64)
    shares = shares[len(shares) - len(steps) :]
    rewards[-1] -= shares.sum()
    rewards[steps] += shares


def make_env(env_id: str, num_envs: int, keywords: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Return the vector environment of an id of the TextGen family, with autoreset mode ``SAME_STEP``."""
    keywords = {"autoreset_mode": AutoresetMode.SAME_STEP, **keywords}
    try:
        env = gym.make_vec(env_id, num_envs=num_envs, **keywords)
    except TypeError as error:
        if env_id.rpartition(":")[2] not in IDS:  # another family's environments do not know the keywords
            raise TypeError(f"an LM policy needs an id of the TextGen family, got {env_id!r}") from error
        raise
    text_env(env)
    return env


def text_env(env: VectorEnv[Any, Any, Any]) -> TextGenVectorEnv:
    """Return the TextGen vector environment under any wrappers; raise a TypeError if there is none."""
    base = getattr(env, "unwrapped", env)
    if not isinstance(base, TextGenVectorEnv):
        raise TypeError(
            "an LM policy needs the batched environment that gym.make_vec('TextGen-v0', num_envs=64) gives, or, as an "
            f"agent's second argument, its id 'TextGen-v0'; got {type(base).__name__}"
        )
    return base


def check_fit(env: TextGenVectorEnv, policy: Policy) -> None:
    """Raise a ValueError unless the actions of the environment are the tokens of the policy."""
    if not isinstance(as_actions(env.config.actions), Vocabulary):
        raise ValueError(
            "an LM policy chooses token ids: the environment needs actions='vocabulary', "
            f"got {type(env.config.actions).__name__}"
        )
    if env.num_actions != policy.vocab_size:
        raise ValueError(
            f"the environment has {env.num_actions} actions, the model a vocabulary of {policy.vocab_size}; "
            "make the environment with the model's tokenizer (model=...), or the policy with a model of the "
            "environment's vocabulary, such as textgym.lm.random_lm(num_actions)"
        )


def check_observations(env: VectorEnv[Any, Any, Any]) -> None:
    """Check that observations are the token window, or a dict that holds it.

    Raises:
        ValueError: If they are not.
    """
    space, window = env.single_observation_space, text_env(env).window
    ids = space.spaces.get("ids") if isinstance(space, gym.spaces.Dict) else space
    if not isinstance(ids, gym.spaces.Box) or ids.shape != (window,) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            "an LM policy reads token ids: the environment needs observation='tokens', 'dict', or a dict with the ids, "
            f"of shape ({window},), under 'ids', got the observation space {space}"
        )


def check_final_info(final_info: str) -> None:
    """Raise a ValueError unless final infos are complete: agents need their scores, groups and token rewards."""
    if final_info != "full":
        raise ValueError(
            f"final_info={final_info!r} leaves out groups and token rewards, which agents need; make the environment "
            "with final_info='full', its default"
        )


def token_window(observation: Any) -> npt.NDArray[np.int64]:
    """Return the (N, L) ids of an observation, which may be a dict with ``"ids"``."""
    return observation["ids"] if isinstance(observation, dict) else observation


def _info_of(infos: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the info of one sub-environment from a vector info."""
    return {
        key: _info_of(value, index) if isinstance(value, dict) else value[index]
        for key, value in infos.items()
        if not key.startswith("_") and (f"_{key}" not in infos or infos[f"_{key}"][index])
    }
