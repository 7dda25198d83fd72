"""SB3 callbacks that report log-probabilities and progress to the environment and redistribute its rewards."""

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from textgym import TextGenVecEnv
from textgym_agents.rollout import check_final_info, redistribute
from textgym_agents.sb3.on_policy import LMActorCriticPolicy

__all__ = ["RedistributeRewards", "ReportLogProbs", "ReportProgress"]


class RedistributeRewards(BaseCallback):
    """Gives each step the share of its token when the environment has ``reward="redistributed"``.

    The shares are known at an episode's end only. SB3 does not pass ``info`` to its rollout buffers, so this callback
    changes the rewards that PPO, A2C or MaskablePPO stored for the steps of that episode, as ``collect`` does. Shares
    of tokens written in an earlier rollout, which has been learned from, stay in the last reward. Without the
    callback the score is a terminal reward. ``EpisodeReplayBuffer`` needs no callback.

    Raises:
        TypeError: When training starts, if the algorithm does not learn from rollouts.
        ValueError: When training starts, if the environment's ``final_info`` is not ``"full"``.
    """

    def _on_training_start(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise TypeError(
                "RedistributeRewards needs an algorithm that learns from rollouts, such as PPO or A2C, "
                f"got {type(self.model).__name__}"
            )
        if self.training_env.has_attr("config"):
            for config in self.training_env.get_attr("config"):
                check_final_info(config.final_info)
        buffer = self.model.rollout_buffer
        self._has_written = np.ones((buffer.buffer_size, buffer.n_envs), dtype=np.bool_)

    def _on_step(self) -> bool:
        assert isinstance(self.model, OnPolicyAlgorithm)
        buffer = self.model.rollout_buffer
        now, starts_now = self.locals["rewards"], self.model._last_episode_starts  # stored after the callbacks
        assert starts_now is not None
        self._has_written[buffer.pos] = ["invalid_action" not in info for info in self.locals["infos"]]
        for slot in np.flatnonzero(self.locals["dones"]).tolist():
            shares = self.locals["infos"][slot].get("token_rewards")
            if shares is None:
                continue
            if (normalize := self.model.get_vec_normalize_env()) is not None:
                shares = normalize.normalize_reward(np.asarray(shares))
            starts = np.append(buffer.episode_starts[: buffer.pos, slot], starts_now[slot])
            first = max(np.flatnonzero(starts), default=0)
            rewards = np.append(buffer.rewards[first : buffer.pos, slot], now[slot])
            redistribute(rewards, shares, self._has_written[first : buffer.pos + 1, slot])
            buffer.rewards[first : buffer.pos, slot], now[slot] = rewards[:-1], rewards[-1]
        return True


class ReportLogProbs(BaseCallback):
    """Tells the training environment log pi(a|s) of each action before it is taken.

    With it an environment's ``kl_penalty`` charges the KL to the reference. Without it, it charges the cross-entropy,
    which is the KL plus the policy's entropy, and so pushes the policy towards repeating itself.

    Give it to ``learn``: ``model.learn(10_000, callback=ReportLogProbs())``. SB3 has no event between choosing and
    stepping, so the policy calls back from its forward, which only the collection of rollouts uses.

    Raises:
        TypeError: When training starts, if the policy is not an ``LMActorCriticPolicy``.
        AttributeError: When training starts, if the environment has no ``set_log_probs``: it is of another family.
    """

    def _on_training_start(self) -> None:
        policy = self.model.policy
        if not isinstance(policy, LMActorCriticPolicy):
            raise TypeError(f"ReportLogProbs needs an LMActorCriticPolicy, got {type(policy).__name__}")
        env = self.training_env.unwrapped
        if not env.has_attr("set_log_probs"):
            raise AttributeError("ReportLogProbs needs an environment with set_log_probs, of the TextGen family")

        def report(log_probs: torch.Tensor) -> None:
            if isinstance(env, TextGenVecEnv):
                env.set_log_probs(log_probs.numpy(force=True))
            else:  # single environments, which SB3 steps one by one
                for slot, log_prob in enumerate(log_probs.tolist()):
                    env.env_method("set_log_probs", log_prob, indices=slot)

        policy.on_log_probs = report

    def _on_training_end(self) -> None:
        policy = self.model.policy
        assert isinstance(policy, LMActorCriticPolicy)
        policy.on_log_probs = None

    def _on_step(self) -> bool:
        return True


class ReportProgress(BaseCallback):
    """Tells the training environment before each rollout which share of ``learn`` is done.

    A scorer that changes with it, such as ``textgym.scorers.Schedule``, hears of it. Works with every algorithm.

    Raises:
        AttributeError: When training starts, if the environment has no ``set_progress``: it is of another family.
    """

    def _on_training_start(self) -> None:
        if not self.training_env.unwrapped.has_attr("set_progress"):
            raise AttributeError("ReportProgress needs an environment with set_progress, of the TextGen family")

    def _on_rollout_start(self) -> None:
        # SB3's own measure, _current_progress_remaining, is still that of the learn() before in the first rollout. The
        # last rollout can be longer than what was left.
        done = self.model.num_timesteps / self.model._total_timesteps
        self.training_env.unwrapped.env_method("set_progress", min(done, 1.0))

    def _on_step(self) -> bool:
        return True
