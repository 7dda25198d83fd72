"""Cost of scorers: per finished episode, per token, and the speed-up of a cache.

    OMP_NUM_THREADS=1 python benchmarks/scorers.py

The baseline is the same vector environment with a constant scorer, with the terminal reward, or without the cache,
measured alternately. Texts are stories in the ids of the embedded language model. Times are CPU times of the process.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym import TextBatch, TextGenVectorEnv
from textgym.scorers import (
    BalancedBrackets,
    BannedWords,
    Cached,
    CharacterShare,
    Fluency,
    Keywords,
    LengthBand,
    WeightedSum,
)
from textgym.tasks import task_prompts
from textgym.tokenizers import as_tokenizer

NUM_ENVS, NUM_TOKENS, NUM_EPISODES, NUM_ROUNDS = 256, 32, 4, 11
COMPOSITE = {"distinct_n": 0.5, "length_band": 1.0, "repetition": -1.0, "sentence_shape": 0.5, "word_shape": 1.0}
INCREMENTAL = {
    "balanced_brackets": BalancedBrackets(),
    "banned_words": BannedWords(["blood", "death", "fire"]),
    "character_share": CharacterShare(),
    "keywords": Keywords(["dog", "house", "morning"]),
    "length_band": LengthBand(),
    "length_band in characters": LengthBand(80, 160, "characters"),
}
THREE = ("character_share", "keywords", "length_band")


def constant(batch: TextBatch) -> np.ndarray:
    return np.ones(len(batch))


@cache
def passages() -> npt.NDArray[np.int64]:
    """Return (NUM_EPISODES, NUM_ENVS, NUM_TOKENS) int64, the ids of texts to be summarised, without EOS."""
    tokenizer, prompts = as_tokenizer("tiny"), task_prompts("summary")
    wanted = NUM_EPISODES * NUM_ENVS
    rows: list[list[int]] = []
    index = 0
    while len(rows) < wanted:
        ids = tokenizer.encode(prompts[index].prompt)
        rows += [ids[i : i + NUM_TOKENS] for i in range(0, len(ids) - NUM_TOKENS + 1, NUM_TOKENS)]
        index += 1
    return np.array(rows[:wanted]).reshape(NUM_EPISODES, NUM_ENVS, NUM_TOKENS)


def episodes_of(scorer: Any, reward: str = "terminal") -> Callable[[], None]:
    """Return a function that writes NUM_EPISODES * NUM_ENVS passages, 32 steps each."""
    envs = TextGenVectorEnv(
        NUM_ENVS,
        autoreset_mode="SameStep",
        scorer=scorer,
        reward=reward,
        max_new_tokens=NUM_TOKENS,
        prompts=[f"This is story number {i}." for i in range(100)],
    )
    envs.reset(seed=0)

    def run() -> None:
        for actions in passages():
            for t in range(NUM_TOKENS):
                envs.step(actions[:, t])

    return run


def seconds(run: Callable[[], None]) -> float:
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def medians(*runs: Callable[[], None]) -> npt.NDArray[np.float64]:
    """Return the seconds of each run in excess of the first, as medians over alternating rounds."""
    for warm_up in runs:
        warm_up()
    rounds = np.array([[seconds(run) for run in runs] for _ in range(NUM_ROUNDS)])
    return np.median(rounds - rounds[:, :1], axis=0)


def print_composite() -> None:
    added = medians(episodes_of(constant), episodes_of(COMPOSITE))[1] / (NUM_EPISODES * NUM_ENVS)
    print(
        f"N = {NUM_ENVS}, five lexical scorers relative to a constant one: "
        f"{added * 1e6:.1f} microseconds per finished episode of {NUM_TOKENS} tokens (less than 50)"
    )


def print_per_token() -> None:
    together = WeightedSum({name: (INCREMENTAL[name], 1.0) for name in THREE})
    scorers = INCREMENTAL | {f"weighted sum of {', '.join(THREE)}": together}
    for name, scorer in scorers.items():
        added = medians(episodes_of(scorer), episodes_of(scorer, "per_token"))[1] / passages().size
        print(f"N = {NUM_ENVS}, per_token relative to terminal, {name}: {added * 1e6:.2f} us per token (less than 5)")


def print_cached() -> None:
    tokenizer = as_tokenizer("tiny")
    texts = [tokenizer.decode(ids) for ids in passages()[0, :64].tolist()]
    drawn = np.random.default_rng(0).integers(len(texts), size=(8, 64))
    batches = [TextBatch.from_texts([texts[i] for i in row], tokenizer=tokenizer) for row in drawn.tolist()]
    bare = Fluency()
    bare(batches[0])
    ratios, hit_rate, hits = [], 0.0, []
    for _ in range(NUM_ROUNDS):
        cached = Cached(bare)
        first = seconds(lambda cached=cached: score_all(cached, batches))
        hit_rate = cached.hit_rate
        hits.append(seconds(lambda cached=cached: score_all(cached, batches)))
        ratios.append(seconds(lambda: score_all(bare, batches)) / first)
    print(f"fluency, {hit_rate:.0%} of {drawn.size} repeated texts: {statistics.median(ratios):.1f} x faster cached")
    print(f"cache hit: {statistics.median(hits) / drawn.size * 1e6:.1f} microseconds per text")


def score_all(scorer: Any, batches: Sequence[TextBatch]) -> None:
    for batch in batches:
        scorer(batch)


def main() -> None:
    print_composite()
    print_per_token()
    print_cached()


if __name__ == "__main__":
    main()
