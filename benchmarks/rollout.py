"""Sampling speed with environment, scorer and policy, relative to transformers' `generate`.

    OMP_NUM_THREADS=1 python benchmarks/rollout.py

The rollout includes the environment with its default scorer, the LM policy and autoreset; `generate` only samples. Both
are measured alternately on one thread; figures are medians over rounds. Only tokens of the episodes count, not those
that `generate` writes past an episode's end to complete its batch. The upper bound is the speed with prompts of one
token, whose prefill costs nothing.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from textgym import Sample, TextBatch, TextGenVectorEnv
from textgym.lm import LMStream, load_lm
from textgym.tasks import task_prompts
from textgym.tokenizers import Tokenizer, as_tokenizer
from textgym_agents import LMPolicy

PASSAGES = task_prompts("summary")
NUM_ENVS = 64
MAX_NEW_TOKENS = 32
MAX_PROMPT_TOKENS = 12
NUM_DISTINCT = 4096
"""Prompts of a workload without repetition, far more than the prefix cache keeps."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Prompts and lengths of the episodes."""

    name: str
    target: float
    """Target ratio to `generate`."""
    min_prompt_tokens: int = 4
    max_prompt_tokens: int = 12
    mean_new_tokens: float | None = 8
    """Mean of the geometric distribution of lengths, truncated at `MAX_NEW_TOKENS`; None for full length."""
    num_prompts: int | None = None
    """Number of distinct prompts; None for practically no repetition."""
    group_size: int = 1
    """Consecutive episodes with the same prompt."""

    def samples(self, seed: int, tokenizer: Tokenizer) -> Iterator[Sample]:
        """Yield prompts endlessly, with the length of each completion as metadata."""
        rng = np.random.default_rng(seed)
        prompts = [self._prompt(rng, tokenizer) for _ in range(self.num_prompts or NUM_DISTINCT)]
        while True:
            prompt = prompts[rng.integers(len(prompts))]
            for _ in range(self.group_size):
                length = MAX_NEW_TOKENS
                if self.mean_new_tokens is not None:
                    length = min(length, int(rng.geometric(1 / self.mean_new_tokens)))
                yield Sample(prompt, metadata={"length": length})

    def _prompt(self, rng: np.random.Generator, tokenizer: Tokenizer) -> str:
        """Return the beginning of a passage, of random length in tokens."""
        room = rng.integers(self.min_prompt_tokens, self.max_prompt_tokens + 1)
        ids = tokenizer.encode(PASSAGES.draw(rng).prompt)[:room]
        while len(tokenizer.encode(tokenizer.decode(ids))) != room:  # a truncated text can encode differently
            ids = tokenizer.encode(PASSAGES.draw(rng).prompt)[:room]
        return tokenizer.decode(ids)


def is_long_enough(batch: TextBatch) -> NDArray[np.bool_]:
    """End each episode at the length in its metadata."""
    return batch.num_new_tokens >= [metadata["length"] for metadata in batch.metadata]


