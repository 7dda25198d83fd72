"""A language model as a policy: pi(a|s) is its next-token distribution, V(s) a head on its last hidden state."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from textgym.lm import LMStream, head_input, load_lm, log_prob, no_progress_bars, sample

if TYPE_CHECKING:
    from textgym_agents.rollout import Episodes

__all__ = ["Choice", "Evaluation", "LMPolicy"]


class Choice(NamedTuple):
    """What the policy does in N states."""

    actions: npt.NDArray[np.int64]
    """(N,) token ids."""
    log_probs: npt.NDArray[np.float32]
    """(N,) log pi(a|s), in nats."""
    values: npt.NDArray[np.float32]
    """(N,) V(s)."""


class Evaluation(NamedTuple):
    """What the policy says about B whole episodes; every tensor is (B, T), 0 after the end."""

    log_probs: torch.Tensor
    """log pi(a_t|s_t) in nats, carrying gradients."""
    entropies: torch.Tensor
    """Entropy of pi(.|s_t) in nats, carrying gradients where they were asked for."""
    values: torch.Tensor
    """V(s_t); gradients reach the value head and stop there."""
    last_values: torch.Tensor
    """(B,) V of the state after the last action, without gradients: what a time limit cut off."""


class LMPolicy(nn.Module):
    """A causal language model that acts token by token and evaluates whole episodes in one forward.

    The value head starts at zero and reads the hidden states without sending gradients into them: learning V does
    not disturb the text. Dropout is switched off, in a model that is given too: what is evaluated is the distribution
    that acted.

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model; see
            ``textgym.lm.load_lm``. A loaded model is used as it is and trained in place.
        dtype: Of the weights, where they are loaded here.
        device: Where they go, where they are loaded here.

    >>> policy = LMPolicy("tiny")
    >>> choice = policy.act(np.array([[40, 41, 1024, 1024]]), generator=torch.Generator().manual_seed(0))
    >>> choice.actions.shape
    (1,)
    """

    def __init__(
        self, model: Any = "tiny", *, dtype: torch.dtype | str = torch.float32, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__()
        self.model = load_lm(model, dtype=dtype, device=device)
        head = self.model.get_output_embeddings().weight
        self.vocab_size = head.shape[0]
        self.value_head = nn.Linear(head.shape[1], 1, device=head.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self._streams: dict[tuple[int, int], LMStream] = {}
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.value_head.weight.device

    @torch.no_grad()
    def act(
        self,
        ids: npt.NDArray[np.int64],
        action_masks: npt.NDArray[np.bool_] | None = None,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> Choice:
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
        logits, hidden = self._stream(ids)(ids, active=active)
        logits = logits.float()
        if action_masks is not None:
            legal = torch.tensor(action_masks, device=logits.device)
            logits = logits.masked_fill(~legal, -torch.inf)
        actions = logits.argmax(dim=-1) if deterministic else sample(logits, generator)
        if int(actions.max()) >= self.vocab_size:
            raise FloatingPointError("the model's logits are NaN, so no token can be drawn from them")
        log_probs = log_prob(logits, actions)
        values = self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0]
        return Choice(actions.cpu().numpy(), log_probs.cpu().numpy(), values.float().cpu().numpy())

    def evaluate(self, episodes: "Episodes", *, entropy_gradient: bool = False) -> Evaluation:
        """Compute log-probabilities, entropies and values of all steps of all episodes from one forward.

        Args:
            episodes: B episodes.
            entropy_gradient: Whether gradients flow through the entropies; they cost time.
        """
        mask = episodes.mask
        rows, steps = mask.nonzero(as_tuple=True)
        # The state before step t ends with the token at prompt_length + t - 1.
        columns = episodes.prompt_lengths[rows] + steps - 1
        actions = episodes.ids[rows, columns + 1].to(self.device)
        everything = torch.arange(len(episodes))
        last_columns = episodes.prompt_lengths + episodes.num_steps - 1
        ids = episodes.ids.to(self.device)
        last_hidden: list[torch.Tensor] = []

        def states(hidden: torch.Tensor) -> torch.Tensor:
            last_hidden.append(hidden[everything, last_columns].detach())
            return hidden[rows, columns][None]

        # Texts are left-aligned and attention is causal: what stands after an end changes nothing before it, so
        # no attention mask is needed and the fast kernel runs.
        with head_input(self.model, states) as hidden:
            logits = self.model(input_ids=ids, use_cache=False).logits[0].float()
        if episodes.action_masks is not None:
            legal = np.unpackbits(episodes.action_masks[mask.numpy()], axis=1, count=self.vocab_size)
            logits = logits.masked_fill(torch.from_numpy(legal).to(self.device) == 0, -torch.inf)
        log_probs = log_prob(logits, actions)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropies = _entropy(logits)
        value_dtype = self.value_head.weight.dtype
        values = self.value_head(hidden[0][0].detach().to(value_dtype))[:, 0]
        with torch.no_grad():
            last_values = self.value_head(last_hidden[0].to(value_dtype))[:, 0].float().cpu()

        def spread(flat: torch.Tensor) -> torch.Tensor:
            return torch.zeros(mask.shape).index_put((rows, steps), flat.float().cpu())

        return Evaluation(spread(log_probs), spread(entropies), spread(values), last_values)

    def frozen_copy(self) -> "LMPolicy":
        """Return an independent copy without gradients, such as the reference of a KL term."""
        twin = LMPolicy(copy.deepcopy(self.model))
        twin.value_head.load_state_dict(self.value_head.state_dict())
        return twin.requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a plain Hugging Face folder, with the value head in a file of its own beside the model.

        ``AutoModelForCausalLM.from_pretrained(folder)`` loads the language model, ``LMPolicy.from_pretrained`` both.
        The tokenizer is written too, where the model came from a folder or a Hugging Face name that has one.
        """
        folder = Path(folder)
        with no_progress_bars():
            self.model.save_pretrained(folder)
        save_file(self.value_head.state_dict(), folder / "value_head.safetensors")
        tokenizer = _tokenizer_of(self.model)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> "LMPolicy":
        """Load what ``save_pretrained`` wrote; ``kwargs`` as in the constructor."""
        with no_progress_bars():
            policy = cls(str(folder), **kwargs)
        policy.value_head.load_state_dict(load_file(Path(folder) / "value_head.safetensors"))
        return policy

    def _apply(self, *args: Any, **kwargs: Any) -> "LMPolicy":
        """Move or cast, as ``to`` does; what the streams cached stays behind, since no version counter tells them."""
        self._streams.clear()
        return super()._apply(*args, **kwargs)

    def _stream(self, ids: npt.NDArray[np.int64]) -> LMStream:
        key = ids.shape[0], ids.shape[1]
        if key not in self._streams:
            self._streams[key] = LMStream(self.model, *key)
        return self._streams[key]


def _tokenizer_of(model: PreTrainedModel) -> Any:
    """Return the tokenizer that lies where a model was loaded from, or None."""
    source = model.config._name_or_path
    if not source or (Path(source).is_dir() and not (Path(source) / "tokenizer_config.json").exists()):
        return None
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except OSError:  # a name that was only ever given to a model
        return None


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return (M,) entropies in nats of (M, V) logits, where -inf counts as probability 0."""
    log_probs = F.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(dim=-1)
