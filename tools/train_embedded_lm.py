"""Train the embedded language model: corpus, tokenizer, training, export, report.

    python tools/train_embedded_lm.py                  # all stages; resumes from the last checkpoint
    python tools/train_embedded_lm.py --stages report samples

Needs torch 2.9 or newer (for Muon), transformers and tokenizers; the report also pyspellchecker and vaderSentiment.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from embedded_lm_corpus import EOS, document, refining_documents

Optimizers = tuple[torch.optim.Optimizer, ...]
STAGES = ("corpus", "tokenizer", "train", "refine", "openings", "report", "samples")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of corpus, model and training, which determine the weights."""

    seed: int = 1
    """Seed of the world, of the initial weights and of the batches."""
    num_documents: int = 280_000
    """Training documents, indices 0 to num_documents - 1."""
    vocab_size: int = 1024
    """Tokens, including all 256 bytes and the end-of-text token."""
    width: int = 128
    """Width of the hidden states."""
    num_layers: int = 4
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads per block."""
    num_positions: int = 1024
    """Longest text in tokens."""
    num_steps: int = 7500
    """Optimizer steps."""
    batch_tokens: int = 4096
    """Tokens per step."""
    learning_rate: float = 6e-3
    """Peak of AdamW, for embeddings, biases and norms."""
    muon_learning_rate: float = 0.04
    """Peak of Muon, for the matrices inside the blocks."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    window_shares: tuple[tuple[int, float], ...] = ((128, 0.7), (256, 0.2), (512, 0.06), (1024, 0.04))
    """Window lengths in tokens and their shares of the steps."""
    num_refining_steps: int = 1500
    """Steps of one refinement, on documents drawn by `embedded_lm_corpus.REFINING`; the learning rate falls linearly
    from ``refining_rate`` times its peak to 0."""
    num_refinements: int = 2
    """Number of refinements, one after the other."""
    num_refining_documents: int = 80_000
    """Documents of the refinements, which follow the training documents."""
    refining_rate: float = 0.4
    """Share of the peak learning rates."""
    eos_first_share: float = 0.15
    """Share of windows that begin with the end-of-text token; the others begin with a document."""


def write_corpus(settings: Settings, folder: Path) -> None:
    """Write the training documents as JSON strings, one per line."""
    path = folder / "corpus.jsonl"
    if path.exists():
        return
    with path.with_suffix(".part").open("w", encoding="utf-8") as file:
        for index in range(settings.num_documents):
            file.write(json.dumps(document(settings.seed, index), ensure_ascii=False) + "\n")
    path.with_suffix(".part").rename(path)


def read_corpus(folder: Path) -> list[str]:
    """Return the training documents."""
    return [json.loads(line) for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]


def train_tokenizer(settings: Settings, folder: Path) -> None:
    """Train the byte-level BPE and encode the corpus."""
    if (folder / "starts.npy").exists():
        return
    documents = read_corpus(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.replace(EOS, "") for text in documents[:40_000]), trainer)
    if tokenizer.get_vocab_size() != settings.vocab_size:
        raise ValueError(f"the corpus gives {tokenizer.get_vocab_size()} tokens, expected {settings.vocab_size}")
    tokenizer.save(str(folder / "tokenizer.json"))
    encode(documents, folder)


