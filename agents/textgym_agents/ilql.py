"""Implicit Q-learning for language: find in recorded texts what was worth writing, and write more of it."""

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from textgym_agents.backbone import LMBackbone
from textgym_agents.config import OfflineAgentConfig, ReturnConfig, check_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import expectile_loss, td_loss
from textgym_agents.metrics import StepMeans
from textgym_agents.offline import OfflineAgent
from textgym_agents.policy import ActionOutput, choose
from textgym_agents.q_policy import apply_head, head_on, legal_in, spread_values, states_of, update_target
from textgym_agents.returns import lambda_returns

__all__ = ["ILQL", "ILQLConfig", "ILQLPolicy"]

_HEADS = "ilql_heads.safetensors"


class ILQLValues(NamedTuple):
    """What the policy says of M states, (M, V) -inf where invalid; the rest is (M,) for given actions."""

    logits: torch.Tensor
    """(M, V) float32 of the language model, which learns who wrote the data."""
    q: list[torch.Tensor]
    """Of each Q-head (M, V) float32 Q(s, a)."""
    target_q: torch.Tensor
    """(M, V) float32, the least of the target heads, without gradients."""
    values: torch.Tensor
    """(M,) float32 V(s)."""


class ILQLPolicy(nn.Module):
    """A language model with Q-heads and a value head, which acts by softmax(logits + beta (Q - V)).

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model; see
            ``textgym.lm.load_lm``. A loaded model is used as it is and trained in place.
        num_q_heads: Q-heads, of which the least counts; two are the clipped double Q of the paper.
        head_gradient: Whether the heads' losses also train the model under them.
        **kwargs: Of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    Attributes:
        beta: How much an advantage of 1 adds to a token's logit, in nats.

    Raises:
        ValueError: If ``num_q_heads`` is less than 1.
    """

    def __init__(self, model: Any = "tiny", *, num_q_heads: int = 2, head_gradient: bool = True, **kwargs: Any) -> None:
        super().__init__()
        if num_q_heads < 1:
            raise ValueError(f"num_q_heads must be at least 1, got {num_q_heads!r}")
        self.backbone = model if isinstance(model, LMBackbone) else LMBackbone(model, **kwargs)
        self.head_gradient = head_gradient
        self.q_heads = nn.ModuleList([head_on(self.backbone, self.vocab_size) for _ in range(num_q_heads)])
        self.target_q_heads = copy.deepcopy(self.q_heads).requires_grad_(False)
        self.value_head = head_on(self.backbone, 1)
        self.beta = 1.0

    @property
    def model(self) -> PreTrainedModel:
        """The language model."""
        return self.backbone.model

    @property
    def vocab_size(self) -> int:
        """V, the width of the model's logits."""
        return self.backbone.vocab_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @torch.no_grad()
    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts; see ``LMPolicy.act``."""
        says = self._read(*self.backbone.step(ids, active), None)
        logits = F.log_softmax(says.logits, dim=-1) + self.beta * (says.target_q - says.values[:, None])
        actions, log_probs = choose(logits, action_masks, deterministic=deterministic, generator=generator)
        return ActionOutput(actions, log_probs, says.values.cpu().numpy())

    def evaluate(self, episodes: Episodes, *, with_cuts: bool = False) -> ILQLValues:
        """Evaluate all states of all episodes in one forward; ``with_cuts`` as in ``QPolicy.evaluate``."""
        rows, columns = states_of(episodes, with_cuts=with_cuts)
        logits, hidden = self.backbone.states(episodes.ids, rows, columns, episodes.prompt_lengths)
        return self._read(logits, hidden, legal_in(episodes, len(rows), self.vocab_size))

    def merged(self) -> "ILQLPolicy":
        """Return an independent copy whose low-rank adapters have become part of its weights."""
        twin = ILQLPolicy(self.backbone.merged(), num_q_heads=len(self.q_heads), head_gradient=self.head_gradient)
        twin.load_state_dict(self._head_state(), strict=False)
        twin.beta = self.beta
        return twin

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a plain Hugging Face folder, with the heads and the settings in a file of their own beside the model.

        ``AutoModelForCausalLM.from_pretrained(folder)`` loads the language model, which imitates the data.
        """
        self.backbone.save_pretrained(folder)
        settings = {"num_q_heads": len(self.q_heads), "head_gradient": self.head_gradient, "beta": self.beta}
        save_file(self._head_state(), Path(folder) / _HEADS, {"settings": json.dumps(settings)})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> "ILQLPolicy":
        """Load what ``save_pretrained`` wrote; ``kwargs`` as in ``LMBackbone.from_pretrained``."""
        with safe_open(Path(folder) / _HEADS, "pt") as file:
            settings = json.loads(file.metadata()["settings"])
        beta = settings.pop("beta")
        policy = cls(LMBackbone.from_pretrained(folder, **kwargs), **settings)
        policy.load_state_dict(load_file(Path(folder) / _HEADS), strict=False)
        policy.beta = beta
        return policy

    def _read(self, logits: torch.Tensor, hidden: torch.Tensor, legal: torch.Tensor | None) -> ILQLValues:
        """Return what M states are worth from (M, V) logits, (M, H) hidden states and (M, V) legal actions."""
        hidden = hidden if self.head_gradient else hidden.detach()

        def masked(values: torch.Tensor) -> torch.Tensor:
            return values if legal is None else values.masked_fill(~legal.to(values.device), -torch.inf)

        q = [masked(apply_head(head, hidden)) for head in self.q_heads]
        with torch.no_grad():
            target_q = torch.stack([apply_head(head, hidden) for head in self.target_q_heads]).amin(dim=0)
        return ILQLValues(masked(logits), q, masked(target_q), apply_head(self.value_head, hidden)[:, 0])

    def _head_state(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}


