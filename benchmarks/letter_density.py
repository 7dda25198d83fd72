"""Time until GRPO reaches a mean return of 0.9, in textgym and in TRL's GRPOTrainer; the return is the share of e.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/letter_density.py

Needs the extra `bench`. A random Llama of four layers writes 32 characters after one prompt; Adam with 1e-3, 64
completions per update in groups of 8, one thread. Time is measured from the start of training to the end of the first
update whose batch has that mean, as a median over seeds, which also determine the weights. TRL supports rewards of
whole completions only; the environment can also give a reward per token, for which GRPO needs a discount.
"""

from __future__ import annotations

import argparse
import statistics
import string
from collections.abc import Callable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from textgym.tokenizers import CharTokenizer
from trl_grpo import Record, Task, ours, train_trl, without_eos

ALPHABET = string.ascii_lowercase + " "
PROMPT = "once upon a time "
NUM_LETTERS = 32
GOAL = 0.9


def random_llama(seed: int) -> PreTrainedModel:
    """Return a random character model that never writes EOS."""
    config = LlamaConfig(
        vocab_size=len(ALPHABET) + 1,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=len(ALPHABET),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return without_eos(LlamaForCausalLM(config).eval())


def trl_tokenizer() -> PreTrainedTokenizerFast:
    """Return a Hugging Face tokenizer with the ids of `CharTokenizer(ALPHABET)`."""
    ids = {character: i for i, character in enumerate([*ALPHABET, "<eos>"])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", clean_up_tokenization_spaces=False
    )


def density(completion: str) -> float:
    """Return the number of e divided by the length of a full completion, so that each e adds the same."""
    return completion.count("e") / NUM_LETTERS


def with_trl(task: Task) -> list[Record]:
    return train_trl(random_llama(task.seed), trl_tokenizer(), task)


def with_ours(reward: str, gamma: float) -> Callable[[Task], list[Record]]:
    def train(task: Task) -> list[Record]:
        tokenizer = CharTokenizer(ALPHABET)
        keywords = {"tokenizer": tokenizer, "reward": reward}
        return ours(random_llama(task.seed), task, gamma=gamma, return_to_go=reward != "terminal", **keywords)

    return train


def task(seed: int, num_steps: int) -> Task:
    return Task(
        prompts=(PROMPT,),
        reward=density,
        max_new_tokens=NUM_LETTERS,
        learning_rate=1e-3,
        num_steps=num_steps,
        goal=GOAL,
        seed=seed,
    )


def main() -> None:
    """Print a table of steps and seconds to the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-steps", type=int, default=100, help="maximal number of updates")
    parser.add_argument("--gamma", type=float, default=0.0, help="discount of the last row")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainers: dict[str, Callable[[Task], list[Record]]] = {
        "TRL": with_trl,
        "ours, terminal reward": with_ours("terminal", 1.0),
        "ours, reward per token": with_ours("potential", 1.0),
        f"ours, per token, gamma {arguments.gamma:g}": with_ours("potential", arguments.gamma),
    }
    for train in trainers.values():
        train(task(seed=0, num_steps=2))  # warm-up
    ends: dict[str, list[tuple[int, Record]]] = {name: [] for name in trainers}
    for seed in range(arguments.seeds):
        for name, train in trainers.items():
            records = train(task(seed, arguments.max_steps))
            ends[name].append((len(records), records[-1]))
    report(ends)


def report(ends: dict[str, list[tuple[int, Record]]]) -> None:
    """Print steps and seconds to the goal, given the number of updates and the last record of each run."""
    print(f"{'':28} {'steps':>6} {'seconds':>8}  {'ratio':>7}  steps of each seed")
    trl = [end.seconds for _, end in ends["TRL"]]
    for name, runs in ends.items():
        seconds = [end.seconds for _, end in runs]
        ratio = statistics.median(mine / theirs for theirs, mine in zip(trl, seconds, strict=True))
        each = ", ".join(f"{steps}" if end.reward >= GOAL else f"none in {steps}" for steps, end in runs)
        print(
            f"{name:28} {statistics.median(steps for steps, _ in runs):6.0f} {statistics.median(seconds):8.1f}"
            f"  {ratio:5.2f} x  {each}"
        )


if __name__ == "__main__":
    main()
