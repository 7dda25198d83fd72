"""How fast texts are sampled: the stream beside transformers' `generate`, in one run on one thread.

Every figure is a median over rounds in which the two take turns, since a shared machine is never equally fast twice.
Useful tokens are those of the episodes; what `generate` writes past an episode's end, to finish its batch, is not. The
bound is what the stream reaches with prompts of one token, which cost nothing to feed.

    OMP_NUM_THREADS=1 python benchmarks/rollout.py
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
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym.lm import LMStream, load_lm, sample

Episodes = Iterator[tuple[NDArray[np.int64], int]]
"""Prompt ids and number of new tokens of one episode after the other."""

NUM_SLOTS = 64
MAX_NEW_TOKENS = 32
MAX_PROMPT_TOKENS = 12
WINDOW = MAX_PROMPT_TOKENS + MAX_NEW_TOKENS


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Which episodes are rolled out."""

    name: str
    target: float
    """Ratio to `generate` that is to be reached."""
    min_prompt_tokens: int = 4
    max_prompt_tokens: int = 12
    mean_new_tokens: float | None = 8
    """Of the geometric distribution of lengths, cut at `MAX_NEW_TOKENS`; None for full length."""
    num_prompts: int | None = None
    """Different prompts that episodes draw from; None for a new one each time."""
    group_size: int = 1
    """Episodes in a row that share a prompt."""

    def episodes(self, seed: int) -> Episodes:
        """Yield episodes without end."""
        rng = np.random.default_rng(seed)
        prompts = [self._prompt(np.random.default_rng((1, i))) for i in range(self.num_prompts or 0)]
        while True:
            prompt = prompts[rng.integers(len(prompts))] if prompts else self._prompt(rng)
            for _ in range(self.group_size):
                length = MAX_NEW_TOKENS
                if self.mean_new_tokens is not None:
                    length = min(length, int(rng.geometric(1 / self.mean_new_tokens)))
                yield prompt, length

    def _prompt(self, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(1000, size=rng.integers(self.min_prompt_tokens, self.max_prompt_tokens + 1))


class EpisodeSlots:
    """The least that an environment does: append each action, and start the next episode where one ends."""

    def __init__(self, episodes: Episodes, pad_token_id: int) -> None:
        self._episodes, self._pad_token_id = episodes, pad_token_id
        self.ids = np.full((NUM_SLOTS, WINDOW), pad_token_id)
        self.lengths = np.zeros(NUM_SLOTS, np.int64)
        self._stop = np.zeros(NUM_SLOTS, np.int64)
        self._slots = np.arange(NUM_SLOTS)
        for slot in self._slots:
            self._start(slot)

    def step(self, actions: NDArray[np.int64]) -> None:
        """Append one token to every text."""
        self.ids[self._slots, self.lengths] = actions
        self.lengths += 1
        for slot in np.flatnonzero(self.lengths == self._stop):
            self._start(slot)

    def _start(self, slot: np.intp) -> None:
        prompt, num_new = next(self._episodes)
        self.ids[slot] = self._pad_token_id
        self.ids[slot, : len(prompt)] = prompt
        self.lengths[slot] = len(prompt)
        self._stop[slot] = len(prompt) + num_new


class StreamRollout:
    """Rolls episodes out through an `LMStream`, all slots going on for ever."""

    def __init__(self, model: PreTrainedModel, episodes: Episodes) -> None:
        self._stream = LMStream(model, NUM_SLOTS, WINDOW)
        self._slots = EpisodeSlots(episodes, self._stream.pad_token_id)
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, num_tokens: int) -> float:
        """Return useful tokens per second over at least `num_tokens`."""
        num_steps = -(-num_tokens // NUM_SLOTS)
        start = time.perf_counter()
        for _ in range(num_steps):
            logits = self._stream(self._slots.ids, self._slots.lengths).logits
            self._slots.step(sample(logits, self._generator).numpy())
        return num_steps * NUM_SLOTS / (time.perf_counter() - start)


class GenerateRollout:
    """Rolls episodes out in batches of `generate`, each as long as its longest episode."""

    def __init__(self, model: PreTrainedModel, episodes: Episodes) -> None:
        self._model, self._episodes = model, episodes

    def __call__(self, num_tokens: int) -> float:
        """Return useful tokens per second over at least `num_tokens`."""
        done = 0
        start = time.perf_counter()
        while done < num_tokens:
            done += self._batch()
        return done / (time.perf_counter() - start)

    def _batch(self) -> int:
        prompts, lengths = zip(*itertools.islice(self._episodes, NUM_SLOTS), strict=True)
        width = max(map(len, prompts))
        ids = torch.zeros(NUM_SLOTS, width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, width - len(prompt) :] = 1
        self._model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=max(lengths),
            eos_token_id=None,
            pad_token_id=0,
        )
        return sum(lengths)


