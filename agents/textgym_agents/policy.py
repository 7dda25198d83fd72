"""A language model as a policy: pi(a|s) is its next-token distribution, V(s) a head on its last hidden state."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from textgym.lm import log_prob, sample
from textgym_agents.backbone import LMBackbone
from textgym_agents.episodes import Episodes

__all__ = ["ActionOutput", "Evaluation", "LMPolicy", "Policy", "choose", "masked"]


class ActionOutput(NamedTuple):
    """What the policy does in N states."""

    actions: npt.NDArray[np.int64]
    """(N,) token ids."""
    log_probs: npt.NDArray[np.float32]
    """(N,) log pi(a|s), in nats."""
    values: npt.NDArray[np.float32]
    """(N,) V(s)."""


class Policy(Protocol):
    """Whatever can choose tokens, for ``collect`` and ``predict``: a language model, Q-values, a baseline."""

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens it chooses from."""
        ...

    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts.

        Args:
            ids: (N, L) int64, texts right-padded with V, as the environment observes them.
            action_masks: (N, V) bool, True where a token is legal. None makes all legal.
            active: (N,) bool, slots whose choice matters; the others may choose anything.
            deterministic: Choose the best token instead of sampling.
            generator: Randomness of the sampling.
        """
        ...


class Evaluation(NamedTuple):
    """What the policy says about whole episodes, (B, T) with 0 after the end, or about M states, (M,)."""

    log_probs: torch.Tensor
    """log pi(a_t|s_t) in nats, carrying gradients."""
    entropies: torch.Tensor
    """Entropy of pi(.|s_t) in nats, carrying gradients where they were asked for."""
    values: torch.Tensor
    """V(s_t), carrying gradients."""
    logits: torch.Tensor
    """(M, V) float32, of the M steps that were taken, one episode after the other; -inf where invalid."""


class LMPolicy(nn.Module):
    """A causal language model that acts token by token and evaluates whole episodes in one forward.

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model; see
            ``textgym.lm.load_lm``. A loaded model is used as it is and trained in place.
        value_gradient: Whether the value's loss also shapes the language model. Off, the value head reads the hidden
            states without sending gradients into them: learning V does not disturb the text.
        **kwargs: Of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    >>> policy = LMPolicy("tiny")
    >>> choice = policy.act(np.array([[40, 41, 1024, 1024]]), generator=torch.Generator().manual_seed(0))
    >>> choice.actions.shape
    (1,)
    """

    def __init__(self, model: Any = "tiny", *, value_gradient: bool = False, **kwargs: Any) -> None:
        super().__init__()
        self.backbone = model if isinstance(model, LMBackbone) else LMBackbone(model, **kwargs)
        self.value_gradient = value_gradient
        self.value_head = nn.Linear(self.backbone.hidden_size, 1, device=self.backbone.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

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
        """Choose the next token of N texts, feeding the model only what is new in each since the last call.

        Args:
            ids: (N, L) int64, texts right-padded with V, as the environment observes them.
            action_masks: (N, V) bool, True where a token is legal. None makes all legal.
            active: (N,) bool, slots whose choice matters; the others choose at random and are not fed.
            deterministic: Choose the likeliest token instead of sampling.
            generator: Randomness of the sampling.

        Raises:
            FloatingPointError: If the model has diverged and its logits are NaN.
        """
        logits, values = self.step(ids, action_masks, active=active)
        actions, log_probs = choose(logits, deterministic=deterministic, generator=generator)
        return ActionOutput(actions, log_probs, values.cpu().numpy())

    @torch.no_grad()
    def step(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, V) float32 logits, -inf where invalid, and (N,) float32 V(s); arguments as of ``act``."""
        logits, hidden = self.backbone.step(ids, active)
        return masked(logits, action_masks), self._values(hidden).float()

    def evaluate(self, episodes: Episodes, *, entropy_gradient: bool = False) -> Evaluation:
        """Evaluate all steps of all episodes in one forward; see ``Evaluation``.

        Args:
            episodes: B episodes.
            entropy_gradient: Whether gradients flow through the entropies; they cost time.
        """
        rows, columns = episodes.states()
        flat = self.evaluate_states(
            episodes.ids,
            rows,
            columns,
            episodes.ids[rows, columns + 1],
            episodes.legal_actions(self.vocab_size),
            prompt_lengths=episodes.prompt_lengths,
            entropy_gradient=entropy_gradient,
        )
        spread = episodes.spread
        return Evaluation(spread(flat.log_probs), spread(flat.entropies), spread(flat.values), flat.logits)

    def evaluate_states(
        self,
        ids: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        actions: torch.Tensor,
        action_masks: torch.Tensor | None = None,
        *,
        prompt_lengths: torch.Tensor | None = None,
        entropy_gradient: bool = False,
    ) -> Evaluation:
        """Evaluate M actions in M states, from one forward over B whole texts.

        Args:
            ids: (B, W) int64, texts from the left; what stands after a text's end is any token.
            rows: (M,) int64, the text that each state belongs to.
            columns: (M,) int64, the position of the last token of each state.
            actions: (M,) int64, what was chosen in each state.
            action_masks: (M, V) bool, True where a token was legal. None makes all legal.
            prompt_lengths: (B,) int64, tokens at the beginning that a text may share with others, if known.
            entropy_gradient: Whether gradients flow through the entropies; they cost time.

        Returns:
            (M,) log-probabilities, entropies and values, (M, V) logits.
        """
        logits, hidden = self.backbone.states(ids, rows, columns, prompt_lengths)
        if action_masks is not None:
            logits = logits.masked_fill(~action_masks.to(logits.device), -torch.inf)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropies = _entropy(logits)
        values = self._values(hidden if self.value_gradient else hidden.detach()).float()
        return Evaluation(log_prob(logits, actions.to(logits.device)), entropies, values, logits)

    @torch.no_grad()
    def last_values(self, episodes: Episodes) -> torch.Tensor:
        """Return (B,) float32 V of the states after the last actions: what a time limit cut off, 0 elsewhere."""
        cut = episodes.truncated.nonzero()[:, 0]
        values = torch.zeros(len(episodes))
        if len(cut):
            last = (episodes.text_lengths - 1)[cut]
            _, hidden = self.backbone.states(episodes.ids[cut], torch.arange(len(cut)), last)
            values[cut] = self._values(hidden).float().cpu()
        return values

    def frozen_copy(self) -> "LMPolicy":
        """Return a copy without gradients, which shares the weights that do not train."""
        twin = LMPolicy(self.backbone.frozen_copy(), value_gradient=self.value_gradient)
        twin.value_head.load_state_dict(self.value_head.state_dict())
        return twin.requires_grad_(False)

    def merged(self) -> "LMPolicy":
        """Return an independent copy whose low-rank adapters have become part of its weights."""
        twin = LMPolicy(self.backbone.merged(), value_gradient=self.value_gradient)
        twin.value_head.load_state_dict(self.value_head.state_dict())
        return twin

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a plain Hugging Face folder, with the value head in a file of its own beside the model.

        ``AutoModelForCausalLM.from_pretrained(folder)`` loads the language model, ``LMPolicy.from_pretrained`` both.
        The tokenizer is written too, where the model came from a folder or a Hugging Face name that has one. Low-rank
        adapters are merged into the model, and stand apart in ``lora/`` too.
        """
        self.backbone.save_pretrained(folder)
        metadata = {"value_gradient": str(self.value_gradient)}
        save_file(self.value_head.state_dict(), Path(folder) / "value_head.safetensors", metadata)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> "LMPolicy":
        """Load what ``save_pretrained`` wrote; ``kwargs`` as in ``LMBackbone.from_pretrained``."""
        policy = cls(LMBackbone.from_pretrained(folder, **kwargs))
        with safe_open(Path(folder) / "value_head.safetensors", "pt") as file:
            policy.value_gradient = file.metadata()["value_gradient"] == "True"
        policy.value_head.load_state_dict(load_file(Path(folder) / "value_head.safetensors"))
        return policy

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.value_head(hidden.to(self.value_head.weight.dtype))
        return values[:, 0]


def choose(
    logits: torch.Tensor,
    action_masks: npt.NDArray[np.bool_] | None = None,
    *,
    deterministic: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Draw a token per row of (N, V) float32 logits, or take the likeliest: (N,) tokens, (N,) log-probabilities.

    Args:
        logits: Of softmax's input.
        action_masks: (N, V) bool, True where a token is legal. None makes all legal.
        deterministic: Take the likeliest.
        generator: Randomness of the sampling.

    Raises:
        FloatingPointError: If logits are NaN.
    """
    logits = masked(logits, action_masks)
    # Where all is NaN, `sample` returns V, which is no token.
    actions = logits.argmax(dim=-1) if deterministic else sample(logits, generator).clamp(max=logits.shape[1] - 1)
    log_probs = log_prob(logits, actions)
    if log_probs.isnan().any():
        raise FloatingPointError("the model's logits are NaN, so no token can be chosen by them")
    return actions.cpu().numpy(), log_probs.cpu().numpy()


def masked(logits: torch.Tensor, action_masks: npt.NDArray[np.bool_] | None) -> torch.Tensor:
    """Return (N, V) logits with -inf where (N, V) masks are False; None makes all legal."""
    if action_masks is None:
        return logits
    return logits.masked_fill(~torch.tensor(action_masks, device=logits.device), -torch.inf)


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return (M,) entropies in nats of (M, V) logits, where -inf counts as probability 0."""
    log_probs = F.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(dim=-1)
