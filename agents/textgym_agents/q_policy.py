"""A language model as an action value: Q(s, a) is a head on its last hidden state, or its logits."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from textgym.errors import unknown_name
from textgym_agents.episodes import Episodes
from textgym_agents.policy import BasePolicy, apply_head, make_head

__all__ = ["QPolicy", "QValues"]

_SOURCES = ("head", "logits")


class QValues(NamedTuple):
    """Q-values of M states, -inf where an action is invalid."""

    q: torch.Tensor
    """(M, V) float32 Q(s, a), with gradients."""
    preferences: torch.Tensor
    """(M, V) float32, whose maximum is the greedy action: Q, or Q + T log pi_LM with a prior; -inf where a token is
    implausible."""


class QPolicy(BasePolicy):
    """A language model that estimates Q(s, a) of every next token and acts by it.

    It acts by (1 - epsilon) softmax(Q / T) + epsilon uniform; T = 0 takes the largest Q. With a prior the first part is
    pi_LM(a|s) exp(Q / T), normalised: among tokens of equal value the language model decides. Only plausible tokens are
    chosen, those of at least ``min_p`` times the probability of the model's likeliest: over a large vocabulary the
    maximum of Q would otherwise be that of its errors in tokens that were never tried (Fujimoto et al. 2019, Off-policy
    deep reinforcement learning without exploration, arXiv:1812.02900).

    ``lm_prior``, ``min_p`` and ``head_gradient`` are by default True, 0.2 and False with a head, which keeps the
    language model as it is, and False, 0 and True with ``q_from="logits"``.

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model, which is trained in
            place; see ``textgym.lm.load_lm``. Or an ``LMBackbone``.
        q_from: ``"head"``: a LayerNorm and a linear head on the hidden state, which starts at Q = 0. ``"logits"``: the
            model's logits, for small vocabularies: with T = 1 the untrained policy is the language model. Pretrained
            logits are far from any return, and fitting them to returns destroys the language model.
        dueling: Whether Q(s, a) = V(s) + A(s, a) - mean of A(s, .) over the valid actions (Wang et al. 2016,
            arXiv:1511.06581), with A from ``q_from`` and V a second head.
        head_gradient: Whether the loss also trains the model under a head. Off, the model's weights are frozen.
        lm_prior: Whether acting with a temperature weighs tokens by the language model's distribution.
        min_p: Least probability of a plausible token, as a fraction of the likeliest token's; 0 allows all.
        **kwargs: Keywords of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    Attributes:
        epsilon: Fraction of uniformly random actions, from 0 to 1.
        temperature: T, in units of return.

    Raises:
        ValueError: If ``q_from`` is unknown, ``min_p`` is not from 0 to 1, or with ``"logits"`` there is an
            ``lm_prior``, a ``min_p``, or no ``head_gradient``.

    >>> import numpy as np
    >>> policy = QPolicy("tiny", q_from="logits")
    >>> policy.temperature = 1.0
    >>> pad = policy.vocab_size
    >>> policy.act(np.array([[40, 41, pad, pad]]), generator=torch.Generator().manual_seed(0)).actions.shape
    (1,)
    """

    settings = ("q_from", "dueling", "head_gradient", "lm_prior", "min_p")
    variables = ("epsilon", "temperature")

    def __init__(
        self,
        model: Any = "tiny",
        *,
        q_from: Literal["head", "logits"] = "head",
        dueling: bool = False,
        head_gradient: bool | None = None,
        lm_prior: bool | None = None,
        min_p: float | None = None,
        **kwargs: Any,
    ) -> None:
        if q_from not in _SOURCES:
            raise unknown_name("q_from", q_from, _SOURCES)
        if q_from == "logits" and (lm_prior or min_p or head_gradient is False):
            raise ValueError("lm_prior, min_p and head_gradient=False need q_from='head': logits as Q are the model")
        has_head = q_from == "head"
        head_gradient = not has_head if head_gradient is None else head_gradient
        lm_prior = has_head if lm_prior is None else lm_prior
        min_p = 0.2 * has_head if min_p is None else float(min_p)
        if not 0 <= min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, got {min_p!r}")
        super().__init__(model, **kwargs)
        self.q_from, self.dueling, self.head_gradient, self.lm_prior = q_from, dueling, head_gradient, lm_prior
        self.min_p = min_p
        self.q_head = make_head(self.backbone, self.vocab_size) if q_from == "head" else None
        self.value_head = make_head(self.backbone, 1) if dueling else None
        if not head_gradient:
            self.backbone.requires_grad_(False)
        self.epsilon = 0.0
        self.temperature = 0.0

    def action_preferences(
        self, ids: npt.NDArray[np.int64], logits: torch.Tensor, hidden: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log-probabilities with exploration, preferences without it, and max Q or T log sum exp(Q / T)."""
        preferences = self.from_hidden(logits, hidden, valid).preferences
        behaviour = behaviour_log_probs(preferences, self.epsilon, self.temperature)
        return behaviour, preferences, soft_values(preferences, self.temperature)

    def evaluate(self, episodes: Episodes, *, with_truncated: bool = False) -> QValues:
        """Return (M, V) or (M + K, V) Q-values and preferences in the states of B episodes, in one forward.

        Args:
            episodes: B episodes of M steps.
            with_truncated: Append the K states in which the time limit cut episodes off; see ``Episodes.states``.
        """
        states = episodes.states(with_truncated=with_truncated)
        logits, hidden = self.backbone.states(episodes.ids, *states, episodes.prompt_lengths)
        valid = episodes.valid_actions(self.vocab_size, with_truncated=with_truncated)
        return self.from_hidden(logits, hidden, valid)

    def from_hidden(self, logits: torch.Tensor, hidden: torch.Tensor, valid: torch.Tensor | None = None) -> QValues:
        """Return Q of M states from (M, V) logits and (M, H) hidden states, with an (M, V) mask of valid actions."""
        q = logits if self.q_head is None else apply_head(self.q_head, hidden)
        valid = torch.ones_like(q, dtype=torch.bool) if valid is None else valid.to(q.device)
        if self.value_head is not None:
            mean = torch.where(valid, q, 0.0).sum(dim=-1, keepdim=True) / valid.sum(dim=-1, keepdim=True)
            q = apply_head(self.value_head, hidden) + q - mean
        q = q.masked_fill(~valid, -torch.inf)
        if not self.lm_prior and self.min_p == 0:
            return QValues(q, q)
        with torch.no_grad():
            prior = F.log_softmax(logits.masked_fill(~valid, -torch.inf), dim=-1)
            preferences = q + self.temperature * prior if self.lm_prior else q.clone()
            least = prior.amax(dim=-1, keepdim=True) + (math.log(self.min_p) if self.min_p else -torch.inf)
            return QValues(q, preferences.masked_fill(~valid | (prior < least), -torch.inf))


def behaviour_log_probs(preferences: torch.Tensor, epsilon: float, temperature: float) -> torch.Tensor:
    """Return (N, V) log[(1 - epsilon) softmax(preferences / T) + epsilon uniform], -inf where invalid.

    >>> behaviour_log_probs(torch.tensor([[0.0, 1.0, -torch.inf]]), 0.5, 0.0).exp()
    tensor([[0.2500, 0.7500, 0.0000]])
    """
    valid = preferences > -torch.inf
    if temperature > 0:
        exploiting = torch.softmax(preferences / temperature, dim=-1)
    else:
        exploiting = F.one_hot(preferences.argmax(dim=-1), preferences.shape[1]).float()
    uniform = valid / valid.sum(dim=-1, keepdim=True)
    return ((1 - epsilon) * exploiting + epsilon * uniform).log()


def soft_values(preferences: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return (N,) T log sum exp(preferences / T), which is the maximum at T = 0.

    >>> soft_values(torch.tensor([[1.0, 1.0]]), 1.0) - torch.tensor(2.0).log()
    tensor([1.])
    """
    if temperature == 0:
        return preferences.amax(dim=-1)
    return temperature * torch.logsumexp(preferences / temperature, dim=-1)
