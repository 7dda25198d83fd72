"""Group-relative policy optimization."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from textgym_agents.agent import mean_metrics
from textgym_agents.config import DiscountConfig, OnlineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import (
    clip_metrics,
    clipped_surrogate_loss,
    clipped_weight_loss,
    normalized,
    sequence_surrogate_loss,
)
from textgym_agents.online import OnlineAgent
from textgym_agents.reference import KLConfig, ReferenceKL
from textgym_agents.returns import decoupled_advantages, discounted_returns, group_statistics, leave_one_out
from textgym_agents.rollout import text_env
from textgym_agents.score_components import component_scores, component_weights
from textgym_agents.self_imitation import SelfImitation, SelfImitationConfig
from textgym_agents.token_credit import TokenCredit, TokenCreditConfig

__all__ = ["GRPO", "GRPOConfig"]

_EQUAL = 1e-3
"""Standard deviation of returns below which a group is said to agree."""


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(OnlineAgentConfig, DiscountConfig, KLConfig, SelfImitationConfig, TokenCreditConfig):
    """Hyper-parameters of GRPO."""

    learning_rate: float = 5e-4
    variant: Literal["grpo", "rloo", "dr_grpo", "dapo", "gspo", "cispo"] = "dr_grpo"
    """``"grpo"`` divides advantages by the group's standard deviation and averages the loss within each text first;
    ``"gspo"`` does so with one ratio for the whole text; ``"dapo"`` has the same advantages and averages over tokens;
    ``"cispo"`` does so with clipped weights, which leave every token its gradient; ``"rloo"`` subtracts the mean of the
    others and averages over tokens; ``"dr_grpo"`` subtracts the group's mean and divides the sum by the token budget,
    so that neither the length of a text nor the spread of a group matters."""
    return_to_go: bool = False
    """Whether the advantage of a token uses the reward-to-go instead of the return of the whole text. The baseline is
    the group's reward-to-go at the same step, of ended texts that of their last step. Matters only with per-token
    rewards or a discount."""
    normalize_components: bool = False
    """Whether to divide each component of a weighted score by its own standard deviation in the group, before they are
    added by their weights, and to normalize the sums over the batch (GDPO). These advantages replace those of the
    variant. What the return contains besides the score, such as a KL penalty of estimator k1, is added undivided:
    ``kl_coef`` then is in deviations of a component."""
    n_epochs: int = 2
    """Number of epochs when optimizing the surrogate loss."""
    batch_size: int | None = 32
    """Minibatch size, in episodes. None takes all."""
    clip_range: float = 0.2
    """Clipping parameter epsilon."""
    clip_range_high: float | None = None
    """Upper clipping parameter, if it differs from ``clip_range`` (clip-higher of DAPO, which takes 0.28)."""
    ent_coef: float = 0.0
    """Entropy coefficient for the loss calculation."""
    equal_groups: Literal["keep", "drop", "redraw"] = "keep"
    """What becomes of groups whose returns all but agree, with a standard deviation below 1e-3. They have no gradient
    but that of KL and entropy, yet count in the means over texts and tokens. ``"drop"`` leaves them out of the update,
    where not all groups agree; ``"redraw"`` does so too, and collects other groups in their place, whose tokens count
    as any others (dynamic sampling of DAPO)."""
    max_redraws: int = 4
    """Number of times, at most, that an update collects other groups in place of those that agreed in the collection
    before. If some still agree then, the update has fewer texts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            n_epochs=(1, math.inf),
            batch_size=(1, math.inf),
            clip_range=(0, math.inf),
            clip_range_high=(0, math.inf),
            ent_coef=(0, math.inf),
            max_redraws=(1, math.inf),
        )
        if self.normalize_components and self.return_to_go:
            raise ValueError(
                "normalize_components=True compares the scores of whole texts: it needs return_to_go=False"
            )
        if self.normalize_components and self.branch_share > 0:
            raise ValueError("branch_share above 0 needs normalize_components=False: rollouts return the whole score")
        if self.variant == "gspo" and (self.branch_share > 0 or self.entropy_share < 1):
            raise ValueError(
                "variant='gspo' has one ratio for the whole text, and its tokens no advantages of their own: it needs "
                f"entropy_share=1 and branch_share=0, got {self.entropy_share} and {self.branch_share}"
            )


