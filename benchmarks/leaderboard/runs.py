"""Runs of the leaderboard (a task, an entry and a seed each): list them, execute them, keep the finished ones."""

import hashlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entries import (
    ENTRIES,
    EXPERTS,
    FIRST_CASE,
    NO_BEST_TURN,
    NUM_CASES,
    SETTINGS,
    TIMESTEPS,
    TRAINED,
    Entry,
    RunSpec,
    task_env,
)
from learning_curve import play, scores_of
from textgym.tasks import TASKS, find_task
from textgym.tokenizers import EMBEDDED_LMS, embedded_lm_path
from textgym_agents import Episodes, LMPolicy, env_seed

NUM_SAMPLES = 6
"""Texts that a record keeps, those of the first held-out cases."""

CHUNK = 64
"""Held-out cases evaluated at a time; best-of-n holds n times as many texts."""


def run_specs(
    tasks: Iterable[str],
    entries: Sequence[str],
    num_seeds: int,
    *,
    timesteps: int | None = None,
    num_held_out: int = 192,
    model: str | None = None,
) -> list[RunSpec]:
    """Return the runs of a leaderboard, task by task.

    Args:
        tasks: Names of tasks.
        entries: Names of entries; those that need an optimal policy are left out where none is known.
        num_seeds: Runs per task and entry.
        timesteps: Tokens per training, instead of the tasks' own budgets.
        num_held_out: Number of held-out cases.
        model: Language model that all entries start from; by default each task's own.
    """
    return [
        RunSpec(
            task=task,
            entry=entry,
            seed=seed,
            timesteps=(TIMESTEPS[task] if timesteps is None else timesteps) if entry in TRAINED else 0,
            num_held_out=num_held_out,
            model=start,
            weights=_weights_digest(start),
            settings=SETTINGS.get(entry, {}),
        )
        for task in tasks
        for start in (find_task(task).model if model is None else model,)
        for entry in entries
        for seed in range(num_seeds)
        if entry not in EXPERTS or task not in NO_BEST_TURN
    ]


def run(spec: RunSpec) -> dict[str, Any]:
    """Train and evaluate an entry; return the record: the specification as ``"job"``, scores and costs.

    ``"learning_curve"`` holds ``[tokens, mean score]`` of the evaluations on the first held-out cases, whose seconds
    are not those of the training; of an entry that does not train, its score on the same cases after 0 tokens.
    ``"samples"`` are the texts of the first cases.

    Raises:
        FloatingPointError: If the training diverges.
    """
    start = time.process_time()
    entry = ENTRIES[spec.entry](spec)
    trained = time.process_time()
    cases = range(FIRST_CASE, FIRST_CASE + spec.num_held_out)
    held_out = held_out_episodes(entry, spec.task, cases, model=spec.model, seed=spec.seed)
    scores = np.concatenate([scores_of(episodes) for episodes in held_out])
    num_levels = find_task(spec.task).num_levels
    curve, seconds = [[0, float(scores[:NUM_CASES].mean())]], 0.0
    if entry.curve is not None:
        curve, seconds = entry.curve.points, entry.curve.seconds
    return {
        "job": asdict(spec),
        "score": float(scores.mean()),
        "score_by_level": {str(k + 1): float(scores[k::num_levels].mean()) for k in range(num_levels)},
        "perplexity": perplexity(LMPolicy(spec.model), held_out),
        "samples": [sample_of(info) for info in held_out[0].infos[:NUM_SAMPLES]],
        "learning_curve": curve,
        "trained_tokens": entry.num_timesteps,
        "training_seconds": round(trained - start - seconds, 1),
        "evaluation_seconds": round(time.process_time() - trained + seconds, 1),
    }


def held_out_episodes(
    entry: Entry, task: str, cases: Sequence[int], *, model: str = "tiny", seed: int = 0, **keywords: Any
) -> list[Episodes]:
    """Return one episode per held-out case, ``CHUNK`` at a time.

    Args:
        entry: The policy.
        task: Name of the task.
        cases: K indices into the split ``"eval"``, whose levels alternate.
        model: Model whose tokenizer is used.
        seed: Seed of the sampling and of the simulated user.
        **keywords: Further keywords of the environment.
    """
    generator = torch.Generator().manual_seed(seed)
    episodes = []
    for start in range(0, len(cases), CHUNK):
        chunk = list(cases[start : start + CHUNK])
        env = task_env(task, len(chunk), model, "eval", **keywords)
        episodes.append(play(env, entry.policy(env), chunk, env_seed(seed) + start, generator))
    return episodes


