"""SB3 callbacks: report log-probabilities and progress to the environment, redistribute its rewards."""

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from textgym import TextGenVecEnv
from textgym_agents.rollout import check_final_info, redistribute
from textgym_agents.sb3.on_policy import LMActorCriticPolicy

__all__ = ["RedistributeRewards", "ReportLogProbs", "ReportProgress"]


class RedistributeRewards(BaseCallback):
    """Assigns redistributed rewards to their tokens if the environment has ``reward="redistributed"``.

    Token rewards are known only at the end of an episode. This callback then changes the rewards stored in the rollout
    buffer of PPO, A2C or MaskablePPO, as ``collect`` does; those of tokens from an earlier rollout stay in the last
    reward. Without it the score is a terminal reward. ``EpisodeReplayBuffer`` needs no callback.

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
        for index in np.flatnonzero(self.locals["dones"]).tolist():
            shares = self.locals["infos"][index].get("token_rewards")
            if shares is None:
                continue
            if (normalize := self.model.get_vec_normalize_env()) is not None:
                shares = normalize.normalize_reward(np.asarray(shares))
            starts = np.append(buffer.episode_starts[: buffer.pos, index], starts_now[index])
            first = max(np.flatnonzero(starts), default=0)
            rewards = np.append(buffer.rewards[first : buffer.pos, index], now[index])
            redistribute(rewards, shares, self._has_written[first : buffer.pos + 1, index])
            buffer.rewards[first : buffer.pos, index], now[index] = rewards[:-1], rewards[-1]
        return True


class ReportLogProbs(BaseCallback):
    """Reports log pi(a|s) of each action to the training environment: ``model.learn(n, callback=ReportLogProbs())``.

    The environment's ``kl_penalty`` is then the KL to the reference. Without it, it is the cross-entropy, the KL plus
    the policy's entropy, which drives the policy towards repetition.

    SB3 has no hook between action and step: the policy calls this one from ``forward``, used only in rollouts.

    Raises:
        TypeError: When training starts, if the policy is not an ``LMActorCriticPolicy``.
        AttributeError: When training starts, if the environment is not of the TextGen family.
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
            else:  # single environments, stepped one by one
                for index, log_prob in enumerate(log_probs.tolist()):
                    env.env_method("set_log_probs", log_prob, indices=index)

        policy.on_log_probs = report

    def _on_training_end(self) -> None:
        policy = self.model.policy
        assert isinstance(policy, LMActorCriticPolicy)
        policy.on_log_probs = None

    def _on_step(self) -> bool:
        return True


class ReportProgress(BaseCallback):
    """Reports the progress of ``learn``, 0 to 1, to the training environment before each rollout.

    Needed by scorers that depend on progress, such as ``textgym.scorers.Schedule``. Works with every algorithm.

    Raises:
        AttributeError: When training starts, if the environment is not of the TextGen family.
    """

    def _on_training_start(self) -> None:
        if not self.training_env.unwrapped.has_attr("set_progress"):
            raise AttributeError("ReportProgress needs an environment with set_progress, of the TextGen family")

    def _on_rollout_start(self) -> None:
        # SB3's _current_progress_remaining is stale in the first rollout of a second learn(). The last rollout can
        # exceed the total.
        done = self.model.num_timesteps / self.model._total_timesteps
        self.training_env.unwrapped.env_method("set_progress", min(done, 1.0))

    def _on_step(self) -> bool:
        return True
