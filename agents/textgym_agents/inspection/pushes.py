"""What a loss does to the probability of each token, recorded while an agent computes its own gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from textgym.lm import log_prob
from textgym_agents.agent import Agent, LossFunction
from textgym_agents.episodes import Episodes
from textgym_agents.policy import Evaluation, LMPolicy
from textgym_agents.q_policy import QPolicy, QValues

__all__ = ["PushRecorder"]


@dataclass
class _Part:
    """The episodes of one forward, and (M,) zeros that are added to their log-probabilities on the way to the loss."""

    episodes: Episodes
    actions: torch.Tensor
    policy: torch.Tensor
    kl: torch.Tensor
    entropy: torch.Tensor
    log_probs: torch.Tensor | None = None
    raw: Evaluation | None = None
    scale: torch.Tensor | None = None
    slope: torch.Tensor | None = None


class PushRecorder:
    """Records the push of each token during the updates of an agent, which it changes: give it a copy.

    The push of a token is ``-dL / d log pi(a_t|s_t)``, L being the loss as it is differentiated, weights of the steps
    included: positive if the loss raises the probability. The derivative is taken with the other tokens in constant
    proportion to each other, that is along the logit of a_t: ``d / d log pi(a) = (d / d logit_a) / (1 - pi(a))``.
    Of a loss of log pi(a_t|s_t) alone it is the plain derivative; of the entropy
    ``dH / d log pi(a) = -pi(a) (log pi(a) + H) / (1 - pi(a))``. Of a ``QPolicy`` it is ``-dL / dQ(s_t, a_t)``.

    Nothing is computed anew: zeros that require a gradient are added to what the agent's loss reads, and the agent's
    own ``backward`` leaves the derivatives in them. The pushes of several gradient steps are summed.

    Args:
        agent: The agent. Its policy is an ``LMPolicy`` or a ``QPolicy``.
        episodes: B episodes of at most T steps, whose infos are B different objects, by which they are recognized in
            minibatches. Other episodes, such as those of a replay buffer, are not recorded.
        take_steps: Whether the optimizer steps; if not, the weights stay as they are.

    Attributes:
        policy: (B, T) push of all terms but the two below.
        kl: (B, T) push of the KL penalty, if it is in the loss and not in the rewards.
        entropy: (B, T) push of the entropy bonus.
        tabular: (B, T) push times ``|e_a - pi(.|s_t)|^2``, e_a being 1 at a_t and 0 elsewhere: the change of
            log pi(a_t|s_t) by a gradient step of size 1 on the logits, if each state had logits of its own. It is small
            where the token is nearly certain. Of a ``QPolicy`` the push.
        ratio: (B, T) pi(a_t|s_t) / pi_old(a_t|s_t) in the last gradient step, NaN where a token was in none.
        clipped: (B, T) bool, True where the policy term had no gradient in some step, though the advantage is not 0.
        num_steps: Gradient steps.
        num_buffer_steps: Those among them on episodes drawn from a buffer, whose pushes are not recorded.

    Raises:
        TypeError: If the agent's policy is of another class.
    """

    def __init__(self, agent: Agent, episodes: Episodes, *, take_steps: bool = True) -> None:
        shape = episodes.mask.shape
        self.policy, self.kl, self.entropy = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
        self.tabular, self.ratio = torch.zeros(shape), torch.full(shape, torch.nan)
        self.clipped = torch.zeros(shape, dtype=torch.bool)
        self.num_steps = self.num_buffer_steps = 0
        self._rows = {id(info): row for row, info in enumerate(episodes.infos)}
        self._parts: list[_Part] = []
        self._current: _Part | None = None
        self._agent = agent
        self._backward = agent.backward
        self._step: Callable[[], dict[str, float]] = agent.optimizer_step if take_steps else dict
        agent.backward = self._recorded_backward  # type: ignore[method-assign]
        agent.optimizer_step = self._recorded_step  # type: ignore[method-assign]
        policy = agent.policy
        self._evaluate: Callable[..., Any]
        if isinstance(policy, LMPolicy):
            self._evaluate = policy.evaluate_states
            policy.evaluate_states = self._probed_states  # type: ignore[method-assign]
        elif isinstance(policy, QPolicy):
            self._evaluate = policy.evaluate
            policy.evaluate = self._probed_q  # type: ignore[method-assign]
        else:
            raise TypeError(
                f"pushes are recorded of agents with an LMPolicy or a QPolicy, got a {type(policy).__name__} of "
                f"{type(agent).__name__}"
            )
        if hasattr(agent, "kl"):
            self._kl_loss = agent.kl.loss
            agent.kl.loss = self._probed_kl

    def record(self, episodes: Episodes, loss: LossFunction) -> None:
        """Record the pushes of a loss, averaged over the steps of the episodes, without a gradient step."""
        self._recorded_backward(episodes, loss)
        self._commit()

    def detach(self) -> None:
        """Give the agent its own methods back."""
        agent = self._agent
        for owner in (agent, agent.policy, getattr(agent, "kl", None)):
            for name in ("backward", "optimizer_step", "evaluate", "evaluate_states", "loss"):
                if getattr(vars(owner).get(name) if owner else None, "__self__", None) is self:
                    delattr(owner, name)

    def _recorded_backward(
        self, minibatch: Episodes, loss: LossFunction, weights: torch.Tensor | None = None
    ) -> dict[str, float]:
        self._parts = []

        def probed(part: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            actions = part.actions()
            policy, kl, entropy = (torch.zeros(len(actions), requires_grad=True) for _ in range(3))
            self._current = recorded = _Part(part, actions, policy, kl, entropy)
            self._parts.append(recorded)
            result = loss(part)
            self._current = recorded.raw = None
            return result

        return self._backward(minibatch, probed, weights)

    def _recorded_step(self) -> dict[str, float]:
        metrics = self._step()
        is_known = any(id(info) in self._rows for part in self._parts for info in part.episodes.infos)
        self.num_buffer_steps += not is_known
        self._commit()
        self.num_steps += 1
        return metrics

    def _commit(self) -> None:
        """Add the derivatives of the last backward to the totals."""
        for part in self._parts:
            episodes = part.episodes
            rows = torch.tensor([self._rows.get(id(info), -1) for info in episodes.infos])
            known = rows >= 0
            rows = rows[known]
            pushes = [-each.grad for each in (part.policy, part.kl, part.entropy) if each.grad is not None]
            summed = torch.stack(pushes).sum(dim=0) if pushes else torch.zeros(len(part.actions))
            summed = summed if part.slope is None else summed * part.slope.cpu()
            self.tabular.index_add_(0, rows, episodes.spread(summed)[known])
            for total, probe in ((self.policy, part.policy), (self.kl, part.kl), (self.entropy, part.entropy)):
                push = torch.zeros(len(part.actions)) if probe.grad is None else -probe.grad
                total.index_add_(0, rows, episodes.spread(push)[known])
                if probe is part.policy and episodes.advantages is not None:
                    without = (episodes.spread(push) == 0) & (episodes.advantages != 0) & episodes.mask
                    self.clipped[rows] |= without[known]
            if part.log_probs is not None:
                ratio = (episodes.spread(part.log_probs) - episodes.log_probs).exp()
                self.ratio[rows] = torch.where(episodes.mask, ratio, torch.nan)[known]
        self._parts = []

    def _probed_states(self, *args: Any, **kwargs: Any) -> Evaluation:
        flat: Evaluation = self._evaluate(*args, **kwargs)
        part = self._current
        if part is None or not torch.is_grad_enabled():  # a reference or a target network
            return flat
        actions = part.actions.to(flat.logits.device)
        count = len(actions)  # states in which an episode was cut off come after those of the actions
        part.raw = flat
        part.log_probs = log_prob(flat.logits[:count].detach(), actions)
        rest = -torch.expm1(part.log_probs)  # 1 - pi(a)
        part.scale = torch.where(rest > 0, 1 / rest, 0.0)
        probs = torch.softmax(flat.logits[:count].detach(), dim=-1)
        part.slope = rest.square() + probs.square().sum(dim=-1) - part.log_probs.exp().square()
        entropies = flat.entropies[:count].detach()
        slopes = -part.log_probs.exp() * (part.log_probs + entropies) * part.scale
        return flat._replace(
            log_probs=_added(flat.log_probs, part.policy),
            entropies=_added(flat.entropies, part.entropy.to(slopes.device) * slopes),
            logits=_shifted(flat.logits, actions, part.policy.to(slopes.device) * part.scale),
        )

    def _probed_kl(self, episodes: Episodes, evaluation: Evaluation) -> torch.Tensor:
        part = self._current
        if part is None or part.raw is None or part.scale is None:
            return self._kl_loss(episodes, evaluation)
        raw, actions = part.raw, part.actions.to(part.raw.logits.device)
        probed = evaluation._replace(
            log_probs=episodes.spread(_added(raw.log_probs, part.kl)),
            logits=_shifted(raw.logits, actions, part.kl.to(part.scale.device) * part.scale),
        )
        return self._kl_loss(episodes, probed)

    def _probed_q(self, *args: Any, **kwargs: Any) -> QValues:
        values: QValues = self._evaluate(*args, **kwargs)
        part = self._current
        if part is None or not torch.is_grad_enabled():
            return values
        actions = part.actions.to(values.q.device)
        return values._replace(q=_shifted(values.q, actions, part.policy.to(values.q.device)))


def _added(values: torch.Tensor, probe: torch.Tensor) -> torch.Tensor:
    """Add (M,) numbers to the first M of (M + K,) values."""
    missing = len(values) - len(probe)
    return values + torch.nn.functional.pad(probe.to(values.device), (0, missing))


def _shifted(logits: torch.Tensor, actions: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Add (M,) numbers to the entries of M actions in the first M of (M + K, V) logits."""
    rows = torch.arange(len(actions), device=logits.device)
    return logits.index_put((rows, actions), shifts.to(logits.dtype), accumulate=True)
