"""Evaluate the embedded language models, and write their cards, samples and the story openings."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from embedded_lm_corpus import EOS, KIND_SHARES, document, plan
from textgym import TextBatch
from textgym.scorers import Consistency, Grammar
from textgym.tasks import TASKS, task_prompts
from world import build_scene, story
from world.plots import all_plots

if TYPE_CHECKING:
    from train_embedded_lm import Settings

HELD_OUT_START = 1_000_000_000
OPENINGS_START = 2_000_000_000
COMMAND = "python tools/train_embedded_lm.py --stages samples"
NUM_STORIES = 500
NUM_SHOWN = 40


def sample(folder: Path, prompts: list[str], max_new_tokens: int, seed: int) -> list[str]:
    """Return one continuation of each prompt at temperature 1, unfiltered; an empty prompt starts a new story."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    model.generation_config.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens)
    torch.manual_seed(seed)
    encoded = [tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id] for prompt in prompts]
    texts = [""] * len(prompts)
    for length in sorted({len(ids) for ids in encoded}):  # batches of equal length need no padding
        rows = [row for row, ids in enumerate(encoded) if len(ids) == length]
        batch = torch.tensor([encoded[row] for row in rows])
        output = model.generate(batch, attention_mask=torch.ones_like(batch), pad_token_id=tokenizer.eos_token_id)
        for row, ids in zip(rows, output[:, length:], strict=True):
            texts[row] = str(tokenizer.decode(ids, skip_special_tokens=True))
    return texts