@dataclass(frozen=True, kw_only=True)
class ILQLConfig(OfflineAgentConfig, ReturnConfig):
    """What decides a run of ILQL. How many Q-heads there are is the ``ILQLPolicy``'s."""

    learning_rate: float = 1e-4
    expectile: float = 0.9
    """Where V lies among the Q of the recorded actions: 1/2 at their mean, toward 1 at the best of them."""
    q_lambda: float = 0.9
    """Lambda of the targets of Q: 0 is one-step TD, as in the paper, 1 the Monte Carlo return of the data, which is
    pessimistic. Where a reward comes once, at a text's end, one-step targets take many times longer to reach its
    beginning."""
    cql_coef: float = 0.01
    """Weight of the conservative term, which keeps the Q of tokens that nobody wrote below the others."""
    bc_coef: float = 1.0
    """Weight of behaviour cloning, by which the language model's logits become those of who wrote the data."""
    beta: float = 32.0
    """How much an advantage of 1 adds to a token's logit when writing, in nats. Where a text of n tokens returns from 0
    to 1, advantages are about 1 / n: the longer the texts, the larger. Too much of it wrecks the text."""
    tau: float = 0.1
    """Polyak coefficient of the target heads' update, after each gradient step."""

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
    """Implicit Q-learning from recorded episodes: no token is ever judged that nobody wrote.

    Per update: draw B episodes; one step of AdamW on the mean over steps of

        sum over heads of (Q(s_t, a_t) - G_t)^2 / 2,  G_t = r_t + gamma V(s_{t+1}),  V = 0 after the end
        + |expectile - [A_t < 0]| A_t^2,              A_t = min of the target heads' Q(s_t, a_t) - V(s_t)
        - cql_coef * sum over heads of log softmax(Q(s_t, .))(a_t)
        - bc_coef * log softmax(logits)(a_t)

    and write with softmax(logits + beta (Q - V)). What differs from Snell et al. 2022 (arXiv:2206.11871): one language
    model serves the behaviour's logits and the heads, where the paper trains two; a LayerNorm before each head;
    ``q_lambda``. One forward over (B, W) ids serves all T steps and all heads.

    Args:
        policy: An ``ILQLPolicy``, or what its constructor takes (``"tiny"``).
        data: See ``OfflineAgent``, as for the errors.
        config: The settings.
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
            FloatingPointError: If a gradient is not finite; the weights are as they were.
        """
        means = StepMeans(int(episodes.num_steps.sum()))
        metrics = self.descend(self._losses(episodes, means)) | means.metrics()
        update_target(self.policy.target_q_heads, self.policy.q_heads, self.config.tau)
        return metrics

    def _losses(self, episodes: Episodes, means: StepMeans) -> Iterator[torch.Tensor]:
        """Yield the loss of a batch, a micro-batch at a time."""
        config = self.config
        for index in self.micro_batches(np.arange(len(episodes))):
            part = episodes[index]
            says = self.policy.evaluate(part, with_cuts=config.bootstrap_truncated)
            rows, columns = part.states()
            actions = part.ids[rows, columns + 1].to(says.logits.device)[:, None]

            def of_actions(scores: torch.Tensor, part: Episodes = part, taken: torch.Tensor = actions) -> torch.Tensor:
                return part.spread(scores[: len(taken)].gather(1, taken)[:, 0])

            values, last_values = spread_values(part, says.values)
            targets = lambda_returns(
                part.rewards, values.detach(), part.num_steps, config.gamma, config.q_lambda, last_values.detach()
            )
            terms = {
                "q_loss": torch.stack([td_loss(of_actions(q), targets, "squared") for q in says.q]).sum(dim=0),
                "value_loss": expectile_loss(of_actions(says.target_q) - values, config.expectile),
                "cql_loss": -torch.stack([of_actions(F.log_softmax(q, dim=-1)) for q in says.q]).sum(dim=0),
                "cross_entropy": -of_actions(F.log_softmax(says.logits, dim=-1)),
            }
            loss = terms["q_loss"] + terms["value_loss"]
            loss = loss + config.cql_coef * terms["cql_loss"] + config.bc_coef * terms["cross_entropy"]
            means.add(part.mask, value=values, **terms)
            yield loss[part.mask].sum() / means.num_steps
