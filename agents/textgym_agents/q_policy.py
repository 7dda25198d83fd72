"""A language model as an action value: Q(s, a) is a head on its last hidden state, or its logits themselves."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from textgym.errors import unknown_name
from textgym.lm import log_prob
from textgym_agents.backbone import LMBackbone
from textgym_agents.episodes import Episodes
from textgym_agents.policy import ActionOutput, choose

__all__ = ["QPolicy", "QValues", "apply_head", "head_on", "legal_in", "spread_values", "states_of", "update_target"]

_SOURCES = ("head", "logits")
_HEADS = "q_heads.safetensors"


class QValues(NamedTuple):
    """What a Q-function says of M states; -inf where an action is invalid."""

    q: torch.Tensor
    """(M, V) float32 Q(s, a), carrying gradients."""
    preferences: torch.Tensor
    """(M, V) float32, by which actions are chosen, the largest being greedy: Q, or Q + T log pi_LM with a prior."""


class QPolicy(nn.Module):
    """A causal language model that scores every next token, and acts by these scores.

    It acts by (1 - epsilon) softmax(Q / T) + epsilon uniform over the legal tokens; T = 0 takes the largest Q. With a
    prior the first part is pi_LM(a|s) exp(Q / T), normalised: where many tokens are worth the same, the language model
    decides, which keeps text sane where the vocabulary is large.

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model; see
            ``textgym.lm.load_lm``. A loaded model is used as it is and trained in place.
        q_from: ``"head"``: a LayerNorm and a linear head on the hidden state, which begins at Q = 0. ``"logits"``: the
            model's own logits; with T = 1 the untrained policy is the language model. That is for small vocabularies:
            pretrained logits lie far from any return, and bringing them there destroys what they knew.
        dueling: Whether Q(s, a) = V(s) + A(s, a) - mean of A(s, .) over the legal actions (Wang et al. 2016,
            arXiv:1511.06581), A being what ``q_from`` says and V a further head.
        head_gradient: Whether the loss also trains the model under a head. Off, the model's weights are frozen.
        lm_prior: Whether acting by a temperature starts from the language model's own distribution.
        **kwargs: Of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    Attributes:
        epsilon: Share of the actions that are drawn uniformly, from 0 to 1.
        temperature: T, in units of return.

    Raises:
        ValueError: If ``q_from`` is unknown, or goes together with none of the other choices.

    >>> policy = QPolicy("tiny", q_from="logits")
    >>> policy.temperature = 1.0
    >>> policy.act(np.array([[40, 41, 1024, 1024]]), generator=torch.Generator().manual_seed(0)).actions.shape
    (1,)
    """

    def __init__(
        self,
        model: Any = "tiny",
        *,
        q_from: Literal["head", "logits"] = "head",
        dueling: bool = False,
        head_gradient: bool = True,
        lm_prior: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if q_from not in _SOURCES:
            raise unknown_name("q_from", q_from, _SOURCES)
        if q_from == "logits" and (lm_prior or not head_gradient):
            raise ValueError("lm_prior and head_gradient=False need q_from='head': logits as Q are the model")
        self.backbone = model if isinstance(model, LMBackbone) else LMBackbone(model, **kwargs)
        self.q_from, self.dueling, self.head_gradient, self.lm_prior = q_from, dueling, head_gradient, lm_prior
        self.q_head = head_on(self.backbone, self.vocab_size) if q_from == "head" else None
        self.value_head = head_on(self.backbone, 1) if dueling else None
        if not head_gradient:
            self.backbone.requires_grad_(False)
        self.epsilon = 0.0
        self.temperature = 0.0

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
        """Choose the next token of N texts, exploring unless ``deterministic``; arguments as of ``LMPolicy.act``.

        Returns:
            Tokens, their log-probabilities with the exploration in it, and max Q (T = 0) or T log sum exp(Q / T), over
            the prior if there is one.

        Raises:
            FloatingPointError: If the model has diverged and its values are NaN.
        """
        logits, hidden = self.backbone.step(ids, active)
        legal = None if action_masks is None else torch.tensor(action_masks, device=logits.device)
        preferences = self._read(logits, hidden, legal).preferences
        behaviour = behaviour_log_probs(preferences, self.epsilon, self.temperature)
        if deterministic:  # epsilon = 1 leaves no trace of the preferences in the behaviour
            actions, _ = choose(preferences, deterministic=True)
            log_probs = log_prob(behaviour, torch.from_numpy(actions).to(behaviour.device)).cpu().numpy()
        else:
            actions, log_probs = choose(behaviour, generator=generator)
        return ActionOutput(actions, log_probs, soft_values(preferences, self.temperature).cpu().numpy())

    def evaluate(self, episodes: Episodes, *, with_cuts: bool = False) -> QValues:
        """Evaluate all states of all episodes in one forward; see ``QValues``.

        Args:
            episodes: B episodes of M steps.
            with_cuts: Whether the states that a time limit cut off, K of them, follow the M states that were acted in.
                What is legal there was not recorded: all tokens count.
        """
        rows, columns = states_of(episodes, with_cuts=with_cuts)
        logits, hidden = self.backbone.states(episodes.ids, rows, columns, episodes.prompt_lengths)
        return self._read(logits, hidden, legal_in(episodes, len(rows), self.vocab_size))

    def q_values(self, episodes: Episodes) -> torch.Tensor:
        """Return (M, V) float32 Q(s_t, .) of the M steps that were taken, one episode after the other."""
        return self.evaluate(episodes).q

    def frozen_copy(self) -> "QPolicy":
        """Return a copy without gradients, which shares the weights that do not train."""
        return self._twin(self.backbone.frozen_copy()).requires_grad_(False)

    def merged(self) -> "QPolicy":
        """Return an independent copy whose low-rank adapters have become part of its weights."""
        return self._twin(self.backbone.merged())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a plain Hugging Face folder, with the heads and the settings in a file of their own beside the model.

        ``AutoModelForCausalLM.from_pretrained(folder)`` loads the language model, ``QPolicy.from_pretrained`` both.
        """
        self.backbone.save_pretrained(folder)
        settings = {**self._settings(), "epsilon": self.epsilon, "temperature": self.temperature}
        save_file(self._head_state(), Path(folder) / _HEADS, {"settings": json.dumps(settings)})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> "QPolicy":
        """Load what ``save_pretrained`` wrote; ``kwargs`` as in ``LMBackbone.from_pretrained``."""
        path = Path(folder) / _HEADS
        with safe_open(path, "pt") as file:
            settings = json.loads(file.metadata()["settings"])
        epsilon, temperature = settings.pop("epsilon"), settings.pop("temperature")
        policy = cls(LMBackbone.from_pretrained(folder, **kwargs), **settings)
        policy.load_state_dict(load_file(path), strict=False)
        policy.epsilon, policy.temperature = epsilon, temperature
        return policy

    def _read(self, logits: torch.Tensor, hidden: torch.Tensor, legal: torch.Tensor | None) -> QValues:
        """Return the values of M states from (M, V) logits, (M, H) hidden states and (M, V) legal actions."""
        q = logits if self.q_head is None else apply_head(self.q_head, hidden)
        legal = torch.ones_like(q, dtype=torch.bool) if legal is None else legal.to(q.device)
        if self.value_head is not None:
            mean = torch.where(legal, q, 0.0).sum(dim=-1, keepdim=True) / legal.sum(dim=-1, keepdim=True)
            q = apply_head(self.value_head, hidden) + q - mean
        q = q.masked_fill(~legal, -torch.inf)
        if not self.lm_prior:
            return QValues(q, q)
        with torch.no_grad():
            prior = F.log_softmax(logits.masked_fill(~legal, -torch.inf), dim=-1)
            return QValues(q, (q + self.temperature * prior).masked_fill(~legal, -torch.inf))

    def _settings(self) -> dict[str, Any]:
        names = ("q_from", "dueling", "head_gradient", "lm_prior")
        return {name: getattr(self, name) for name in names}

    def _head_state(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}

    def _twin(self, backbone: LMBackbone) -> "QPolicy":
        twin = QPolicy(backbone, **self._settings())
        twin.load_state_dict(self._head_state(), strict=False)
        twin.epsilon, twin.temperature = self.epsilon, self.temperature
        return twin