@torch.no_grad()
def held_out_nats(folder: Path, seed: int, num_documents: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return cross-entropy per token and per character of held-out documents, in nats, by kind.

    Each document is preceded by an end-of-text token; its own tokens and the final end-of-text token, which counts as
    one character, are predicted.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    nats, tokens, characters = (dict.fromkeys(KIND_SHARES, 0.0) for _ in range(3))
    for index in range(HELD_OUT_START, HELD_OUT_START + num_documents):
        kind, text = plan(seed, index)[0], document(seed, index)
        ids = torch.tensor([tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id])
        logits = model(ids[None]).logits[0, :-1]
        nats[kind] += float(functional.cross_entropy(logits, ids[1:], reduction="sum"))
        tokens[kind] += len(ids) - 1
        characters[kind] += len(text) + 1
    return {kind: nats[kind] / tokens[kind] for kind in nats}, {kind: nats[kind] / characters[kind] for kind in nats}


def grammar_findings(stories: list[str]) -> float:
    """Return the mistakes that Harper finds per 1,000 words."""
    words = [len(re.findall(r"[A-Za-z]+", text)) for text in stories]
    shares = 1 - Grammar()(TextBatch.from_texts(stories))
    return 1000 * sum(share * count for share, count in zip(shares, words, strict=True)) / sum(words)


def consistent_share(stories: list[str]) -> float:
    """Return the share of stories in which every person was introduced and all pronouns agree."""
    shares = Consistency().score_components(TextBatch.from_texts(stories)).components
    return float(np.mean((shares["persons"] == 1) & (shares["pronouns"] == 1)))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [part for part in re.split(r"(?<=[.!?])\"? ", text) if part]


def describe_sentiment(texts: list[str]) -> str:
    """Return mean, deviation and shares of VADER's compound score."""
    score = SentimentIntensityAnalyzer().polarity_scores
    values = [score(text)["compound"] for text in texts]
    positive = sum(value > 0.05 for value in values) / len(values)
    negative = sum(value < -0.05 for value in values) / len(values)
    return (
        f"mean {statistics.mean(values):.2f}, standard deviation {statistics.pstdev(values):.2f}; "
        f"{positive:.0%} positive, {negative:.0%} negative, {1 - positive - negative:.0%} neutral"
    )


def write_openings(seed: int, root: Path, count: int = 300) -> None:
    """Write distinct, neutral beginnings of held-out stories, 4 to 12 tokens each."""
    tokenizer = AutoTokenizer.from_pretrained(root / "textgym/lm/tiny", trust_remote_code=False)
    score = SentimentIntensityAnalyzer().polarity_scores
    found: dict[str, None] = {}
    by_plot: dict[str, int] = defaultdict(int)
    index = OPENINGS_START
    while len(found) < count:
        scene, text = build_scene(seed, index), story(seed, index)
        index += 1
        first = sentences(text)[0]
        words = first.rstrip('.!?"').split(" ")
        cuts = [" ".join(words[:size]) for size in range(4, len(words) + 1)]
        cuts = [cut for cut in cuts if 4 <= len(tokenizer(cut)["input_ids"]) <= 12]
        cuts = [cut for cut in cuts if '"' not in cut and not cut.endswith(("Mr", "Mrs", ","))]
        is_decided = set(all_plots()[scene.plot].fact("tone", "calm").split()) == {"low"}
        if not cuts or is_decided or by_plot[scene.plot] >= count // 40:
            continue
        cut = cuts[-1 - index % min(2, len(cuts))]
        if cut not in found and score(cut)["compound"] == 0.0:
            found[cut] = None
            by_plot[scene.plot] += 1
    (root / "textgym/prompts/openings.txt").write_text("\n".join(sorted(found)) + "\n", encoding="utf-8")


def read_openings(root: Path) -> list[str]:
    """Return the story openings of the package."""
    return (root / "textgym/prompts/openings.txt").read_text(encoding="utf-8").splitlines()


def sampled_stories(folder: Path, root: Path, count: int, seed: int) -> list[str]:
    """Return `count` stories of at most 200 tokens that continue the openings."""
    openings = read_openings(root)
    prompts = [openings[number % len(openings)] for number in range(count)]
    return [prompt + text for prompt, text in zip(prompts, sample(folder, prompts, 200, seed), strict=True)]


def write_card(name: str, settings: Settings, work_folder: Path, root: Path) -> None:
    """Evaluate an exported model and write its model card."""
    folder = root / "textgym/lm" / name
    texts = sampled_stories(folder, root, NUM_STORIES, seed=0)
    held_out = (index for index in itertools.count(HELD_OUT_START) if plan(settings.seed, index)[0] == "story")
    stories = [story(settings.seed, index) for index in itertools.islice(held_out, NUM_STORIES)]
    per_token, per_character = held_out_nats(folder, settings.seed, 2000)
    lines_of_corpus = (work_folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    corpus = [json.loads(line) for line in lines_of_corpus]
    known = {sentence for text in corpus for sentence in sentences(text)}
    lines = [line for text in texts for line in sentences(text)]
    counters = json.loads((work_folder / name / "checkpoint.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    continuations = sample(folder, read_openings(root), 24, seed=2)
    windows = ", ".join(str(length) for length, _ in settings.window_shares)
    rows = {
        "Shape": f"GPT-2, {settings.num_layers} layers, width {settings.width}, {settings.num_heads} heads, "
        f"{settings.num_positions} positions, tied embeddings",
        "Parameters": f"{AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).num_parameters():,}",
        "Weights": f"{(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB, float16 on disk, float32 in memory",
        "Tokenizer": f"{len(tokenizer):,} tokens: each word and mark of the training text, with or without the space "
        "before it, and the 256 bytes, in which all other words and scripts are encoded and decoded exactly; "
        f"`{EOS}` ends a story and may begin one; no padding token",
        "Data": f"{len(corpus):,} documents, {sum(map(len, corpus)) / 1e6:.0f} million characters, all generated by "
        "`tools/world`, rules and word lists of this project; no other text",
        "Kinds": ", ".join(f"{kind} {share:.0%}" for kind, share in KIND_SHARES.items()) + " of the documents",
        "Flaws": "more than half of the translations, answers, summaries and dialogue turns are flawed on purpose, "
        "with the probabilities `FLAWS` in `tools/embedded_lm_corpus.py`, to leave room for reinforcement learning; "
        "stories have none",
        "Training": f"{settings.num_steps:,} steps of {settings.batch_tokens:,} tokens in windows of {windows}; "
        f"Muon (peak {settings.muon_learning_rate:g}) and AdamW (peak {settings.learning_rate:g}), cosine schedule; "
        f"seed {settings.seed}" + (AGREEMENT.format(settings=settings) if settings.agreement_steps else ""),
        "Cost": f"{counters['cpu_seconds'] / 60:.0f} CPU-minutes on one thread",
        "Held-out cross-entropy": "nats per character (and perplexity per token) of 2,000 held-out documents: "
        + ", ".join(f"{kind} {per_character[kind]:.3f} ({math.exp(per_token[kind]):.2f})" for kind in KIND_SHARES),
        "Grammar": f"{grammar_findings(texts):.1f} findings of Harper per 1,000 words of {NUM_STORIES} sampled "
        f"stories, {grammar_findings(stories):.1f} in as many held-out stories of the training text's generator",
        "Persons": f"all introduced, with the right pronouns, in {consistent_share(texts):.1%} of the sampled and "
        f"{consistent_share(stories):.1%} of the held-out stories (`textgym.scorers.Consistency`)",
        "Sentences": f"{sum(line in known for line in lines) / len(lines):.0%} of the sentences of the sampled "
        "stories occur verbatim in the training text",
        "Sentiment": "VADER compound of 24-token continuations of `textgym/prompts/openings.txt`: "
        f"{describe_sentiment(continuations)}",
        "Licence": "MIT, as the rest of the project, for weights and training text",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    (folder / "README.md").write_text(CARD.format(name=name, purpose=PURPOSES[name], table=table), encoding="utf-8")


def write_samples(root: Path) -> None:
    """Write docs/embedded_lm_samples.md."""
    folder = root / "textgym/lm/tiny"
    openings = read_openings(root)[::7][:NUM_SHOWN]
    lines = [
        "# Samples of the embedded language models",
        "",
        "Sampled at temperature 1 from the full distribution with seed 0, until an end-of-text token or 200 tokens;",
        "neither selected nor edited. To reproduce:",
        "",
        f"    {COMMAND}",
        "",
        "## Stories",
        "",
        *_numbered(openings, sample(folder, openings, 200, seed=0)),
        "## Stories of `tiny-early`",
        "",
        *_numbered(openings[:10], sample(root / "textgym/lm/tiny-early", openings[:10], 200, seed=0)),
    ]
    for name in ("translation", "qa", "summary", "dialogue"):
        task = TASKS[name]
        prompts = task_prompts(task, "eval")
        cases = [prompts[index] for index in range(6)]
        texts = sample(folder, [case.prompt for case in cases], 48, seed=0)
        lines += [
            f"## {name.capitalize()}",
            "",
            "The prompt, the model's completion and, in brackets, the best answer.",
            "",
        ]
        for case, text in zip(cases, texts, strict=True):
            written = f"{case.prompt}{text.rstrip()}   [{task.optimal_turn(case)}]"
            lines += [*(f"    {line}" for line in written.splitlines()), ""]
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs/embedded_lm_samples.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _numbered(openings: list[str], texts: list[str]) -> list[str]:
    pairs = zip(openings, texts, strict=True)
    return [f"{number}. **{opening}**{text.rstrip()}\n" for number, (opening, text) in enumerate(pairs, 1)]


PURPOSES = {
    "tiny": "It is textgym's default policy, reference and tokenizer, small enough\nfor reinforcement learning on a "
    "laptop's CPU within a minute.",
    "tiny-early": "It is smaller than `tiny` and stopped early, so that\nreinforcement learning can improve its "
    "language itself.",
}
AGREEMENT = (
    ". In the last {settings.agreement_steps:,} steps the cross-entropy of names among names and of pronouns among "
    "pronouns is added with weight {settings.agreement_weight:g}"
)
CARD = """---
license: mit
language: en
pipeline_tag: text-generation
---
# The embedded language model `{name}`

A very small GPT-2 model of short everyday stories in simple English and of textgym's tasks: translation into French,
question answering, summaries and shop dialogues. {purpose}
It is not meant for any other use.

| | |
| --- | --- |
{table}

Samples at temperature 1: `docs/embedded_lm_samples.md`. To train it again: `python tools/train_embedded_lm.py`.

Limits: it knows the phrases of its training text and no others, sometimes confuses people or things, and cannot follow
instructions, reason or state facts. Other text takes one token per byte and is continued badly.
"""
