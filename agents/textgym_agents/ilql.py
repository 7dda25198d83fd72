"""Implicit language Q-learning from recorded episodes."""

import copy
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from textgym_agents.config import CriticConfig, DiscountConfig, OfflineAgentConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import expectile_loss, td_loss
from textgym_agents.offline import OfflineAgent
from textgym_agents.policy import BasePolicy, apply_head, make_head, masked, polyak_update
from textgym_agents.returns import lambda_returns

__all__ = ["ILQL", "ILQLConfig", "ILQLPolicy"]


class ILQLValues(NamedTuple):
    """Outputs of the heads in M states; (M, V) entries are -inf where invalid."""

    logits: torch.Tensor
    """(M, V) float32 of the language model, which imitates the data."""
    q: list[torch.Tensor]
    """Of each Q-head (M, V) float32 Q(s, a)."""
    target_q: torch.Tensor
    """(M, V) float32, the minimum of the target heads, without gradients."""
    values: torch.Tensor
    """(M,) float32 V(s)."""


class ILQLPolicy(BasePolicy):
    """A language model with Q-heads and a value head, which acts by softmax(logits + beta (Q - V)).

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model, which is trained in
            place; see ``textgym.lm.load_lm``. Or an ``LMBackbone``.
        num_q_heads: Q-heads, of which the minimum is used; two are the clipped double Q of the paper.
        head_gradient: Whether the heads' losses also train the model under them.
        **kwargs: Keywords of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    Attributes:
        beta: Coefficient of the advantage in the logits, in nats per unit of return.

    Raises:
        ValueError: If ``num_q_heads`` is less than 1.
    """

    settings = ("num_q_heads", "head_gradient")
    variables = ("beta",)

    def __init__(self, model: Any = "tiny", *, num_q_heads: int = 2, head_gradient: bool = True, **kwargs: Any) -> None:
        if num_q_heads < 1:
            raise ValueError(f"num_q_heads must be at least 1, got {num_q_heads!r}")
        super().__init__(model, **kwargs)
        self.num_q_heads, self.head_gradient = num_q_heads, head_gradient
        self.q_heads = nn.ModuleList([make_head(self.backbone, self.vocab_size) for _ in range(num_q_heads)])
        self.target_q_heads = copy.deepcopy(self.q_heads).requires_grad_(False)
        self.value_head = make_head(self.backbone, 1)
        self.beta = 1.0

    def action_preferences(
        self, ids: npt.NDArray[np.int64], logits: torch.Tensor, hidden: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log pi_LM + beta (Q - V), twice, and V(s); see ``BasePolicy.action_preferences``."""
        heads = self.from_hidden(logits, hidden)
        preferences = F.log_softmax(logits, dim=-1) + self.beta * (heads.target_q - heads.values[:, None])
        preferences = masked(preferences, valid)
        return preferences, preferences, heads.values

    def evaluate(self, episodes: Episodes, *, with_truncated: bool = False) -> ILQLValues:
        """Return the outputs in the M or M + K states of B episodes, in one forward; see ``QPolicy.evaluate``."""
        states = episodes.states(with_truncated=with_truncated)
        logits, hidden = self.backbone.states(episodes.ids, *states, episodes.prompt_lengths)
        valid = episodes.valid_actions(self.vocab_size, with_truncated=with_truncated)
        return self.from_hidden(logits, hidden, valid)

    def from_hidden(self, logits: torch.Tensor, hidden: torch.Tensor, valid: torch.Tensor | None = None) -> ILQLValues:
        """Return the outputs for M states from (M, V) logits, (M, H) hidden states and (M, V) valid actions."""
        hidden = hidden if self.head_gradient else hidden.detach()
        q = [masked(apply_head(head, hidden), valid) for head in self.q_heads]
        with torch.no_grad():
            target_q = torch.stack([apply_head(head, hidden) for head in self.target_q_heads]).amin(dim=0)
        values = apply_head(self.value_head, hidden)[:, 0]
        return ILQLValues(masked(logits, valid), q, masked(target_q, valid), values)


@dataclass(frozen=True, kw_only=True)
class ILQLConfig(OfflineAgentConfig, DiscountConfig, CriticConfig):
    """Hyper-parameters of ILQL; the number of Q-heads is a keyword of ``ILQLPolicy``."""

    learning_rate: float = 1e-4
    expectile: float = 0.9
    """Expectile of Q that V regresses to: the mean over recorded actions at 1/2, the best of them toward 1."""
    q_lambda: float = 0.9
    """Lambda of the targets of Q: 0 is one-step TD, as in the paper, 1 the Monte Carlo return of the data, which is
    pessimistic. With a terminal reward, one-step targets take many times longer to reach the beginning of a text."""
    cql_coef: float = 0.01
    """Coefficient of the conservative loss, which keeps Q of tokens outside the data low."""
    bc_coef: float = 1.0
    """Coefficient of the behaviour-cloning loss, which fits the logits to the data."""
    beta: float = 32.0
    """Coefficient of the advantage Q - V in the logits when acting, in nats per unit of return. With returns from 0 to
    1 the advantages in a text of n tokens are about 1 / n, so longer texts need a larger beta; too large a beta
    destroys the text."""
    tau: float = 0.1
    """The soft update coefficient ("Polyak update", between 0 and 1) of the target heads, after each gradient step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            expectile=(0, 1),
            q_lambda=(0, 1),
            cql_coef=(0, math.inf),
            bc_coef=(0, math.inf),
            beta=(0, math.inf),
            tau=(0, 1),
        )


