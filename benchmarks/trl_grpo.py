"""Training speed of GRPO in textgym and in TRL's GRPOTrainer: tokens per second of sampling and update.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/trl_grpo.py

Needs the extra `bench`. Both train the same weights on the same prompts with the same reward, batch and optimizer, on
one thread: 64 completions per step in groups of 8, no KL term, one update per batch, a learning rate so small that the
lengths do not change. Tokens of completions count, EOS included; construction and the first step are not timed. Speeds
are medians over alternating rounds, the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOConfig as TRLConfig
from trl import GRPOTrainer

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.lm import load_lm, no_progress_bars
from textgym.tokenizers import embedded_lm_path
from textgym_agents import GRPO, GRPOConfig, LMPolicy

PROMPTS = (
    "A boy called Ben had grown a very",
    "A busy clockmaker planted",
    "A quiet boy called Finn found an old box in the",
    "A small donkey found a big cheese",
    "A tall painter wound up the old music box",
    "Ada had invited twenty people to her",
    "All summer the old goat sang and",
    "Amara kept bees on the farm",
)
NEVER = -1e4
"""Logit of a token that is never sampled; minus infinity would make an entropy NaN."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training task for both libraries."""

    prompts: tuple[str, ...]
    reward: Callable[[str], float]
    """Reward of a completion."""
    max_new_tokens: int
    learning_rate: float
    num_steps: int
    """Maximal number of updates."""
    goal: float = math.inf
    """Mean reward of a batch at which training stops."""
    batch_size: int = 64
    """Completions per update."""
    group_size: int = 8
    """Completions per prompt."""
    seed: int = 0


@dataclass(frozen=True)
class Record:
    """Measurements after an update."""

    seconds: float
    """Time since the start of training."""
    num_tokens: int
    """Tokens of the batch's completions, EOS included."""
    reward: float
    """Mean reward of the batch, sampled before the update."""


def train_trl(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> list[Record]:
    """Train with TRL; return a record per update."""
    recorder = _TRLRecorder(task)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=recorder.score,
            args=trl_config(
                folder,
                num_generations=task.group_size,
                max_completion_length=task.max_new_tokens,
                per_device_train_batch_size=task.batch_size,
                max_steps=task.num_steps,
                beta=0.0,
                learning_rate=task.learning_rate,
                seed=task.seed,
            ),
            # One epoch for all steps: starting another one costs time.
            train_dataset=Dataset.from_dict({"prompt": list(task.prompts) * task.num_steps}),
            processing_class=tokenizer,
            callbacks=[recorder],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return recorder.records


def trl_config(folder: str, **settings: Any) -> TRLConfig:
    """Return TRL's settings for GRPO on a CPU without optional overhead, at a constant learning rate.

    Args:
        folder: ``output_dir``, in which nothing is written.
        **settings: Further arguments of TRL's ``GRPOConfig``; what is not given is TRL's default.
    """
    return TRLConfig(
        output_dir=folder,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,  # TRL's default is True; both sides compute in float32
        gradient_checkpointing=False,  # TRL's default is True, which saves memory and costs time
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        **settings,
    )


class _TRLRecorder(TrainerCallback):
    """Reward function and callback that record each update."""

    def __init__(self, task: Task) -> None:
        self.records: list[Record] = []
        self._task = task
        self._start = math.nan
        self._num_tokens = 0
        self._rewards: list[float] = []

    def score(self, completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Return the rewards of a batch, in TRL's signature."""
        self._num_tokens = sum(map(len, completion_ids))
        self._rewards = [self._task.reward(completion) for completion in completions]
        return self._rewards

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: transformers.TrainerControl, **_: Any) -> None:
        """Record an update, and stop the training at the goal."""
        reward = statistics.fmean(self._rewards)
        self.records.append(Record(time.perf_counter() - self._start, self._num_tokens, reward))
        if reward >= self._task.goal:
            control.should_training_stop = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of transformers and TRL about intended settings."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), no_progress_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        transformers.logging.set_verbosity(verbosity)


def ours(
    model: PreTrainedModel, task: Task, /, *, gamma: float = 1.0, return_to_go: bool = False, **env_keywords: Any
) -> list[Record]:
    """Train with textgym's GRPO; return a record per update. Env keywords specify the tokenizer."""
    env = gym.make_vec(
        "TextGen-v0",
        num_envs=task.batch_size,
        autoreset_mode="SameStep",
        prompts=list(task.prompts),
        scorer=task.reward,
        group_size=task.group_size,
        max_new_tokens=task.max_new_tokens,
        **env_keywords,
    )
    config = GRPOConfig(
        num_episodes=task.batch_size,
        learning_rate=task.learning_rate,
        kl_coef=0.0,
        variant="grpo",
        n_epochs=1,
        batch_size=None,
        imitation_coef=0.0,
        gamma=gamma,
        return_to_go=return_to_go,
        seed=task.seed,
    )
    agent = GRPO(LMPolicy(model), env, config)
    records: list[Record] = []
    num_before = 0

    def record(agent: GRPO, metrics: dict[str, float]) -> bool:
        nonlocal num_before
        reward = metrics["rollout/score_mean"]
        records.append(Record(time.perf_counter() - start, agent.num_timesteps - num_before, reward))
        num_before = agent.num_timesteps
        return reward < task.goal and len(records) < task.num_steps

    start = time.perf_counter()
    agent.learn(task.num_steps * task.batch_size * task.max_new_tokens, callback=record)
    return records


def without_eos(model: PreTrainedModel) -> PreTrainedModel:
    """Modify a model to never write EOS, so that all completions use their whole budget."""
    return _with_eos_bias(model, NEVER)


def eos_for_full_stop(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, odds: float) -> PreTrainedModel:
    """Modify a model to write EOS `odds` times as often as a full stop in the same places.

    Lengths are then nearly geometric, since each sentence is the last one with the same probability. A bias on the
    model's own EOS would not have this effect: it ends whole stories only.
    """
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())  # no longer the input embedding
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        head.weight[tokenizer.eos_token_id] = head.weight[tokenizer.convert_tokens_to_ids(".")]
    return _with_eos_bias(model, math.log(odds))


