"""Train the embedded language models `tiny` and `tiny-early`: corpus, tokenizer, training, report.

    python tools/train_embedded_lm.py                          # everything; resumes from the last checkpoint
    python tools/train_embedded_lm.py --stages report samples

Needs torch 2.9 or newer (for Muon), transformers and tokenizers; the report also vaderSentiment and harper-py.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from embedded_lm_corpus import EOS, document
from world.scene import MEN, WOMEN

Optimizers = tuple[torch.optim.Optimizer, ...]
BLOCK = 1024
"""Rows of hidden states whose logits are computed together."""
CHECKPOINT_STEPS = 200
"""Steps between checkpoints."""
STAGES = ("corpus", "tokenizer", "train", "openings", "report", "samples")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of corpus, model and training, which determine the weights."""

    seed: int = 1
    """Seed of the world, of the initial weights and of the batches."""
    num_documents: int = 1_200_000
    """Training documents, indices 0 to num_documents - 1."""
    width: int = 128
    """Width of the hidden states."""
    num_layers: int = 4
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads per block."""
    num_positions: int = 1024
    """Longest text in tokens."""
    num_steps: int = 24_000
    """Optimizer steps."""
    batch_tokens: int = 4096
    """Tokens per step."""
    learning_rate: float = 6e-3
    """Peak of AdamW, for embeddings, biases and norms."""
    muon_learning_rate: float = 0.04
    """Peak of Muon, for the matrices inside the blocks."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    window_shares: tuple[tuple[int, float], ...] = ((128, 0.8), (256, 0.16), (512, 0.02), (1024, 0.02))
    """Window lengths in tokens and their shares of the steps."""
    eos_first_share: float = 0.25
    """Share of windows that begin with the end-of-text token; the others begin with a document."""
    agreement_steps: int = 9000
    """Last steps, to which `agreement_loss` is added: who a name or pronoun refers to is learned last."""
    agreement_weight: float = 3.0
    """Its weight."""


MODELS = {
    "tiny": Settings(),
    "tiny-early": Settings(width=96, num_layers=2, num_heads=3, num_steps=1200, agreement_steps=0),
}
"""The embedded models. `tiny-early` is small and stopped early, so that its language leaves room for improvement."""


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
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_tokenizer(folder: Path) -> None:
    """Make the tokenizer, in which each word and mark of the corpus is one token, and encode the corpus.

    A token holds the space before its word, as in GPT-2's BPE. Other words are written as bytes.
    """
    if (folder / "starts.npy").exists():
        return
    documents = read_corpus(folder)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counter = Tokenizer(models.WordLevel())
    counter.pre_tokenizer = byte_level
    trainer = trainers.WordLevelTrainer(vocab_size=10_000, show_progress=False)
    counter.train_from_iterator((part for text in documents for part in text.split(EOS)), trainer)
    words = sorted(counter.get_vocab(), key=counter.get_vocab().__getitem__)  # the most frequent first
    vocabulary = {EOS: 0}
    for piece in (*sorted(pre_tokenizers.ByteLevel.alphabet()), *words):
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOS])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = [[*encoding.ids, vocabulary[EOS]] for encoding in tokenizer.encode_batch_fast(documents)]
    np.save(folder / "ids.npy", np.concatenate([np.array(row, dtype=np.uint16) for row in ids]))
    np.save(folder / "starts.npy", np.cumsum([0] + [len(row) for row in ids[:-1]]))


