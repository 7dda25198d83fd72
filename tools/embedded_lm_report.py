"""Evaluate the embedded language model, and write its model card, samples and story openings."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from spellchecker import SpellChecker
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from embedded_lm_corpus import EOS, KIND_SHARES, document, plan
from textgym.tasks import TASKS
from world import build_scene, story
from world.plots import all_plots
from world.scene import MEN, SURNAMES, WOMEN

if TYPE_CHECKING:
    from train_embedded_lm import Settings

HELD_OUT_START = 1_000_000_000
OPENINGS_START = 2_000_000_000
EVAL_SEED = 12
COMMAND = "python tools/train_embedded_lm.py --stages samples"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Measurements for the model card."""

    num_parameters: int
    """Weights, tied ones counted once."""
    weight_bytes: int
    """Size of the weight file."""
    perplexities: dict[str, float]
    """Per token, on held-out documents of each kind."""
    word_share: float
    """Share of sampled words that are names or in an English word list."""
    verbatim_share: float
    """Share of sampled sentences that occur verbatim in the training corpus."""
    sentiment: str
    """Summary of the sentiment of continuations of the openings."""


def sample(folder: Path, prompts: list[str], max_new_tokens: int, seed: int) -> list[str]:
    """Return one continuation of each prompt at temperature 1, unfiltered; an empty prompt starts a new story."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    model.generation_config.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens)
    torch.manual_seed(seed)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id]])
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, pad_token_id=tokenizer.eos_token_id)
        texts.append(str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)))
    return texts


@torch.no_grad()
def held_out_perplexities(folder: Path, seed: int, num_documents: int) -> dict[str, float]:
    """Return the perplexity per token on held-out documents, by kind.

    Each document is preceded by an end-of-text token; its own tokens and the final end-of-text token are predicted.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    nats, tokens = dict.fromkeys(KIND_SHARES, 0.0), dict.fromkeys(KIND_SHARES, 0)
    for index in range(HELD_OUT_START, HELD_OUT_START + num_documents):
        kind, text = plan(seed, index)[0], document(seed, index)
        ids = torch.tensor([tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id])
        logits = model(ids[None]).logits[0, :-1]
        nats[kind] += float(functional.cross_entropy(logits, ids[1:], reduction="sum"))
        tokens[kind] += len(ids) - 1
    return {kind: math.exp(nats[kind] / tokens[kind]) for kind in KIND_SHARES}


def share_of_words(texts: list[str]) -> tuple[float, list[str]]:
    """Return the share of words that are names or known to pyspellchecker, and the other words."""
    names = {name.lower() for name in (*WOMEN, *MEN, *SURNAMES)}
    checker = SpellChecker(language="en")
    words = [word.removesuffix("'s") for text in texts for word in re.findall(r"[a-z']*[a-z]", text.lower())]
    unknown = [word for word in words if word not in names and word not in checker]
    return 1 - len(unknown) / len(words), unknown


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [part for part in re.split(r"(?<=[.!?])\"? ", text) if part]


def describe_sentiment(folder: Path, openings: list[str], seed: int) -> str:
    """Return mean, deviation and shares of VADER's compound score of 32-token continuations."""
    score = SentimentIntensityAnalyzer().polarity_scores
    values = [score(text)["compound"] for text in sample(folder, openings, 32, seed)]
    positive = sum(value > 0.05 for value in values) / len(values)
    negative = sum(value < -0.05 for value in values) / len(values)
    return (
        f"mean {statistics.mean(values):.2f}, standard deviation {statistics.pstdev(values):.2f}; "
        f"{positive:.0%} positive, {negative:.0%} negative, {1 - positive - negative:.0%} neutral"
    )