def sample_of(info: dict[str, Any]) -> dict[str, Any]:
    """Return prompt, text and score of an episode; the text of a dialogue has a line per turn."""
    text = info["completion"].strip()
    if "turns" in info:
        text = "\n".join(f"{turn['role']}: {turn['content'].strip()}" for turn in info["turns"])
    return {"prompt": info["prompt"], "text": text, "score": round(info["score"], 3)}


def perplexity(lm: LMPolicy, chunks: Iterable[Episodes]) -> float:
    """Return the perplexity per token of the texts of episodes under a language model."""
    total, num_tokens = 0.0, 0
    for episodes in chunks:
        with torch.no_grad():
            total += float(lm.evaluate(episodes).log_probs[episodes.mask].sum())
        num_tokens += int(episodes.num_steps.sum())
    return math.exp(-total / num_tokens)


def untrained_scores(
    tasks: Iterable[str] = TASKS,
    *,
    num_cases: int = 1000,
    model: str | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Return ``{task: {level: mean score}}`` of the sampled LM, rounded to four digits.

    Args:
        tasks: Names of tasks, by default all.
        num_cases: Held-out cases of each level, at most 1000.
        model: The language model; by default each task's own.
        log: Called with a line per task and level.
    """
    scores: dict[str, dict[str, float]] = {}
    for task in tasks:
        start = find_task(task).model if model is None else model
        entry = ENTRIES["sampled LM"](RunSpec(task=task, entry="sampled LM", model=start))
        scores[task] = {}
        for level in range(1, find_task(task).num_levels + 1):
            held_out = held_out_episodes(entry, task, range(num_cases), model=start, level=level)
            mean = np.concatenate([scores_of(episodes) for episodes in held_out]).mean()
            scores[task][str(level)] = round(float(mean), 4)
            log(f"{task:11} level {level}  {scores[task][str(level)]:+.4f}")
    return scores


class FinishedRuns:
    """Records of finished runs in ``runs.json``, so that an interrupted leaderboard continues where it stopped.

    Args:
        folder: Folder of ``runs.json``; created if it does not exist.

    Raises:
        ValueError: If ``runs.json`` is not a file that this class wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "runs.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.records: list[dict[str, Any]] = []
        if self.path.is_file():
            try:
                self.records = json.loads(self.path.read_text(encoding="utf-8"))
                _ = [record["job"] for record in self.records]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{self.path} is not a list of finished runs; delete it to start over") from error

    def find(self, spec: RunSpec) -> dict[str, Any] | None:
        """Return the record of a run, or None if it is not finished."""
        wanted = asdict(spec)
        return next((record for record in self.records if record["job"] == wanted), None)

    def add(self, record: dict[str, Any]) -> None:
        """Add a record and replace the file atomically."""
        self.records.append(record)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.records, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)


def run_all(
    specs: Sequence[RunSpec], finished: FinishedRuns, num_processes: int = 1, log: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Execute the runs that are not finished; return the records of all, in the order of ``specs``.

    Args:
        specs: The runs.
        finished: Records of finished runs; new ones are added.
        num_processes: Runs at a time, one thread each; 1 runs them in this process.
        log: Called with a line per run.
    """
    missing = [spec for spec in specs if finished.find(spec) is None]
    if len(missing) < len(specs):
        log(f"{len(specs) - len(missing)} of {len(specs)} runs are in {finished.path}")
    start = time.perf_counter()
    for done, record in enumerate(_records(missing, num_processes), start=1):
        finished.add(record)
        spec, seconds = record["job"], record["training_seconds"] + record["evaluation_seconds"]
        log(
            f"[{done}/{len(missing)}, {(time.perf_counter() - start) / 60:4.1f} min] {spec['task']:11} "
            f"{spec['entry']:10} seed {spec['seed']}  score {record['score']:+.3f}  {seconds:5.1f} s"
        )
    found = [finished.find(spec) for spec in specs]
    return [record for record in found if record is not None]


def _records(specs: Sequence[RunSpec], num_processes: int) -> Iterator[dict[str, Any]]:
    """Yield the records of runs as they finish."""
    if num_processes == 1:
        yield from map(run, specs)
        return
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(num_processes, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(run, spec) for spec in specs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@cache
def _weights_digest(model: str) -> str | None:
    folder = embedded_lm_path(model) if model in EMBEDDED_LMS else Path(model)
    path = folder / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