class ILQL(OfflineAgent):
    """Implicit Q-learning from recorded episodes: targets never evaluate tokens outside the data.

    Per update: draw B episodes; one step of Adam on the mean over steps of

        sum over heads of (Q(s_t, a_t) - G_t)^2 / 2,  G_t = r_t + gamma V(s_{t+1}),  V = 0 after the end
        + |expectile - [A_t < 0]| A_t^2,              A_t = min of the target heads' Q(s_t, a_t) - V(s_t)
        - cql_coef * sum over heads of log softmax(Q(s_t, .))(a_t)
        - bc_coef * log softmax(logits)(a_t)

    and act with softmax(logits + beta (Q - V)). Differences from Snell et al. 2022 (arXiv:2206.11871): one language
    model serves the behaviour's logits and the heads, where the paper trains two; a LayerNorm before each head;
    ``q_lambda``. One forward over (B, W) ids serves all T steps and all heads.

    Args:
        policy: An ``ILQLPolicy``, or its constructor's first argument, such as ``"tiny"``.
        data: See ``OfflineAgent``, as for the errors.
        config: The hyper-parameters.
    """

    config_class = ILQLConfig
    policy_class = ILQLPolicy
    config: ILQLConfig
    policy: ILQLPolicy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.policy.beta = self.config.beta

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Take one gradient step on B episodes and return metrics under SB3's names.

        Raises:
            FloatingPointError: If the gradient is not finite; the weights are unchanged.
        """
        metrics = self.backward(episodes, self.loss) | self.optimizer_step()
        polyak_update(self.policy.target_q_heads, self.policy.q_heads, self.config.tau)
        return metrics

    def loss(self, episodes: Episodes) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the (B, T) loss of each step, and its terms."""
        config = self.config
        evaluation = self.policy.evaluate(episodes, with_truncated=config.bootstrap_truncated)
        actions = episodes.actions().to(evaluation.logits.device)[:, None]

        def of_actions(entries: torch.Tensor) -> torch.Tensor:
            return episodes.spread(entries[: len(actions)].gather(1, actions)[:, 0])

        values, last_values = episodes.spread_values(evaluation.values)
        targets = lambda_returns(
            episodes.rewards, values.detach(), episodes.num_steps, config.gamma, config.q_lambda, last_values.detach()
        )
        terms = {
            "q_loss": torch.stack([td_loss(of_actions(q), targets, "squared") for q in evaluation.q]).sum(dim=0),
            "value_loss": expectile_loss(of_actions(evaluation.target_q) - values, config.expectile),
            "cql_loss": -torch.stack([of_actions(F.log_softmax(q, dim=-1)) for q in evaluation.q]).sum(dim=0),
            "cross_entropy": -of_actions(F.log_softmax(evaluation.logits, dim=-1)),
        }
        loss = terms["q_loss"] + terms["value_loss"]
        loss = loss + config.cql_coef * terms["cql_loss"] + config.bc_coef * terms["cross_entropy"]
        return loss, {"value": values, **terms}