class GRPO(OnlineAgent):
    """Policy gradient with the group as baseline, without a value head.

    Per update: collect B episodes in groups of one prompt (``group_size`` of the environment); with R the return of a
    text, A_t = R - mean of the group; for each epoch and minibatch one step of Adam on

        loss = sum over texts and tokens, divided by the number of texts times their token budget, of
               -min(w_t A_t, clip(w_t, 1 - clip_range, 1 + clip_range) A_t) - ent_coef * H(pi(.|s_t)) + kl_coef * KL_t

    where w_t = pi(a_t|s_t) / pi_old(a_t|s_t), and KL_t is the estimate of ``kl_estimator``. With k1, the default, it is
    absent; instead ``kl_coef * log[pi_old(a_t|s_t) / pi_ref(a_t|s_t)]`` is subtracted from each reward.

    Then, with ``imitation_coef`` above 0, one more step imitates past texts that scored better than those of now; see
    ``SelfImitation``.

    This is ``variant="dr_grpo"`` of Liu et al. 2025 (Understanding R1-Zero-like training, arXiv:2503.20783). With
    ``"grpo"`` A_t is divided by the standard deviation of the group, and the loss is the mean over texts of the mean
    over tokens: Shao et al. 2024 (DeepSeekMath, arXiv:2402.03300), who use k3, are ``variant="grpo", kl_estimator="k3",
    imitation_coef=0.0``. Texts of one group may be generated at different times. ``"rloo"`` is Ahmadian et al. 2024
    (Back to basics, arXiv:2402.14740) token by token. ``variant="dapo", clip_range_high=0.28, equal_groups="redraw",
    kl_coef=0.0, imitation_coef=0.0`` is Yu et al. 2025 (DAPO, arXiv:2503.14476) without its penalty of overlong texts;
    where ``max_redraws`` is too small, the update has fewer texts. ``"gspo"`` is Zheng et al. 2025 (Group sequence
    policy optimization, arXiv:2507.18071) with ``clip_range=3e-4, clip_range_high=4e-4``; ``"cispo"`` MiniMax 2025
    (MiniMax-M1, arXiv:2506.13585) with ``clip_range=1.0``. They differ from ``"grpo"`` and ``"dapo"`` from the second
    gradient step of a batch on.

    With ``normalize_components`` the advantages are those of Liu et al. 2026 (GDPO, arXiv:2601.05242): ``A = sum_k w_k
    (S_k - mean of the group) / deviation of the group``, S_k being component k of the score and w_k its weight in the
    environment's scorer; then A is normalized over the batch.

    Without imitation, the expected first steps of ``"rloo"``, summed over tokens, and of ``"dr_grpo"`` are the policy
    gradient up to a constant.
    That of ``"grpo"`` is the gradient of E[f(y) / |y|] with f held constant, f(y) being the mean of (R(y) - mean) /
    deviation over the groups that hold y: on the MDP of two letters, EOS and three tokens that
    ``tests/agents/test_exact_gradients.py`` enumerates, in groups of three, it is 15.6 degrees off the gradient. With
    ``normalize_components`` f(y) is the mean of A over the batches that hold y.

    Args and errors: see ``OnlineAgent``; besides, a ValueError if the environment's groups have fewer than two episodes
    or do not divide ``num_episodes``, if it has a KL penalty too, or if its scorer is no weighted sum with
    ``normalize_components``. An environment made of an id has groups of 4, or of the next smaller divisor of
    ``num_episodes``, or one group if there is none.

    Attributes:
        kl: The KL penalty against the initial policy.
        imitation: The past successes that are imitated with ``imitation_coef`` above 0; see ``SelfImitation``.
        credit: The options on the advantages of single tokens; see ``TokenCredit``. Advantages by rollouts are divided
            by the deviation of the group's returns where the variant does so, and then not used in groups that agree.
    """

    config_class = GRPOConfig
    checkpointed = ("kl", "imitation")
    config: GRPOConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kl = ReferenceKL(self.policy, self.config, self.env)
        self.imitation = SelfImitation(self.config)
        group_size = text_env(self.env).config.group_size
        if group_size < 2 or self.config.num_episodes % group_size:
            raise ValueError(
                f"GRPO compares texts of one prompt: the environment needs a group_size of at least 2 that divides "
                f"num_episodes={self.config.num_episodes}, got group_size={group_size}"
            )
        self.credit = TokenCredit(self)
        self._weights_of_components = component_weights(self.env) if self.config.normalize_components else {}

    def _env_defaults(self) -> dict[str, Any]:
        divisors = [n for n in range(2, 5) if self.config.num_episodes % n == 0]
        return {"group_size": max(divisors, default=self.config.num_episodes)}

    def collect(self) -> Episodes:
        """Collect ``config.num_episodes`` episodes, and others in place of groups that agree with ``"redraw"``.

        Returns:
            All of them, those of groups that agree too, so that metrics describe the policy.
        """
        episodes = super().collect()
        if self.config.equal_groups != "redraw":
            return episodes
        parts = [episodes]
        for _ in range(self.config.max_redraws):
            num_equal = int(self._is_equal(parts[-1]).sum())
            if not num_equal:
                break
            parts.append(self._collect(num_equal))
        self.episodes = episodes = Episodes.concatenate(parts)
        return episodes

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take the epochs on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If a gradient is not finite; the weights are unchanged by that step.
        """
        config = self.config
        episodes.reference_log_probs = self.kl.log_probs(episodes)
        rewards = self.kl.penalized_rewards(episodes)
        is_equal = self._is_equal(episodes)
        is_used = ~is_equal if config.equal_groups != "keep" and not is_equal.all() else torch.ones_like(is_equal)
        divides = config.variant not in ("rloo", "dr_grpo")
        branched = self.credit.branched(episodes, (is_used & ~(is_equal & divides))[:, None], config.gamma)
        advantages = self._advantages(episodes, rewards)
        if branched.num_tokens:
            scale = self._scale(episodes, self._returns(episodes, rewards))
            advantages = torch.where(branched.chosen, branched.advantages / scale, advantages)
        advantages = torch.where(is_used[:, None], advantages, 0.0)
        episodes.advantages = self.credit.only_uncertain(episodes, advantages, is_used[:, None])
        used = episodes if is_used.all() else episodes[is_used.numpy()]
        steps = []
        for minibatch in self.minibatches(used, config.batch_size, config.n_epochs):
            steps.append(self.backward(minibatch, self.loss, self._weights(minibatch)) | self.optimizer_step())
        imitation = self.imitation.update(self, episodes)
        metrics = mean_metrics(steps) | {"train/equal_groups": float(is_equal.float().mean())}
        return metrics | imitation | branched.metrics(episodes) | self.kl.adapt(episodes)

    def _returns(self, episodes: Episodes, rewards: torch.Tensor) -> torch.Tensor:
        """Return the (B, T) returns that are compared, equal at all steps of a text without ``return_to_go``."""
        returns = discounted_returns(rewards, episodes.num_steps, self.config.gamma)
        if not self.config.return_to_go:
            return returns[:, :1].expand_as(returns)
        # An ended text stays in its group with the return of its last step: a mean over the remaining texts alone
        # would shrink late gradients, to 0 for the last text.
        last = returns.gather(1, episodes.num_steps[:, None] - 1)
        return torch.where(episodes.mask, returns, last)

    def _scale(self, episodes: Episodes, returns: torch.Tensor) -> torch.Tensor:
        """Return the (B, T) divisors of advantages in units of reward."""
        if self.config.variant in ("rloo", "dr_grpo"):
            return torch.ones_like(returns)
        return group_statistics(returns, episodes.groups())[1] + 1e-4

    def _advantages(self, episodes: Episodes, rewards: torch.Tensor) -> torch.Tensor:
        """Return (B, T) advantages relative to the group."""
        returns = self._returns(episodes, rewards)
        if self.config.normalize_components:
            return self._decoupled_advantages(episodes, returns)
        if self.config.variant == "rloo":
            return returns - leave_one_out(returns, episodes.groups())
        mean, _, _ = group_statistics(returns, episodes.groups())
        return (returns - mean) / self._scale(episodes, returns)

    def _decoupled_advantages(self, episodes: Episodes, returns: torch.Tensor) -> torch.Tensor:
        """Return (B, T) advantages with each component of the score normalized apart."""
        weights = torch.tensor(list(self._weights_of_components.values()), dtype=torch.float64)
        components = component_scores(episodes, self._weights_of_components)
        discounts = self.config.gamma ** (episodes.num_steps - 1).double()
        rest = returns[:, 0] - discounts * (components.nan_to_num() @ weights)
        rest_mean, _, _ = group_statistics(rest, episodes.groups())
        summed = decoupled_advantages(components, weights, episodes.groups()) + rest - rest_mean
        advantages = normalized(summed, torch.ones_like(summed, dtype=torch.bool)).to(returns.dtype)
        return advantages[:, None].expand_as(returns)

    def _is_equal(self, episodes: Episodes) -> torch.Tensor:
        """Return (B,) bool, True in groups whose returns, and components that are normalized apart, all but agree."""
        values = [episodes.returns]
        if self.config.normalize_components:
            values += component_scores(episodes, self._weights_of_components).nan_to_num().unbind(dim=1)
        scored = torch.from_numpy(episodes.scored)
        deviations = [group_statistics(each, episodes.groups(), scored)[1] for each in values]
        return torch.stack(deviations).amax(dim=0) < _EQUAL

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step before its weight, and its terms."""
        config = self.config
        evaluation = self.policy.evaluate(episodes, entropy_gradient=config.ent_coef != 0)
        terms = evaluation.log_probs, episodes.log_probs, episodes.advantages
        limits = config.clip_range, config.clip_range_high
        if config.variant == "gspo":
            policy_loss = sequence_surrogate_loss(*terms, episodes.mask, *limits)
        elif config.variant == "cispo":
            policy_loss = clipped_weight_loss(*terms, *limits)
        else:
            policy_loss = clipped_surrogate_loss(*terms, *limits)
        entropy_loss = -evaluation.entropies
        loss = policy_loss + config.ent_coef * entropy_loss + self.kl.loss(episodes, evaluation)
        return loss, {
            "policy_gradient_loss": policy_loss,
            "entropy_loss": entropy_loss,
            **clip_metrics(evaluation.log_probs, episodes.log_probs, config.clip_range),
        }

    def _weights(self, minibatch: Episodes) -> torch.Tensor:
        """Return (B, 1) weights of the steps of each text in the loss of a minibatch."""
        if self.config.variant in ("grpo", "gspo"):
            divisors = len(minibatch) * minibatch.num_steps[:, None]
        elif self.config.variant in ("rloo", "dapo", "cispo"):
            divisors = minibatch.num_steps.sum().expand(len(minibatch), 1)
        else:
            divisors = torch.full((len(minibatch), 1), len(minibatch) * text_env(self.env).max_new_tokens)
        return 1 / divisors.double()
