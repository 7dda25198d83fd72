"""What stock SB3 does not do by itself: telling the environment the policy's log-probabilities, and its progress."""

import torch
from stable_baselines3.common.callbacks import BaseCallback

from textgym import TextGenVecEnv
from textgym_agents.sb3.actor_critic import LMActorCriticPolicy

__all__ = ["ReportLogProbs", "ReportProgress"]


class ReportLogProbs(BaseCallback):
    """Tells the training environment log pi(a|s) of each action before it is taken.

    With it an environment's ``kl_coef`` charges the KL to the reference. Without it, it charges the cross-entropy,
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
        # SB3's own measure falls from 1 to 0, and can pass 0 where the last rollout is longer than what was left.
        done = 1.0 - self.model._current_progress_remaining
        self.training_env.unwrapped.env_method("set_progress", min(max(done, 0.0), 1.0))

    def _on_step(self) -> bool:
        return True