def head_on(backbone: LMBackbone, width: int) -> nn.Sequential:
    """Return a head on the hidden state that begins at 0.

    Without the norm in it, token values overestimate each other into divergence.
    """
    linear = nn.Linear(backbone.hidden_size, width, device=backbone.device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(backbone.hidden_size, device=backbone.device), linear)


def apply_head(head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Return (M, width) float32 of (M, H) hidden states of any type."""
    values: torch.Tensor = head(hidden.to(next(head.parameters()).dtype))
    return values.float()


def behaviour_log_probs(preferences: torch.Tensor, epsilon: float, temperature: float) -> torch.Tensor:
    """Return (N, V) log[(1 - epsilon) softmax(preferences / T) + epsilon uniform], -inf where invalid.

    >>> behaviour_log_probs(torch.tensor([[0.0, 1.0, -torch.inf]]), 0.5, 0.0).exp()
    tensor([[0.2500, 0.7500, 0.0000]])
    """
    legal = preferences > -torch.inf
    if temperature > 0:
        exploiting = torch.softmax(preferences / temperature, dim=-1)
    else:
        exploiting = F.one_hot(preferences.argmax(dim=-1), preferences.shape[1]).float()
    uniform = legal / legal.sum(dim=-1, keepdim=True)
    return ((1 - epsilon) * exploiting + epsilon * uniform).log()


def soft_values(preferences: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return (N,) T log sum exp(preferences / T), which is the maximum at T = 0.

    >>> soft_values(torch.tensor([[1.0, 1.0]]), 1.0) - torch.tensor(2.0).log()
    tensor([1.])
    """
    if temperature == 0:
        return preferences.amax(dim=-1)
    return temperature * torch.logsumexp(preferences / temperature, dim=-1)


def states_of(episodes: Episodes, *, with_cuts: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of the M states that were acted in, and of the K that a time limit cut off after them."""
    rows, columns = episodes.states()
    if not with_cuts:
        return rows, columns
    cut = episodes.truncated.nonzero()[:, 0]
    return torch.cat([rows, cut]), torch.cat([columns, (episodes.text_lengths - 1)[cut]])


def legal_in(episodes: Episodes, num_states: int, vocab_size: int) -> torch.Tensor | None:
    """Return (M, V) or (M + K, V) bool, what is legal in the states of ``states_of``; None where all is.

    What is legal in a state that was cut off was not recorded: all tokens count.
    """
    legal = episodes.legal_actions(vocab_size)
    return None if legal is None else F.pad(legal, (0, 0, 0, num_states - len(legal)), value=True)


def spread_values(episodes: Episodes, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, T) values of the steps and (B,) values of what was cut off, 0 elsewhere, from (M,) or (M + K,)."""
    num_steps = int(episodes.num_steps.sum())
    last_values = torch.zeros(len(episodes))
    if len(flat) > num_steps:
        last_values[episodes.truncated] = flat[num_steps:].float().cpu()
    return episodes.spread(flat[:num_steps]), last_values


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target's weights ``tau`` of the way to the online ones (Polyak averaging); 1 copies them."""
    for there, here in zip(target.parameters(), online.parameters(), strict=True):
        if there is not here:  # weights that do not train are shared
            there.lerp_(here, tau)