class EnvRollout:
    """Rollout through the environment and the LM policy, with autoreset."""

    def __init__(self, policy: LMPolicy, workload: Workload) -> None:
        self._env = TextGenVectorEnv(
            NUM_ENVS,
            autoreset_mode="SameStep",
            prompts=workload.samples(0, as_tokenizer("tiny")),
            stop=is_long_enough,
            max_prompt_tokens=MAX_PROMPT_TOKENS,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        self._policy = policy
        self._generator = torch.Generator().manual_seed(0)
        self._observations, _ = self._env.reset(seed=0)

    def __call__(self, num_tokens: int) -> float:
        """Return useful tokens per second over at least `num_tokens`."""
        num_steps = -(-num_tokens // NUM_ENVS)
        start = time.perf_counter()
        for _ in range(num_steps):
            actions = self._policy.act(self._observations, generator=self._generator).actions
            self._observations, *_ = self._env.step(actions)
        return num_steps * NUM_ENVS / (time.perf_counter() - start)


class GenerateRollout:
    """Rollout in batches of `generate`, each as long as its longest episode."""

    def __init__(self, model: PreTrainedModel, workload: Workload) -> None:
        self._generate: Any = model.generate
        self._tokenizer = as_tokenizer("tiny")
        self._samples = workload.samples(0, self._tokenizer)

    def __call__(self, num_tokens: int) -> float:
        """Return useful tokens per second over at least `num_tokens`."""
        done = 0
        start = time.perf_counter()
        while done < num_tokens:
            done += self._batch()
        return done / (time.perf_counter() - start)

    def _batch(self) -> int:
        samples = list(itertools.islice(self._samples, NUM_ENVS))
        prompts = [self._tokenizer.encode(sample.prompt) for sample in samples]
        lengths = [sample.metadata["length"] for sample in samples]
        width = max(map(len, prompts))
        ids = torch.zeros(NUM_ENVS, width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        self._generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=max(lengths),
            eos_token_id=None,
            pad_token_id=0,
        )
        return sum(lengths)


def compare(workload: Workload, num_rounds: int, num_tokens: int) -> None:
    """Print useful tokens per second of both, their ratio and its upper bound."""
    policy = LMPolicy("tiny")
    one_token_prompts = Workload(
        name="bound", target=0, min_prompt_tokens=1, max_prompt_tokens=1, mean_new_tokens=workload.mean_new_tokens
    )
    rollouts: dict[str, Callable[[int], float]] = {
        "ours": EnvRollout(policy, workload),
        "generate": GenerateRollout(policy.model, workload),
        "bound": EnvRollout(LMPolicy("tiny"), one_token_prompts),
    }
    rates: dict[str, list[float]] = {name: [] for name in rollouts}
    for rollout in rollouts.values():
        rollout(num_tokens // 4)
    for _ in range(num_rounds):
        for name, rollout in rollouts.items():
            rates[name].append(rollout(num_tokens))

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[name], rates["generate"], strict=True))

    ours, theirs = statistics.median(rates["ours"]), statistics.median(rates["generate"])
    print(
        f"{workload.name:44} {ours:9,.0f} {theirs:9,.0f} tokens/s"
        f"  {ratio('ours'):5.2f} x  (target {workload.target} x, upper bound {ratio('bound'):.2f} x)",
        flush=True,
    )


class AttentionTimer(TorchFunctionMode):
    """Total time that attention takes to write and read keys and values."""

    seconds = 0.0
    _functions = (torch.Tensor.__setitem__, torch.baddbmm, torch.bmm, torch.softmax)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call and time a torch function."""
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if func in self._functions:
            self.seconds += time.perf_counter() - start
        return result


def compare_ends(num_envs: int, num_rounds: int) -> None:
    """Print the time of a step in the last tenth of a 512-token episode relative to the first tenth."""
    prompt_tokens, num_new = 8, 512
    model = load_lm("tiny")
    stream = LMStream(model, num_envs, prompt_tokens + num_new)
    steps, tenth = np.empty((num_rounds, num_new)), num_new // 10
    attention = np.empty_like(steps)
    for i in range(num_rounds):
        ids = np.random.default_rng(i).integers(model.config.vocab_size, size=(num_envs, prompt_tokens + num_new))
        for j in range(num_new):
            with AttentionTimer() as timer:
                start = time.perf_counter()
                stream(ids[:, : prompt_tokens + j])
                steps[i, j] = time.perf_counter() - start
            attention[i, j] = timer.seconds

    def ratio(costs: NDArray[np.float64]) -> float:
        return float(np.median(costs[:, -tenth:]) / np.median(costs[:, :tenth]))

    print(
        f"{f'last to first tenth of 512 tokens, N = {num_envs}':44} {ratio(steps):5.2f} x,"
        f" without attention {ratio(steps - attention):5.2f} x  (target 1.3 x)",
        flush=True,
    )


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=16_384, help="useful tokens per round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    workloads = (
        Workload(
            name="full length, prompts of 8 tokens",
            target=1.0,
            min_prompt_tokens=8,
            max_prompt_tokens=8,
            mean_new_tokens=None,
        ),
        Workload(name="geometric lengths", target=2.7),
        Workload(name="geometric lengths, 100 prompts", target=3.2, num_prompts=100),
        Workload(name="geometric lengths, groups of 8", target=3.2, group_size=8),
    )
    for workload in workloads:
        compare(workload, arguments.rounds, arguments.tokens)
    for num_envs in (1, 8, NUM_ENVS):
        compare_ends(num_envs, num_rounds=3)


if __name__ == "__main__":
    main()