def _with_eos_bias(model: PreTrainedModel, logit: float) -> PreTrainedModel:
    head = model.get_output_embeddings()
    bias = torch.zeros(len(head.weight))
    bias[model.config.eos_token_id] = logit
    head.bias = nn.Parameter(bias, requires_grad=False)
    return model


def letter_share(completion: str) -> float:
    """Return the share of the letter e in the characters of a text, 0 for an empty one."""
    return completion.count("e") / len(completion) if completion else 0.0


def tokens_per_second(records: list[Record]) -> float:
    """Return the speed of all updates after the first."""
    return sum(record.num_tokens for record in records[1:]) / (records[-1].seconds - records[0].seconds)


def compare(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, rounds: int) -> None:
    """Print both speeds and their ratio."""
    rates: dict[str, list[float]] = {"ours": [], "TRL": []}
    lengths: dict[str, list[float]] = {"ours": [], "TRL": []}
    for round_number in range(rounds):
        task = replace(task, seed=round_number)
        for side, records in (
            ("TRL", train_trl(copy.deepcopy(model), tokenizer, task)),
            ("ours", ours(copy.deepcopy(model), task, model="tiny")),
        ):
            rates[side].append(tokens_per_second(records))
            lengths[side] += [record.num_tokens / task.batch_size for record in records[1:]]
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["TRL"], strict=True))
    print(
        f"{name:38} {statistics.median(rates['ours']):8,.0f} {statistics.median(rates['TRL']):8,.0f} tokens/s"
        f"  {ratio:5.2f} x  (mean length {statistics.fmean(lengths['ours']):.1f} and"
        f" {statistics.fmean(lengths['TRL']):.1f})",
        flush=True,
    )


def main() -> None:
    """Compare completions of one length and of many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="updates per round, the first of which does not count")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(embedded_lm_path("tiny"), trust_remote_code=False)

    def task(max_new_tokens: int) -> Task:
        return Task(
            prompts=PROMPTS,
            reward=letter_share,
            max_new_tokens=max_new_tokens,
            learning_rate=1e-6,
            num_steps=arguments.steps,
        )

    print(f"{'':38} {'ours':>8} {'TRL':>8}")
    compare("all of 48 tokens", without_eos(load_lm("tiny")), tokenizer, task(48), arguments.rounds)
    varying = eos_for_full_stop(load_lm("tiny"), tokenizer, odds=0.5)
    compare("1 to 128 tokens, nearly geometric", varying, tokenizer, task(128), arguments.rounds)


if __name__ == "__main__":
    main()