def draw_batch(settings: Settings, ids: np.ndarray, starts: np.ndarray, step: int) -> torch.Tensor:
    """Return the windows of a step, (B, T + 1) int64, a function of settings and step."""
    rng = np.random.default_rng([settings.seed, step])
    lengths, shares = zip(*settings.window_shares, strict=True)
    length = int(rng.choice(lengths, p=shares))
    candidates = starts[1 : np.searchsorted(starts, len(ids) - length)]
    first = rng.choice(candidates, size=settings.batch_tokens // length)
    first = first - (rng.random(len(first)) < settings.eos_first_share)  # each document follows an end-of-text token
    return torch.from_numpy(ids[first[:, None] + np.arange(length + 1)].astype(np.int64))


def build_model(settings: Settings, vocab_size: int) -> GPT2LMHeadModel:
    """Return the initial network."""
    torch.manual_seed(settings.seed)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=settings.num_positions,
        n_embd=settings.width,
        n_layer=settings.num_layers,
        n_head=settings.num_heads,
        activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",  # 1.3 times faster here: the fused attention's backward pass is slow on a CPU
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


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy in nats of (N, H) hidden states under a (V, H) output matrix, with (N,) int64 targets.

    Computes the loss and both gradients block by block, so that the logits of a block stay in the processor's cache;
    with the logits of all rows a step takes 1.4 times as long. The idea is that of Liger Kernel (Hsu et al. 2024,
    arXiv:2410.10989).
    """

    @staticmethod
    def forward(context: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss and store its gradients."""
        hidden, matrix, count = hidden.bfloat16(), weight.bfloat16(), len(targets)
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
        logits = torch.empty(BLOCK, len(weight))
        loss = 0.0
        for start in range(0, count, BLOCK):
            rows, target = hidden[start : start + BLOCK], targets[start : start + BLOCK, None]
            block = logits[: len(rows)].copy_(rows @ matrix.T)
            chosen, largest = block.gather(1, target), block.amax(1, keepdim=True)
            total = block.sub_(largest).exp_().sum(1, keepdim=True)
            loss += float((total.log() + largest - chosen).sum())
            block.div_(total * count).scatter_add_(1, target, torch.full_like(chosen, -1 / count))
            gradient = block.bfloat16()
            torch.mm(gradient, matrix, out=hidden_gradient[start : start + BLOCK])
            weight_gradient += gradient.T @ rows
        context.save_for_backward(hidden_gradient, weight_gradient)
        return torch.tensor(loss / count)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return the gradients of hidden states and matrix."""
        hidden_gradient, weight_gradient = context.saved_tensors
        return hidden_gradient * gradient, weight_gradient * gradient, None


def word_groups(tokenizer: Tokenizer) -> tuple[torch.Tensor, ...]:
    """Return sorted token ids of the words that stand for each other: names, and the pronouns of one case."""
    pronouns = ("he she", "He She", "his her him", "His Her", "himself herself")
    groups = ((*MEN, *WOMEN), *(group.split() for group in pronouns))
    vocabulary = tokenizer.get_vocab()
    forms = ([form for word in group for form in (word, f"Ġ{word}") if form in vocabulary] for group in groups)
    return tuple(torch.tensor(sorted(vocabulary[form] for form in found)) for found in forms)


def agreement_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, groups: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Return the cross-entropy of the targets in each group under the softmax over the group, in nats per target.

    It trains which name or which pronoun comes, not whether one comes: the minimum is that of the cross-entropy itself.
    Shapes as in `LinearCrossEntropy`.
    """
    loss = hidden.new_zeros((), dtype=torch.float32)
    for group in groups:
        rows = torch.isin(targets, group).nonzero()[:, 0]
        logits = hidden[rows].float() @ weight[group].T
        nats = functional.cross_entropy(logits, torch.searchsorted(group, targets[rows]), reduction="sum")
        loss = loss + nats / len(targets)
    return loss


def optimizer_step(
    model: GPT2LMHeadModel,
    optimizers: Optimizers,
    batch: torch.Tensor,
    groups: tuple[torch.Tensor, ...],
    agreement_weight: float,
) -> float:
    """Take one step on a batch of (B, T + 1) ids and return the cross-entropy, in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):  # faster; weights and moments stay float32
        hidden = model.transformer(batch[:, :-1].contiguous(), use_cache=False).last_hidden_state
    hidden, targets = hidden.flatten(0, 1), batch[:, 1:].flatten()
    cross_entropy = LinearCrossEntropy.apply(hidden, model.lm_head.weight, targets)
    loss = cross_entropy
    if agreement_weight:
        loss = loss + agreement_weight * agreement_loss(hidden, model.lm_head.weight, targets, groups)
    model.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return cross_entropy.item()


def train(settings: Settings, corpus: Path, folder: Path) -> GPT2LMHeadModel:
    """Train from the last checkpoint to the last step and return the network."""
    ids, starts = np.load(corpus / "ids.npy"), np.load(corpus / "starts.npy")
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    model, groups = build_model(settings, tokenizer.get_vocab_size()), word_groups(tokenizer)
    optimizers = build_optimizers(settings, model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    checkpoint = Checkpoint(folder)
    first_step, cpu_before = checkpoint.load(model, optimizers)
    cpu_start, mean_loss = time.process_time(), float("nan")
    for step in range(first_step, settings.num_steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * schedule(settings, step)
        weight = settings.agreement_weight if step >= settings.num_steps - settings.agreement_steps else 0.0
        loss = optimizer_step(model, optimizers, draw_batch(settings, ids, starts, step), groups, weight)
        mean_loss = loss if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
        done, cpu_seconds = step + 1, cpu_before + time.process_time() - cpu_start
        if done % 100 == 0:
            print(f"step {done}/{settings.num_steps}  loss {mean_loss:.3f}  cpu {cpu_seconds / 60:.1f} min", flush=True)
        if done % CHECKPOINT_STEPS == 0 or done == settings.num_steps:
            checkpoint.save(model, optimizers, done, cpu_seconds)
    return model.eval()


def export(model: GPT2LMHeadModel, corpus: Path, target: Path) -> None:
    """Write the Hugging Face folder: weights in float16, loaded as float32."""
    target.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)
    config = json.loads((target / "config.json").read_text())
    config["dtype"] = "float32"
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(corpus / "tokenizer.json"),
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
    parser.add_argument("--work-dir", type=Path, default=Path("build/embedded_lm"), help="corpus and checkpoints")
    parser.add_argument("--root", type=Path, default=Path(), help="repository root for the results")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--num-steps", type=int, help="steps of each model")
    parser.add_argument("--num-documents", type=int)
    return parser.parse_args()


def main() -> None:
    """Run the requested stages."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    corpus, root = arguments.work_dir, arguments.root
    corpus.mkdir(parents=True, exist_ok=True)
    changes = {name: value for name in ("num_steps", "num_documents") if (value := getattr(arguments, name))}
    for name in arguments.models:
        settings, folder, target = replace(MODELS[name], **changes), corpus / name, root / "textgym/lm" / name
        folder.mkdir(exist_ok=True)
        check_same_settings(settings, folder)
        if "corpus" in arguments.stages:
            write_corpus(settings, corpus)
        if "tokenizer" in arguments.stages:
            write_tokenizer(corpus)
        if "train" in arguments.stages:
            export(train(settings, corpus, folder), corpus, target)
    if {"openings", "report", "samples"} & set(arguments.stages):
        import embedded_lm_report as report

        if "openings" in arguments.stages:
            report.write_openings(MODELS["tiny"].seed, root)
        for name in arguments.models:
            if "report" in arguments.stages:
                report.write_card(name, MODELS[name], corpus, root)
        if "samples" in arguments.stages:
            report.write_samples(root)


if __name__ == "__main__":
    main()
