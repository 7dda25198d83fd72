"""The language model under the heads of a policy: incremental steps, whole-sequence forward, adapters, files."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from textgym.errors import install_hint
from textgym.lm import LMStream, WholeSequenceForward, load_lm, no_progress_bars

__all__ = ["LMBackbone"]


_MAX_STREAMS = 8
"""Batch shapes, such as those of training and of evaluation, whose KV caches are kept at the same time."""


class LMBackbone(nn.Module):
    """A causal language model that returns the logits and hidden states of texts.

    Dropout is disabled, also in a loaded model, so that the distribution that is evaluated is the one that acted.

    Args:
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model; see
            ``textgym.lm.load_lm``. A loaded model is used as it is and trained in place.
        dtype: Type of the weights; ignored for a loaded model.
        device: Device of the weights; ignored for a loaded model.
        autocast: Type of matrix products, such as ``torch.bfloat16`` with float32 weights on a GPU. None uses the type
            of the weights.
        trainable_layers: Number of topmost layers to train, with the norm after them; embedding and LM head, which are
            often tied, are frozen. None trains everything.
        lora: Rank or ``peft.LoraConfig`` of low-rank adapters (Hu et al. 2021, arXiv:2106.09685), which are trained
            instead of the weights. Needs the extra ``lora``.

    Raises:
        ValueError: If both ``trainable_layers`` and ``lora`` are given, or the model has fewer layers.
        TypeError: If ``lora`` is neither a rank nor a ``peft.LoraConfig``.
        ImportError: If ``lora`` is given and peft is not installed.
    """

    def __init__(
        self,
        model: Any = "tiny",
        *,
        dtype: torch.dtype | str = torch.float32,
        device: str | torch.device = "cpu",
        autocast: torch.dtype | None = None,
        trainable_layers: int | None = None,
        lora: Any = None,
    ) -> None:
        super().__init__()
        if trainable_layers is not None and lora is not None:
            raise ValueError("trainable_layers and lora are mutually exclusive: give one of them")
        self.model: PreTrainedModel = load_lm(model, dtype=dtype, device=device)
        self.autocast = autocast
        head = self.model.get_output_embeddings().weight
        self.vocab_size, self.hidden_size = int(head.shape[0]), int(head.shape[1])
        self._whole = WholeSequenceForward(self.model)
        self._streams: dict[tuple[int, int], LMStream] = {}
        self.trainable_layers = trainable_layers
        if trainable_layers is not None:
            _train_top(self.model, trainable_layers)
        self._lora = None if lora is None else _add_lora(self.model, lora)
        self.eval()

    @property
    def tokenizer(self) -> Any:
        """Transformers tokenizer in the folder or repository that the model was loaded from; None without one."""
        source = self.model.config._name_or_path
        if not source or (Path(source).is_dir() and not (Path(source) / "tokenizer_config.json").exists()):
            return None
        try:
            return AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError):  # a name that was only ever given to a model; a tokenizer with code of its own
            return None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        weight = self.model.get_output_embeddings().weight
        assert isinstance(weight, torch.Tensor)
        return weight.device

    @property
    def has_idle_adapters(self) -> bool:
        """Whether only adapters are trained and all are still zero: disabling them gives the current model."""
        parameters = dict(self.model.named_parameters())
        ends = [p for name, p in parameters.items() if ".lora_B." in name or ".lora_embedding_B." in name]
        others = [p for name, p in parameters.items() if ".lora_" not in name]
        return len(ends) > 0 and not any(bool(p.any()) for p in ends) and not any(p.requires_grad for p in others)

    def check_window(self, window: int) -> None:
        """Raise a ValueError if the model has fewer positions than ``window`` tokens."""
        positions = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if positions is not None and positions < window:
            raise ValueError(
                f"the environment's window is {window} tokens, but {type(self.model).__name__} has {positions} "
                "positions; lower max_prompt_tokens or max_new_tokens, and where a user replies max_turns or "
                "max_reply_tokens"
            )

    @torch.no_grad()
    def step(
        self, ids: npt.NDArray[np.int64], active: npt.NDArray[np.bool_] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, V) float32 logits and (N, H) hidden states after N texts, feeding only their new tokens.

        Args:
            ids: (N, L) int64, texts right-padded with V, as the environment observes them.
            active: (N,) bool, texts whose result is used; the others are not fed. None feeds all.
        """
        key = ids.shape[0], ids.shape[1]
        with self._precision():
            stream = self._streams.pop(key, None)
            if stream is None:
                while len(self._streams) >= _MAX_STREAMS:
                    del self._streams[next(iter(self._streams))]  # the least recently used
                stream = LMStream(self.model, *key)
            self._streams[key] = stream
            logits, hidden = stream(ids, active=active)
        return logits.float(), hidden

    def states(
        self,
        ids: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        prompt_lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (M, V) float32 logits and (M, H) hidden states of M states, from one forward over each text.

        Args:
            ids: (B, W) int64, left-aligned texts, padded with any token.
            rows: (M,) int64, text of each state.
            columns: (M,) int64, position of each state's last token.
            prompt_lengths: (B,) int64 tokens of each text's prompt; a long prompt of several texts is then fed once.
        """
        with self._precision():
            logits, hidden = self._whole(ids, rows, columns, prompt_lengths)
        return logits.float(), hidden

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Context manager: the initial model (adapters disabled); acting is not allowed inside."""
        layers = _adapted_layers(self.model)
        for _, layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for _, layer in layers:
                layer.enable_adapters(True)

    def frozen_copy(self) -> "LMBackbone":
        """Return a copy without gradients, which shares the frozen weights."""
        shared: dict[int, Any] = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        twin = LMBackbone(copy.deepcopy(self.model, shared), autocast=self.autocast)
        twin._lora = self._lora
        return twin.requires_grad_(False)

    def merged(self) -> "LMBackbone":
        """Return an independent copy with its adapters merged into the weights."""
        model = copy.deepcopy(self.model)
        for name, layer in _adapted_layers(model):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        return LMBackbone(model, autocast=self.autocast)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face folder: model, tokenizer if it has one, and the settings in ``backbone.json``.

        ``AutoModelForCausalLM.from_pretrained(folder)`` loads the trained model with its adapters merged. ``lora/``
        holds them separately, with the weights under them, so that training resumes exactly.
        """
        folder = Path(folder)
        plain = self if self._lora is None else self.merged()
        with no_progress_bars():
            plain.model.save_pretrained(folder)
        tokenizer = self.tokenizer
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if self._lora is not None:
            self._lora.save_pretrained(str(folder / "lora"))
            apart = {k: v for k, v in self.model.state_dict().items() if ".lora_" in k or ".base_layer." in k}
            save_file(apart, folder / "lora" / "adapters.safetensors")
        autocast = None if self.autocast is None else str(self.autocast).removeprefix("torch.")
        settings = {"trainable_layers": self.trainable_layers, "autocast": autocast}
        (folder / "backbone.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: torch.dtype | str = "auto", device: str | torch.device = "cpu"
    ) -> "LMBackbone":
        """Load what ``save_pretrained`` wrote."""
        folder = Path(folder)
        settings = json.loads((folder / "backbone.json").read_text(encoding="utf-8"))
        lora = None
        if (folder / "lora").is_dir():
            from peft import LoraConfig

            lora = LoraConfig.from_pretrained(str(folder / "lora"))
            lora.init_lora_weights = True  # PiSSA and others already changed the weights under the adapters
            lora.megatron_config = None  # peft would import the module that it names
        autocast = None if settings["autocast"] is None else getattr(torch, settings["autocast"])
        with no_progress_bars():
            backbone = cls(
                str(folder),
                dtype=dtype,
                device=device,
                autocast=autocast,
                trainable_layers=settings["trainable_layers"],
                lora=lora,
            )
        if lora is not None:
            backbone.model.load_state_dict(load_file(folder / "lora" / "adapters.safetensors"), strict=False)
        return backbone

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def _apply(self, *args: Any, **kwargs: Any) -> "LMBackbone":
        """Move or cast, as ``to`` does, and drop the KV caches, which cannot notice it by version counters."""
        self._streams.clear()
        moved = super()._apply(*args, **kwargs)
        self._whole = WholeSequenceForward(self.model)  # the fastest path depends on the device
        return moved


def _train_top(model: PreTrainedModel, num_layers: int) -> None:
    """Freeze all but the last layers of the longest list of layers, and the norms beside that list."""
    name, layers = max(
        ((name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)),
        key=lambda named: len(named[1]),
    )
    if not 1 <= num_layers <= len(layers):
        raise ValueError(f"trainable_layers must be from 1 to {len(layers)}, the model's layers, got {num_layers}")
    model.requires_grad_(False)
    for layer in layers[-num_layers:]:
        layer.requires_grad_(True)
    for sibling in model.get_submodule(name.rpartition(".")[0]).children():
        if "norm" in type(sibling).__name__.lower():
            sibling.requires_grad_(True)


def _add_lora(model: PreTrainedModel, lora: Any) -> Any:
    """Add trainable low-rank adapters, freeze the weights, and return the ``peft.LoraConfig``."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(f"low-rank adapters need peft: {install_hint('lora')}") from error
    config = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear") if isinstance(lora, int) else lora
    if not isinstance(config, LoraConfig):
        raise TypeError(f"lora must be a rank or a peft.LoraConfig, got {lora!r}")
    with warnings.catch_warnings(), torch.random.fork_rng():  # adapters are initialised at random
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft sets it right by itself for GPT-2
        torch.manual_seed(0)
        inject_adapter_in_model(config, model)
    return config


def _adapted_layers(model: PreTrainedModel) -> list[tuple[str, Any]]:
    """Return the names and layers that have adapters."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]
