"""Policies: a language model with heads, which acts token by token and evaluates whole episodes in one forward."""

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from typing_extensions import Self

from textgym.errors import unknown_name
from textgym.lm import log_prob, sample
from textgym_agents.backbone import LMBackbone
from textgym_agents.checkpoint import load_heads, save_heads, saved_settings
from textgym_agents.episodes import Episodes
from textgym_agents.losses import entropies
from textgym_agents.token_stats import TokenStats, token_stats
from textgym_agents.value_function import LinearValue, PrefixValue, ValueInputs

__all__ = [
    "ActionOutput",
    "BasePolicy",
    "Evaluation",
    "LMPolicy",
    "Policy",
    "apply_head",
    "choose",
    "make_head",
    "masked",
    "polyak_update",
]

_VALUE_FUNCTIONS = ("prefix", "linear")


class ActionOutput(NamedTuple):
    """Actions of a policy in N states."""

    actions: npt.NDArray[np.int64]
    """(N,) token ids."""
    log_probs: npt.NDArray[np.float32]
    """(N,) log pi(a|s), in nats."""
    values: npt.NDArray[np.float32]
    """(N,) V(s)."""
    stats: TokenStats | None = None
    """The distributions that sampled, if ``num_alternatives`` is given."""


class Policy(Protocol):
    """Interface of everything that chooses tokens in ``collect``: language models, Q-values, decoders."""

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
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
            action_masks: (N, V) bool, True where a token is valid. None makes all valid.
            active: (N,) bool, texts whose action is used; the actions of the others are arbitrary.
            deterministic: Choose the best token instead of sampling.
            generator: Random generator of the sampling.

        A policy that records the distributions it samples from takes ``num_alternatives`` too; see ``BasePolicy.act``.
        """
        ...


class BasePolicy(nn.Module, ABC):
    """A language model with heads on its hidden states; a subclass defines the heads and what they mean.

    Args:
        model: An ``LMBackbone``, or its first argument, such as ``"tiny"``. A loaded model is trained in place.
        **kwargs: Keywords of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    Raises:
        TypeError: If ``kwargs`` are given with an ``LMBackbone``.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    """Constructor keywords that ``save_pretrained`` writes, which are attributes too."""
    variables: ClassVar[tuple[str, ...]] = ()
    """Attributes set after construction that ``save_pretrained`` writes."""

    def __init__(self, model: Any = "tiny", **kwargs: Any) -> None:
        super().__init__()
        if isinstance(model, LMBackbone) and kwargs:
            raise TypeError(f"{', '.join(kwargs)}: a keyword of LMBackbone, which cannot be given with an LMBackbone")
        self.backbone = model if isinstance(model, LMBackbone) else LMBackbone(model, **kwargs)

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
        """Device of the weights."""
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
        num_alternatives: int | None = None,
    ) -> ActionOutput:
        """Choose the next token of N texts, feeding the model only the new tokens of each; see ``Policy.act``.

        Log-probabilities and statistics are those of the distribution that samples, after mask and temperature.

        Args:
            ids: As in ``Policy.act``.
            action_masks: As in ``Policy.act``.
            active: As in ``Policy.act``.
            deterministic: As in ``Policy.act``.
            generator: As in ``Policy.act``.
            num_alternatives: K, the number of most probable tokens in ``stats``, which has entropy and rank too. The
                tokens chosen do not depend on it. None computes no statistics.

        Raises:
            FloatingPointError: If the model has diverged and its logits are NaN.
        """
        behaviour, preferences, values = self._outputs(ids, action_masks, active)
        actions, log_probs, stats = choose(
            behaviour,
            deterministic=deterministic,
            preferences=preferences,
            generator=generator,
            num_alternatives=num_alternatives,
        )
        return ActionOutput(actions, log_probs, values.cpu().numpy(), stats)

    @torch.no_grad()
    def action_log_probs(
        self,
        ids: npt.NDArray[np.int64],
        actions: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return (N,) float32 log pi(a|s) of (N,) given actions, in nats, -inf if invalid; see ``act`` for the rest."""
        behaviour, _, _ = self._outputs(ids, action_masks, active)
        return log_prob(behaviour, torch.as_tensor(actions, device=behaviour.device)).cpu().numpy()

    def _outputs(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None,
        active: npt.NDArray[np.bool_] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``action_preferences`` after N texts."""
        logits, hidden = self.backbone.step(ids, active)
        valid = None if action_masks is None else torch.tensor(action_masks, device=logits.device)
        return self.action_preferences(ids, logits, hidden, valid)

    @abstractmethod
    def action_preferences(
        self, ids: npt.NDArray[np.int64], logits: torch.Tensor, hidden: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the logits, preferences and values by which the policy acts in N states.

        Args:
            ids: (N, L) int64, texts right-padded with V.
            logits: (N, V) float32 of the language model.
            hidden: (N, H) last hidden states.
            valid: (N, V) bool. None makes all tokens valid.

        Returns:
            (N, V) logits to sample from, (N, V) preferences, whose maximum is the deterministic action, both -inf where
            invalid, and (N,) float32 V(s).
        """

    def frozen_copy(self) -> Self:
        """Return a copy without gradients, which shares the frozen weights of the backbone."""
        return self._copy_on(self.backbone.frozen_copy()).requires_grad_(False)

    def merged(self) -> Self:
        """Return an independent copy with low-rank adapters merged into the weights."""
        return self._copy_on(self.backbone.merged())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face folder, with the heads and settings in ``heads.safetensors``.

        ``AutoModelForCausalLM.from_pretrained(folder)`` loads the language model, ``from_pretrained`` of this class
        everything; see ``LMBackbone.save_pretrained`` for tokenizer and adapters.
        """
        self.backbone.save_pretrained(folder)
        save_heads(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> Self:
        """Load what ``save_pretrained`` wrote.

        Args:
            folder: The folder.
            **kwargs: Keywords of ``LMBackbone.from_pretrained``, and of the constructor what no file can hold: a module
                given as ``value_function``, whose weights are then loaded.

        Raises:
            ValueError: If the folder holds the heads of another class of policies, or those of a module that is not
                given.
        """
        settings, variables = saved_settings(Path(folder))
        if settings.keys() != set(cls.settings):
            raise ValueError(f"{folder} holds another policy than {cls.__name__}: its settings are {sorted(settings)}")
        settings |= {name: kwargs.pop(name) for name in cls.settings if name in kwargs}
        policy = cls(LMBackbone.from_pretrained(folder, **kwargs), **settings)
        load_heads(policy, Path(folder))
        for name, value in variables.items():
            setattr(policy, name, value)
        return policy

    def restore(self, folder: str | Path) -> None:
        """Load the weights that ``save_pretrained`` of a policy like this one wrote."""
        saved = type(self).from_pretrained(folder, dtype="auto", device=self.device, **self._unsaved_settings())
        self.load_state_dict(saved.state_dict())

    def _unsaved_settings(self) -> dict[str, Any]:
        """Return the constructor keywords that no file can hold."""
        return {}

    def _copy_on(self, backbone: LMBackbone) -> Self:
        """Return a copy of everything but the backbone."""
        return copy.deepcopy(self, {id(self.backbone): backbone})


class Evaluation(NamedTuple):
    """Evaluation of whole episodes, (B, T) with 0 after the end, or of M states, (M,)."""

    log_probs: torch.Tensor
    """log pi(a_t|s_t) in nats, with gradients."""
    entropies: torch.Tensor
    """Entropy of pi(.|s_t) in nats, with gradients if requested."""
    values: torch.Tensor
    """V(s_t), with gradients."""
    logits: torch.Tensor
    """(M, V) float32 of the M steps taken, one episode after the other; -inf where invalid."""


class LMPolicy(BasePolicy):
    """A language model as an actor-critic: pi(.|s) is its next-token distribution, V(s) a function of the text so far.

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model, which is trained in
            place; see ``textgym.lm.load_lm``. Or an ``LMBackbone``.
        value_function: V(s): ``"prefix"``, of all tokens so far, see ``PrefixValue``; ``"linear"``, a linear head on
            the last hidden state; or a module with the ``forward`` of ``ValueFunction``.
        value_gradient: Whether the value loss also trains the language model, through the hidden states. Off, no
            gradient flows into them.
        **kwargs: Keywords of ``LMBackbone``: ``dtype``, ``device``, ``autocast``, ``trainable_layers``, ``lora``.

    Attributes:
        value_function: Name of V: ``"prefix"``, ``"linear"`` or the name of the module's class.
        value_head: The module that computes V.

    Raises:
        ValueError: If ``value_function`` is unknown, or ``"prefix"``, which has no use for hidden states, comes with
            ``value_gradient``.
        TypeError: If ``value_function`` is neither a name nor a module.

    >>> policy = LMPolicy("tiny")
    >>> pad = policy.vocab_size
    >>> output = policy.act(np.array([[40, 41, pad, pad]]), generator=torch.Generator().manual_seed(0))
    >>> output.actions.shape
    (1,)
    """

    settings = ("value_function", "value_gradient")

    def __init__(
        self,
        model: Any = "tiny",
        *,
        value_function: Literal["prefix", "linear"] | nn.Module = "prefix",
        value_gradient: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(value_function, str) and value_function not in _VALUE_FUNCTIONS:
            raise unknown_name(
                "value_function", value_function, _VALUE_FUNCTIONS, also="A module is given itself, not by its name."
            )
        if not isinstance(value_function, str | nn.Module):
            raise TypeError(f"value_function must be a name or a module, got {value_function!r}")
        if value_function == "prefix" and value_gradient:
            raise ValueError(
                "value_gradient=True trains the language model through V(s), and V of value_function='prefix' does not "
                "depend on hidden states; give value_function='linear'"
            )
        super().__init__(model, **kwargs)
        self.value_gradient = value_gradient
        self.value_function = value_function if isinstance(value_function, str) else type(value_function).__name__
        if value_function == "prefix":
            self.value_head: nn.Module = PrefixValue(self.vocab_size, self.device)
        elif value_function == "linear":
            self.value_head = LinearValue(self.backbone.hidden_size, self.device)
        else:
            self.value_head = value_function.to(self.device)

    def action_preferences(
        self, ids: npt.NDArray[np.int64], logits: torch.Tensor, hidden: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the masked logits, twice, and V(s); see ``BasePolicy.action_preferences``."""
        logits = masked(logits, valid)
        return logits, logits, self._values_of_windows(ids, logits, hidden)

    @torch.no_grad()
    def logits_and_values(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, V) float32 logits, -inf where invalid, and (N,) float32 V(s); arguments as of ``act``."""
        logits, hidden = self.backbone.step(ids, active)
        logits = masked(logits, action_masks)
        return logits, self._values_of_windows(ids, logits, hidden)

    def _unsaved_settings(self) -> dict[str, Any]:
        is_module = self.value_function not in _VALUE_FUNCTIONS
        return {"value_function": copy.deepcopy(self.value_head)} if is_module else {}

    def _values_of_windows(
        self, ids: npt.NDArray[np.int64], logits: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """Return (N,) float32 V(s) of N texts, right-padded with V."""
        lengths = torch.from_numpy((ids != self.vocab_size).sum(axis=1))
        texts = torch.from_numpy(ids[:, : int(lengths.max())])
        rows = torch.arange(len(ids))
        values: torch.Tensor = self.value_head(ValueInputs(texts, rows, lengths - 1, hidden, logits))
        return values

    def evaluate(self, episodes: Episodes, *, entropy_gradient: bool = False) -> Evaluation:
        """Return (B, T) log-probabilities, entropies and values of B episodes, and (M, V) logits, in one forward.

        Args:
            episodes: B episodes.
            entropy_gradient: Whether gradients flow through the entropies, which takes time.
        """
        rows, columns = episodes.states()
        flat = self.evaluate_states(
            episodes.ids,
            rows,
            columns,
            episodes.ids[rows, columns + 1],
            episodes.valid_actions(self.vocab_size),
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
        """Return (M,) log-probabilities, entropies and values of M actions in M states, in one forward over B texts.

        Args:
            ids: (B, W) int64, left-aligned texts, padded with any token.
            rows: (M,) int64, text of each state.
            columns: (M,) int64, position of each state's last token.
            actions: (M,) int64, action in each state.
            action_masks: (M, V) bool, True where a token was valid. None makes all valid.
            prompt_lengths: (B,) int64 tokens of each text's prompt, if known; see ``LMBackbone.states``.
            entropy_gradient: Whether gradients flow through the entropies, which takes time.
        """
        logits, hidden = self.backbone.states(ids, rows, columns, prompt_lengths)
        logits = masked(logits, action_masks)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            all_log_probs = F.log_softmax(logits, dim=-1)
            step_entropies = entropies(all_log_probs)
        hidden = hidden if self.value_gradient else hidden.detach()
        values = self.value_head(ValueInputs(ids, rows, columns, hidden, logits.detach()))
        return Evaluation(log_prob(logits, actions.to(logits.device)), step_entropies, values, logits)

    @torch.no_grad()
    def last_values(self, episodes: Episodes) -> torch.Tensor:
        """Return (B,) float32 V of the states after the last actions of truncated episodes, 0 of the others."""
        cut = episodes.truncated.nonzero()[:, 0]
        values = torch.zeros(len(episodes))
        if len(cut):
            last = (episodes.text_lengths - 1)[cut]
            texts, rows = episodes.ids[cut], torch.arange(len(cut))
            logits, hidden = self.backbone.states(texts, rows, last)
            values[cut] = self.value_head(ValueInputs(texts, rows, last, hidden, logits)).cpu()
        return values


def choose(
    logits: torch.Tensor,
    action_masks: torch.Tensor | npt.NDArray[np.bool_] | None = None,
    *,
    deterministic: bool = False,
    preferences: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    num_alternatives: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], TokenStats | None]:
    """Sample a token per row of (N, V) float32 logits, or take the best.

    Args:
        logits: (N, V) float32, the input of the softmax.
        action_masks: (N, V) bool, True where a token is valid. None makes all valid.
        deterministic: Take the token of the largest preference instead of sampling.
        preferences: (N, V) float32, by default the logits.
        generator: Random generator of the sampling.
        num_alternatives: As in ``BasePolicy.act``.

    Returns:
        (N,) tokens, their (N,) log-probabilities, and statistics, None without ``num_alternatives``.

    Raises:
        FloatingPointError: If logits or preferences are NaN.
    """
    logits = masked(logits, action_masks)
    preferences = logits if preferences is None else preferences
    probabilities = None if num_alternatives is None else torch.softmax(logits, dim=-1, dtype=torch.float32)
    if deterministic:
        actions = preferences.argmax(dim=-1)
    else:  # for a row of NaN, `sample` returns V, which is not a token
        actions = sample(logits, generator, probabilities=probabilities).to(logits.device)
        actions = actions.clamp(max=logits.shape[1] - 1)
    log_probs = log_prob(logits, actions)
    if log_probs.isnan().any() or (preferences is not logits and preferences.isnan().any()):
        raise FloatingPointError("the model's logits or Q-values are NaN, so no token can be chosen by them")
    stats = None
    if num_alternatives is not None and probabilities is not None:
        stats = token_stats(logits, probabilities, actions, log_probs, num_alternatives)
    return actions.cpu().numpy(), log_probs.cpu().numpy(), stats


def masked(logits: torch.Tensor, valid: torch.Tensor | npt.NDArray[np.bool_] | None) -> torch.Tensor:
    """Return (N, V) logits or preferences with -inf where the (N, V) mask is False; None makes all tokens valid."""
    if valid is None:
        return logits
    valid = valid if isinstance(valid, torch.Tensor) else torch.tensor(valid)
    return logits.masked_fill(~valid.to(logits.device), -torch.inf)


def make_head(backbone: LMBackbone, width: int) -> nn.Sequential:
    """Return a LayerNorm and a linear layer on the hidden state, whose output starts at 0.

    Without the norm, the bootstrapped Q-values of tokens overestimate each other and diverge.
    """
    linear = nn.Linear(backbone.hidden_size, width, device=backbone.device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(backbone.hidden_size, device=backbone.device), linear)


def apply_head(head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Return (M, width) float32 outputs of a head on (M, H) hidden states of any type."""
    values: torch.Tensor = head(hidden.to(next(head.parameters()).dtype))
    return values.float()


@torch.no_grad()
def polyak_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Compute target = (1 - tau) target + tau online for all weights; ``tau=1`` is a hard copy."""
    for there, here in zip(target.parameters(), online.parameters(), strict=True):
        if there is not here:  # frozen weights are shared
            there.lerp_(here, tau)