def write_openings(seed: int, folder: Path, path: Path, count: int = 300) -> None:
    """Write distinct, neutral beginnings of held-out stories, 4 to 12 tokens each, cut at word boundaries."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    score = SentimentIntensityAnalyzer().polarity_scores
    found: dict[str, None] = {}
    by_plot: dict[str, int] = {}
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
        if not cuts or is_decided or by_plot.get(scene.plot, 0) >= count // 40:
            continue
        cut = cuts[-1 - index % min(2, len(cuts))]
        if cut not in found and score(cut)["compound"] == 0.0:
            found[cut] = None
            by_plot[scene.plot] = by_plot.get(scene.plot, 0) + 1
    path.write_text("\n".join(sorted(found)) + "\n", encoding="utf-8")


def read_openings(root: Path) -> list[str]:
    """Return the story openings of the package."""
    return (root / "textgym/prompts/openings.txt").read_text(encoding="utf-8").splitlines()


def write_report(settings: Settings, work_folder: Path, root: Path) -> None:
    """Evaluate the exported model and write its model card."""
    folder, openings = root / "textgym/lm/tiny", read_openings(root)
    texts = sample(folder, openings[:200], 200, seed=0)
    texts = [opening + text for opening, text in zip(openings[:200], texts, strict=True)]
    share, unknown = share_of_words(texts)
    documents = (work_folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    stories = [story(settings.seed, i) for i in range(len(documents)) if plan(settings.seed, i)[0] == "story"]
    known = {sentence for text in stories for sentence in sentences(text)}
    lines = [line for text in texts for line in sentences(text)]
    findings = Findings(
        num_parameters=AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).num_parameters(),
        weight_bytes=(folder / "model.safetensors").stat().st_size,
        perplexities=held_out_perplexities(folder, settings.seed, 2000),
        word_share=share,
        verbatim_share=sum(line in known for line in lines) / len(lines),
        sentiment=describe_sentiment(folder, openings, seed=2),
    )
    print(findings, "unknown words:", sorted(set(unknown)))
    cpu_minutes = json.loads((work_folder / "checkpoint.json").read_text())["cpu_seconds"] / 60
    num_characters = sum(len(json.loads(line)) for line in documents)
    (folder / "README.md").write_text(_card(settings, findings, cpu_minutes, num_characters), encoding="utf-8")


def write_samples(root: Path) -> None:
    """Write docs/embedded_lm_samples.md."""
    folder = root / "textgym/lm/tiny"
    openings = read_openings(root)[::12]
    stories = sample(folder, openings, 200, seed=0)
    lines = [
        "# Samples of the embedded language model",
        "",
        "Sampled at temperature 1 from the full distribution with seed 0, until an end-of-text token or 200 tokens;",
        "neither selected nor edited. To reproduce:",
        "",
        f"    {COMMAND}",
        "",
        "## Stories",
        "",
        *(
            f"{number}. **{opening}**{text.rstrip()}\n"
            for number, (opening, text) in enumerate(zip(openings, stories, strict=True), 1)
        ),
    ]
    for name in ("translation", "qa", "summary", "dialogue"):
        task = TASKS[name]
        cases = [task.sample(task.rows(EVAL_SEED, index, 1 + index % 3)) for index in range(6)]
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


def _card(settings: Settings, findings: Findings, cpu_minutes: float, corpus_characters: int) -> str:
    windows = ", ".join(str(length) for length, _ in settings.window_shares)
    rows = {
        "Shape": f"GPT-2, {settings.num_layers} layers, width {settings.width}, {settings.num_heads} heads, "
        f"{settings.num_positions} positions, tied embeddings",
        "Parameters": f"{findings.num_parameters:,}",
        "Weights": f"{findings.weight_bytes / 1e6:.2f} MB, float16 on disk, float32 in memory",
        "Tokenizer": f"byte-level BPE, {settings.vocab_size} tokens; `{EOS}` ends a story and may begin one; "
        "no padding token",
        "Data": f"{settings.num_documents:,} documents, {corpus_characters / 1e6:.1f} million characters, all "
        "generated by `tools/world`, rules and word lists of this project; no other text",
        "Kinds": ", ".join(f"{kind} {share:.0%}" for kind, share in KIND_SHARES.items()) + " of the documents",
        "Flaws": "more than half of the translations, answers, summaries and dialogue turns are flawed on purpose, "
        "with the probabilities `FLAWS` in `tools/embedded_lm_corpus.py`, to leave room for reinforcement learning",
        "Training": f"{settings.num_steps:,} steps of {settings.batch_tokens:,} tokens in windows of {windows}; "
        f"Muon (peak {settings.muon_learning_rate:g}) and AdamW (peak {settings.learning_rate:g}), cosine schedule; "
        f"then {settings.num_refinements} times {settings.num_refining_steps:,} steps on "
        f"{settings.num_refining_documents:,} further documents, mostly sums "
        "and questions on two persons, with a higher share of right answers; "
        f"seed {settings.seed}",
        "Cost": f"{cpu_minutes:.0f} CPU-minutes on one thread, without the refinements",
        "Held-out perplexity": "per token, on 2,000 held-out documents: "
        + ", ".join(f"{kind} {value:.2f}" for kind, value in findings.perplexities.items()),
        "Words": f"{findings.word_share:.1%} of the words of 200 stories are names or in pyspellchecker's English list",
        "Sentences": f"{findings.verbatim_share:.0%} of the sentences of 200 stories occur verbatim in the "
        "training stories",
        "Sentiment": "VADER compound of 32-token continuations of `textgym/prompts/openings.txt`: "
        f"{findings.sentiment}",
        "Licence": "MIT, as the rest of the project, for weights and training text",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
license: mit
language: en
pipeline_tag: text-generation
---
# The embedded language model

A very small GPT-2 model of short everyday stories in simple English and of textgym's tasks: translation into French,
question answering, summaries and shop dialogues. It is textgym's default policy, reference and tokenizer, small enough
for reinforcement learning on a laptop's CPU within a minute. It is undertrained, and half of its task texts are flawed
on purpose; it is not meant for any other use.

| | |
| --- | --- |
{table}

Samples at temperature 1: `docs/embedded_lm_samples.md`. To train it again: `python tools/train_embedded_lm.py`.

Limits: it repeats phrases of its corpus, sometimes confuses people or things, and cannot follow instructions, reason
or state facts. Text unlike its corpus takes many tokens and is continued badly.
"""