def compare(model: PreTrainedModel, workload: Workload, num_rounds: int, num_tokens: int) -> None:
    """Print useful tokens per second of the stream and of `generate`, and the ratio that free resets would give."""
    free = Workload(
        name="bound", target=0, min_prompt_tokens=1, max_prompt_tokens=1, mean_new_tokens=workload.mean_new_tokens
    )
    rollouts: dict[str, Callable[[int], float]] = {
        "stream": StreamRollout(model, workload.episodes(0)),
        "generate": GenerateRollout(model, workload.episodes(1)),
        "bound": StreamRollout(model, free.episodes(0)),
    }
    rates: dict[str, list[float]] = {name: [] for name in rollouts}
    for rollout in rollouts.values():
        rollout(num_tokens // 4)
    for _ in range(num_rounds):
        for name, rollout in rollouts.items():
            rates[name].append(rollout(num_tokens))

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[name], rates["generate"], strict=True))

    ours, peer = statistics.median(rates["stream"]), statistics.median(rates["generate"])
    print(
        f"{workload.name:44} {ours:9,.0f} {peer:9,.0f} tokens/s"
        f"  {ratio('stream'):5.2f} x  (target {workload.target} x, every reset free {ratio('bound'):.2f} x)",
        flush=True,
    )


class AttentionTimer(TorchFunctionMode):
    """Adds up the time that attention takes to write and to read keys and values."""

    seconds = 0.0
    _functions = (torch.Tensor.__setitem__, torch.baddbmm, torch.bmm, torch.softmax)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if func in self._functions:
            self.seconds += time.perf_counter() - start
        return result


def compare_ends(num_slots: int, num_rounds: int) -> None:
    """Print what a step costs in the last tenth of a 512-token episode, relative to the first tenth."""
    prompt_tokens, num_new = 8, 512
    stream = LMStream(random_lm(num_positions=1024), num_slots, prompt_tokens + num_new)
    steps, tenth = np.empty((num_rounds, num_new)), num_new // 10
    attention = np.empty_like(steps)
    for i in range(num_rounds):
        ids = np.random.default_rng(i).integers(1000, size=(num_slots, prompt_tokens + num_new))
        for j in range(num_new):
            with AttentionTimer() as timer:
                start = time.perf_counter()
                stream(ids[:, : prompt_tokens + j])
                steps[i, j] = time.perf_counter() - start
            attention[i, j] = timer.seconds

    def ratio(costs: NDArray[np.float64]) -> float:
        return float(np.median(costs[:, -tenth:]) / np.median(costs[:, :tenth]))

    print(
        f"{f'last to first tenth of 512 tokens, N = {num_slots}':44} {ratio(steps):5.2f} x,"
        f" attention aside {ratio(steps - attention):5.2f} x  (target 1.3 x)",
        flush=True,
    )


def random_lm(num_positions: int) -> PreTrainedModel:
    """A language model of the embedded one's shape."""
    config = GPT2Config(
        vocab_size=1024, n_embd=128, n_layer=4, n_head=4, n_positions=num_positions, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=16_384, help="useful tokens per round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_lm("tiny")
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
        compare(model, workload, arguments.rounds, arguments.tokens)
    for num_slots in (1, 8, NUM_SLOTS):
        compare_ends(num_slots, num_rounds=3)


if __name__ == "__main__":
    main()
