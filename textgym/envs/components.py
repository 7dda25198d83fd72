"""The objects that an environment is built of, and the ones among them that learn from episodes."""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from textgym.actions import Actions
from textgym.batch import TextBatch
from textgym.constraints import Constraint
from textgym.endings import Ending
from textgym.envs.step_result import EpisodeEnd, ScoreBounds
from textgym.envs.user_turns import Dialogue
from textgym.observations import Observation
from textgym.prompts import PromptEncoder, PromptSource
from textgym.rewards import AdaptiveCoefficient, Reference, Reward, kl_penalty
from textgym.scorers import Scorer, observe_episodes
from textgym.scorers.evaluation import observes
from textgym.tokenizers import Tokenizer

__all__ = ["EnvComponents", "KLTerm"]


@dataclass(frozen=True)
class KLTerm:
    """A coefficient times the per-token KL to ``reference``."""

    coefficient: AdaptiveCoefficient
    reference: Reference
    estimator: Literal["k1", "k3"]

    def clear(self) -> None:
        """Clear the caches of the reference, where it has a method for that."""
        if (clear := getattr(self.reference, "clear", None)) is not None:
            clear()

    def penalty(
        self,
        batch: TextBatch,
        slots: slice | npt.NDArray[np.int64],
        tokens: npt.NDArray[np.int64],
        log_probs: npt.NDArray[np.float64] | None,
        token_masks: npt.NDArray[np.bool_] | None,
        invalid: npt.NDArray[np.bool_] | None,
    ) -> npt.NDArray[np.float64]:
        """Return the (n,) float64 penalty of writing ``tokens`` in ``slots`` of a batch; 0 where they are invalid.

        ``log_probs`` are (N,) log pi(a|s), None if not reported. ``token_masks`` (N, V) is the common support of policy
        and reference, None for all tokens.

        Raises:
            ValueError: If the reference or the agent does not give one log-probability per action.
        """
        actions, active = np.zeros(len(batch), dtype=np.int64), np.zeros(len(batch), dtype=np.bool_)
        actions[slots], active[slots] = tokens, True
        lengths = np.maximum(batch.lengths, 1)
        reference = np.asarray(
            self.reference.log_probs(batch.ids, lengths, actions, token_masks=token_masks, active=active),
            dtype=np.float64,
        )
        if reference.shape != active.shape:
            raise ValueError(f"the KL reference returned shape {reference.shape}, expected {active.shape}")
        reference = reference[slots]
        log_probs = None if log_probs is None else log_probs[slots]
        if invalid is not None:
            reference = np.where(invalid, 0.0, reference)
            log_probs = None if log_probs is None else np.where(invalid, 0.0, log_probs)
        # A reference may rule a token out, which makes the penalty infinite; the policy has drawn it.
        for name, values, least in (("the KL reference", reference, -np.inf), ("set_log_probs", log_probs, -1e30)):
            if values is not None and (wrong := ~((values >= least) & (values <= 1e-4))).any():
                raise ValueError(f"{name} gave the log-probability {values[wrong][0]} for token {tokens[wrong][0]}")
        return kl_penalty(self.coefficient.coef, reference, log_probs, self.estimator)


@dataclass(frozen=True, kw_only=True)
class EnvComponents:
    """Everything that the core calls. Built by ``TextGenConfig.build``."""

    tokenizer: Tokenizer
    prompts: PromptSource
    encoder: PromptEncoder
    scorer: Scorer
    on_scorer_error: str | float
    reward: Reward
    endings: tuple[Ending, ...]
    constraint: Constraint | None
    actions: Actions
    observation: Observation
    kl: KLTerm | None
    max_new_tokens: int
    window: int
    """L, in tokens: ``max_prompt_tokens + max_new_tokens``, and room for the user's replies."""
    group_size: int
    budget_terminates: bool
    on_invalid_action: Literal["raise", "terminate", "ignore"]
    invalid_action_penalty: float
    reports_reward_vector: bool
    reports_action_mask: bool
    dialogue: Dialogue | None
    score_bounds: ScoreBounds | None
    observes_episodes: bool = True
    """Whether the shared components, such as scorers, observe the episodes that end; False in clones."""

    @property
    def learns(self) -> bool:
        """Whether any component observes the episodes that end, so that ``observe`` has to be called."""
        if self.kl is not None or self.prompts.get_state() is not None:
            return True
        classes_differ = (
            type(self.prompts).observe is not PromptSource.observe or type(self.reward).observe is not Reward.observe
        )
        return self.observes_episodes and (classes_differ or any(map(observes, (self.scorer, *self.reward.scorers))))

    def observe(self, end: EpisodeEnd) -> None:
        """Let the scorers, the prompt source and the KL coefficient observe the episodes that ended."""
        scores = end.scores.without_replacements()
        if self.observes_episodes:
            seen: set[int] = set()
            observe_episodes(self.scorer, end.batch, scores, seen)
            self.reward.observe(end.batch, seen)
        if self.observes_episodes or self.prompts.get_state() is not None:  # of which a clone has a copy
            self.prompts.observe(end.batch.samples, scores.total)
        if self.kl is not None and end.kl is not None:
            num_tokens = max(int(end.batch.num_actions.sum()), 1)  # an invalid first action writes none
            self.kl.coefficient.update(float(end.kl.sum()) / num_tokens, num_tokens)

    def set_progress(self, progress: float) -> None:
        """Set the completed share of training, 0 to 1, for the scorer and the reward."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be between 0 and 1, got {progress!r}")
        self.scorer.set_progress(progress)
        self.reward.set_progress(progress)

    def clone(self) -> "EnvComponents":
        """Return the components of a clone: the same objects, but for copies of those that its episodes change."""
        clone = replace(self, observes_episodes=False)
        if clone.kl is not None:
            clone = replace(clone, kl=replace(clone.kl, coefficient=copy.copy(clone.kl.coefficient)))
        if (state := clone.prompts.get_state()) is not None:
            clone = replace(clone, prompts=copy.copy(clone.prompts))
            clone.prompts.set_state(copy.deepcopy(state))
        return clone