def encode(documents: list[str], folder: Path, prefix: str = "") -> None:
    """Store the token ids of the documents and the start of each."""
    eos = eos_id(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = [[*encoding.ids, eos] for encoding in tokenizer.encode_batch(documents)]
    np.save(folder / f"{prefix}ids.npy", np.concatenate([np.array(ids, dtype=np.uint16) for ids in encoded]))
    np.save(folder / f"{prefix}starts.npy", np.cumsum([0] + [len(ids) for ids in encoded[:-1]]))


def eos_id(folder: Path) -> int:
    """Return the id of the end-of-text token."""
    return int(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()[EOS])


def draw_batch(settings: Settings, ids: np.ndarray, starts: np.ndarray, eos: int, step: int) -> torch.Tensor:
    """Return the windows of a step, (B, T) int64, a function of settings and step."""
    rng = np.random.default_rng([settings.seed, step])
    lengths, shares = zip(*settings.window_shares, strict=True)
    length = int(rng.choice(lengths, p=shares))
    first = rng.choice(starts[: -settings.num_positions // 32], size=settings.batch_tokens // length)
    first = first - (rng.random(len(first)) < settings.eos_first_share)
    windows = ids[np.maximum(first, 0)[:, None] + np.arange(length)]
    windows[first < 0] = np.concatenate(([eos], ids[: length - 1]))
    return torch.from_numpy(windows.astype(np.int64))


def build_model(settings: Settings, eos: int) -> GPT2LMHeadModel:
    """Return the initial network."""
    torch.manual_seed(settings.seed)
    config = GPT2Config(
        vocab_size=settings.vocab_size,
        n_positions=settings.num_positions,
        n_embd=settings.width,
        n_layer=settings.num_layers,
        n_head=settings.num_heads,
        activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=eos,
        eos_token_id=eos,
    )
    return GPT2LMHeadModel(config)


def schedule(settings: Settings, step: int) -> float:
    """Return the factor of the peak learning rates: linear warm-up, then cosine decay to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


class Checkpoint:
    """Weights, optimizer states and counters in safetensors and JSON."""

    def __init__(self, folder: Path) -> None:
        self.tensors = folder / "checkpoint.safetensors"
        self.counters = folder / "checkpoint.json"

    def save(self, model: GPT2LMHeadModel, optimizers: Optimizers, step: int, cpu_seconds: float) -> None:
        """Write the state after `step` steps."""
        tensors = {f"weight/{name}": weight.detach().contiguous() for name, weight in model.named_parameters()}
        for name, weight in model.named_parameters():
            for optimizer in optimizers:
                states = optimizer.state.get(weight, {})
                tensors |= {f"{key}/{name}": value.contiguous() for key, value in states.items()}
        save_file(tensors, self.tensors.with_suffix(".part"))
        self.tensors.with_suffix(".part").rename(self.tensors)
        self.counters.write_text(json.dumps({"step": step, "cpu_seconds": cpu_seconds}))

    def load(self, model: GPT2LMHeadModel, optimizers: Optimizers) -> tuple[int, float]:
        """Restore the state; return the steps done and the CPU seconds spent, (0, 0.0) without a checkpoint."""
        if not self.counters.exists():
            return 0, 0.0
        weights = dict(model.named_parameters())
        owners = {weight: found for found in optimizers for group in found.param_groups for weight in group["params"]}
        for key, tensor in load_file(self.tensors).items():
            kind, name = key.split("/")
            if kind == "weight":
                weights[name].data.copy_(tensor)
            else:
                owners[weights[name]].state[weights[name]][kind] = tensor
        counters = json.loads(self.counters.read_text())
        return int(counters["step"]), float(counters["cpu_seconds"])


def build_optimizers(settings: Settings, model: GPT2LMHeadModel) -> Optimizers:
    """Return Muon for the matrices inside the blocks and AdamW for the other weights.

    Muon needs fewer steps than AdamW for the same loss (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/).
    """
    inner = [weight for name, weight in model.named_parameters() if ".h." in name and weight.dim() == 2]
    outer = [weight for name, weight in model.named_parameters() if not (".h." in name and weight.dim() == 2)]
    return (
        torch.optim.Muon(inner, lr=settings.muon_learning_rate, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(outer, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    )


def optimizer_step(model: GPT2LMHeadModel, optimizers: Optimizers, batch: torch.Tensor) -> float:
    """Take one step on a batch of (B, T) ids and return the loss, in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):  # faster; weights and moments stay float32
        logits = model(batch, use_cache=False).logits[:, :-1]
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
    model.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def train(settings: Settings, folder: Path) -> GPT2LMHeadModel:
    """Train from the last checkpoint to the last step and return the network."""
    ids, starts = np.load(folder / "ids.npy"), np.load(folder / "starts.npy")
    eos = eos_id(folder)
    model = build_model(settings, eos)
    optimizers = build_optimizers(settings, model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    checkpoint = Checkpoint(folder)
    first_step, cpu_before = checkpoint.load(model, optimizers)
    cpu_start, mean_loss = time.process_time(), float("nan")
    for step in range(first_step, settings.num_steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * schedule(settings, step)
        loss = optimizer_step(model, optimizers, draw_batch(settings, ids, starts, eos, step))
        mean_loss = loss if math.isnan(mean_loss) else 0.95 * mean_loss + 0.05 * loss
        done, cpu_seconds = step + 1, cpu_before + time.process_time() - cpu_start
        if done % 50 == 0:
            print(f"step {done}/{settings.num_steps}  loss {mean_loss:.3f}  cpu {cpu_seconds / 60:.1f} min", flush=True)
        if done % 200 == 0 or done == settings.num_steps:
            checkpoint.save(model, optimizers, done, cpu_seconds)
    return model.eval()


def refine(settings: Settings, folder: Path, model: GPT2LMHeadModel, number: int = 0) -> GPT2LMHeadModel:
    """Run one refinement, with new optimizers, and return the network."""
    if not (folder / "refining_starts.npy").exists():
        documents = refining_documents(settings.seed, settings.num_documents, settings.num_refining_documents)
        encode(list(documents), folder, "refining_")
    ids, starts = np.load(folder / "refining_ids.npy"), np.load(folder / "refining_starts.npy")
    optimizers = build_optimizers(settings, model.train())
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    for step in range(settings.num_refining_steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = settings.refining_rate * peak * (1 - step / settings.num_refining_steps)
        number_of_batch = settings.num_steps + number * settings.num_refining_steps + step
        batch = draw_batch(settings, ids, starts, eos_id(folder), number_of_batch)
        loss = optimizer_step(model, optimizers, batch)
        if (step + 1) % 50 == 0:
            print(f"refining step {step + 1}/{settings.num_refining_steps}  loss {loss:.3f}", flush=True)
    return model.eval()


def export(model: GPT2LMHeadModel, work_folder: Path, target: Path) -> None:
    """Write the Hugging Face folder: weights in float16, loaded as float32."""
    target.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)
    config = json.loads((target / "config.json").read_text())
    config["dtype"] = "float32"
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(work_folder / "tokenizer.json"),
        bos_token=EOS,
        eos_token=EOS,
        model_max_length=model.config.n_positions,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(target)
    path = target / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def check_same_settings(settings: Settings, folder: Path) -> None:
    """Store the settings; raise ValueError if the work folder has others."""
    path = folder / "settings.json"
    ours = json.loads(json.dumps(asdict(settings)))
    if path.exists() and json.loads(path.read_text()) != ours:
        raise ValueError(f"{folder} has other settings: {path.read_text()}; choose another --work-dir")
    path.write_text(json.dumps(ours))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Settings()
    parser.add_argument("--work-dir", type=Path, default=Path("build/embedded_lm"), help="corpus and checkpoints")
    parser.add_argument("--root", type=Path, default=Path(), help="repository root for the results")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--num-steps", type=int, default=defaults.num_steps)
    parser.add_argument("--num-documents", type=int, default=defaults.num_documents)
    parser.add_argument("--width", type=int, default=defaults.width)
    return parser.parse_args()


def main() -> None:
    """Run the requested stages."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    settings = Settings(
        num_steps=arguments.num_steps,
        num_documents=arguments.num_documents,
        width=arguments.width,
    )
    folder, target = arguments.work_dir, arguments.root / "textgym/lm/tiny"
    folder.mkdir(parents=True, exist_ok=True)
    check_same_settings(settings, folder)
    if "corpus" in arguments.stages:
        write_corpus(settings, folder)
    if "tokenizer" in arguments.stages:
        train_tokenizer(settings, folder)
    if {"train", "refine"} & set(arguments.stages):
        model = train(settings, folder)
        if "refine" in arguments.stages:
            for number in range(settings.num_refinements):
                model = refine(settings, folder, model, number)
            export(model, folder, target)
    if {"openings", "report", "samples"} & set(arguments.stages):
        from embedded_lm_report import write_openings, write_report, write_samples

        if "openings" in arguments.stages:
            write_openings(settings.seed, target, arguments.root / "textgym/prompts/openings.txt")
        if "report" in arguments.stages:
            write_report(settings, folder, arguments.root)
        if "samples" in arguments.stages:
            write_samples(arguments.root)


if __name__ == "__main__":
    main()
